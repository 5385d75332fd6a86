//! The typed codecs, whose bytes are chosen by whoever can send to a topic.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidelog::{Bincode, Decode, Encode, Json, Raw, Utf8};

use super::memory;

/// The limit of the codecs that have one of their own here.
const LIMIT_BYTES: usize = 4096;
/// What a value may take for each byte of its limit: an empty text is a byte, and 24 in memory; serde takes some ahead.
const GROWTH: usize = 64;
/// What serde takes ahead of a sequence whose length it was told, and what an error takes.
const AHEAD_BYTES: usize = 2 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Paid {
    user: u64,
    cents: i64,
    note: Option<String>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Settled { at: u128 },
    Refused(Vec<String>),
}

/// The first byte chooses a type, the others are the value.
pub fn codecs(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 6 {
        0 => check::<String>(bytes),
        1 => check::<Vec<u8>>(bytes),
        2 => check::<Paid>(bytes),
        3 => check::<Vec<(u128, i8)>>(bytes),
        4 => check::<BTreeMap<String, Vec<u64>>>(bytes),
        _ => check::<Vec<Vec<bool>>>(bytes),
    }
    assert_eq!(Raw.decode(bytes).expect("bytes are bytes"), bytes);
    assert_eq!(Utf8.decode(bytes).ok().as_deref(), std::str::from_utf8(bytes).ok());
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    check_codec::<T>(&Bincode::new(), bytes, true);
    check_codec::<T>(&Bincode::<LIMIT_BYTES>::default(), bytes, true);
    // Text may leave out names and fields that are written again.
    check_codec::<T>(&Json::new(), bytes, false);
    check_codec::<T>(&Json::new().limit_bytes(LIMIT_BYTES), bytes, false);
}

/// `shortest`: whether a value is never written longer than it was read.
fn check_codec<T: PartialEq + Debug>(codec: &(impl Encode<T> + Decode<T>), bytes: &[u8], shortest: bool) {
    let decoded: Result<T, _> = memory::within(GROWTH * bytes.len() + AHEAD_BYTES, || codec.decode(bytes));
    let Ok(value) = decoded else { return };
    let mut again = Vec::new();
    match codec.encode(&value, &mut again) {
        Ok(()) => assert_eq!(codec.decode(&again).expect("what was encoded decodes"), value),
        Err(error) => assert!(!shortest, "what decodes within a limit, encodes within it: {error}"),
    }
}
