//! The events of the demo: what one holds follows from whose it is and which number it has, so that whoever reads it
//! can say whether each of its bytes is right. The tests use this file too.

/// How many users there are; each is a key.
pub(crate) const USERS: u64 = 1000;

/// The key of a user.
pub(crate) fn key(user: u64) -> Vec<u8> {
    format!("user-{user}").into_bytes()
}

/// The user whose key this is.
pub(crate) fn user_of(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key).ok()?.strip_prefix("user-")?.parse().ok()
}

/// Event number `number` of `user`, counted from 0: some 60 to 180 bytes.
pub(crate) fn value(user: u64, number: u64) -> Vec<u8> {
    let mut bits = mix(user << 32 ^ number);
    let (cents, words) = (bits % 100_000, 2 + bits % 8);
    let mut value = format!(r#"{{"user":{user},"event":{number},"paid":{}.{:02},"note":""#, cents / 100, cents % 100);
    for _ in 0..words {
        bits = mix(bits);
        value.push_str(&format!("{bits:016x}"));
    }
    value.push_str("\"}");
    value.into_bytes()
}

/// The number of an event, as its value says.
pub(crate) fn number_of(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let (_, behind) = text.split_once(r#""event":"#)?;
    behind.split_once(',')?.0.parse().ok()
}

/// SplitMix64: bits that look like chance and are always the same.
pub(crate) fn mix(state: u64) -> u64 {
    let mut bits = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
