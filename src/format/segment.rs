//! The header of a segment: whose file it is, and what was known when it was born.
//!
//! | bytes   | type | field                | value                                                             |
//! |---------|------|----------------------|-------------------------------------------------------------------|
//! | 0..8    |      | magic                | `tidelog` and a zero byte                                         |
//! | 8..12   | u32  | version              | 1                                                                 |
//! | 12..16  | u32  | crc                  | CRC-32 of bytes 16..128, started from `version`                   |
//! | 16..32  | u128 | log id               | the same in all files of a log                                    |
//! | 32..48  | u128 | topic id             | of the topic; 0: the catalog; of a group: see below               |
//! | 48..52  | u32  | partition            | its number in the topic; 0 in catalog and groups                  |
//! | 52..56  | u32  | epoch                | of the opening in which the file was made                         |
//! | 56..64  | u64  | base offset          | of the first record; the name of the file says the same           |
//! | 64..72  | u64  | predecessor base     | base offset of the segment before, or 2^64-1: this is the first   |
//! | 72..80  | u64  | predecessor position | the byte at which that one ended, before its rolled marker; or 0  |
//! | 80..88  | u64  | durable end          | everything below this offset was synced when the file was made    |
//! | 88..96  | u64  | end offset           | of a compacted segment: the offset behind its last; otherwise 0   |
//! | 96..104 | u64  | clean end            | of a compacted segment: see below; otherwise 0                    |
//! | 104..128 |     | reserved             | 0                                                                 |
//!
//! The header is written and synced before the file gets its name, so a segment without a whole header is damage. It
//! is whole if the file has 128 bytes and no more than 2^31, magic, version, crc and the reserved zeros are right, and
//! ids, partition and base offset are those of the place where the file lies: the log id is that of the catalog's first
//! whole header. It does not say where the segment ends: the successor does. Only that of a compacted segment says so
//! itself; its end offset is above its base offset, or the header is not whole.
//!
//! *Clean end*: what compaction looked at when it made the segment. No record in the segment has a key of which there is
//! a later record below the clean end. It tells a compaction to come what it need not look at again; to a reader it
//! means nothing. The predecessor is that of the first segment which it stands for, the durable end no more than the base
//! offset: the end offset says the rest, as far as it is not cut off.
//!
//! The topic id of a group is the FNV-1a hash, 128 bits, of its name: begin with 0x6c62272e07bb014262b821756295c58d, and
//! for each byte XOR it in and multiply by 2^88 + 0x13b, modulo 2^128.

use crate::error::Flaw;
use crate::format::VERSION;
use crate::format::bytes::{Reader, Writer};
use crate::types::Offset;

/// The bytes of the header: the position of the first batch.
pub(crate) const HEADER_BYTES: u64 = 128;

const MAGIC: &[u8; 8] = b"tidelog\0";
const NO_PREDECESSOR: u64 = u64::MAX;

/// The topic id of the catalog.
pub(crate) const CATALOG_ID: u128 = 0;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) log: u128,
    pub(crate) topic: u128,
    pub(crate) partition: u32,
}

/// Where the segment before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) base: Offset,
    pub(crate) end_position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) epoch: u32,
    pub(crate) base: Offset,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) durable_end: Offset,
    pub(crate) compacted: Option<Compacted>,
}

/// What the header of a compacted segment says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Behind its last offset: it stands for every segment that begins below.
    pub(crate) end: Offset,
    /// It holds no record of whose key there is a later one below this offset.
    pub(crate) clean_end: Offset,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let mut out = Writer::new(&mut bytes[16..]);
        out.put(&self.identity.log.to_le_bytes());
        out.put(&self.identity.topic.to_le_bytes());
        out.u32(self.identity.partition);
        out.u32(self.epoch);
        out.u64(self.base.get());
        out.u64(self.predecessor.map_or(NO_PREDECESSOR, |before| before.base.get()));
        out.u64(self.predecessor.map_or(0, |before| before.end_position));
        out.u64(self.durable_end.get());
        out.u64(self.compacted.map_or(0, |compacted| compacted.end.get()));
        out.u64(self.compacted.map_or(0, |compacted| compacted.clean_end.get()));
        out.pad();
        let crc = checksum(VERSION, &bytes[16..]);
        let mut out = Writer::new(&mut bytes[..16]);
        out.put(MAGIC);
        out.u32(VERSION);
        out.u32(crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, Flaw> {
        let bytes = bytes.get(..HEADER_BYTES as usize).ok_or(Flaw::TooShort)?;
        let mut fields = Reader::new(bytes);
        if fields.take(8)? != MAGIC {
            return Err(Flaw::Magic);
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        let stored = fields.u32()?;
        let computed = checksum(version, fields.rest());
        if stored != computed {
            return Err(Flaw::Checksum { stored, computed });
        }
        let identity = Identity { log: fields.u128()?, topic: fields.u128()?, partition: fields.u32()? };
        let epoch = fields.u32()?;
        let base = Offset::new(fields.u64()?);
        let (before, end_position) = (fields.u64()?, fields.u64()?);
        let predecessor = (before != NO_PREDECESSOR).then_some(Predecessor { base: Offset::new(before), end_position });
        let durable_end = Offset::new(fields.u64()?);
        let (end, clean_end) = (Offset::new(fields.u64()?), Offset::new(fields.u64()?));
        let compacted = (end != Offset::ZERO).then_some(Compacted { end, clean_end });
        if compacted.map_or(clean_end != Offset::ZERO, |compacted| compacted.end <= base) {
            return Err(Flaw::Field("end offset"));
        }
        if fields.rest().iter().any(|byte| *byte != 0) {
            return Err(Flaw::Field("reserved"));
        }
        Ok(Header { identity, epoch, base, predecessor, durable_end, compacted })
    }
}

/// The salt of the batches of the segment whose header these bytes are: its crc.
pub(crate) fn salt(header: &[u8]) -> u32 {
    header.get(12..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The checksum of the format: CRC-32 (IEEE 802.3) of `bytes`, started from `start` instead of from zero, so that it
/// covers that number too. It is zlib's `crc32(start, bytes)`.
#[inline]
pub(crate) fn checksum(start: u32, bytes: &[u8]) -> u32 {
    #[cfg(feature = "arbitrary")]
    crate::format::work::count(bytes.len());
    let mut hasher = crc32fast::Hasher::new_with_initial(start);
    hasher.update(bytes);
    hasher.finalize()
}

/// The topic id that the files of a group carry: FNV-1a, 128 bits, of its name. It need not be secret, only differ.
pub(crate) fn group_id(group: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    group.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// As many as the highest offset has.
const DIGITS: usize = 20;

/// The name of the file of a segment.
pub(crate) fn file_name(base: Offset) -> String {
    let (mut digits, mut left) = ([b'0'; DIGITS], base.get());
    for digit in digits.iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    [str::from_utf8(&digits).expect("digits are text"), ".log"].concat()
}

/// The base offset that a file name says, if it is the name of a segment.
pub(crate) fn base_of_file_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".log")?;
    let all_digits = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Offset::new)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            identity: Identity { log: 7 << 100, topic: 9 << 90, partition: 3 },
            epoch: 5,
            base: Offset::new(1000),
            predecessor: Some(Predecessor { base: Offset::new(10), end_position: 4096 }),
            durable_end: Offset::new(990),
            compacted: None,
        }
    }

    fn compacted(end: u64, clean_end: u64) -> Header {
        let compacted = Some(Compacted { end: Offset::new(end), clean_end: Offset::new(clean_end) });
        Header { compacted, ..header() }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
        let first = Header { predecessor: None, ..header() };
        assert_eq!(Header::decode(&first.encode()), Ok(first));
        let compacted = compacted(1001, 5000);
        assert_eq!(Header::decode(&compacted.encode()), Ok(compacted));
    }

    #[test]
    fn a_compacted_segment_that_ends_where_it_begins_has_no_whole_header() {
        for (end, clean_end) in [(1000, 5000), (1, 5000), (0, 5000)] {
            let bytes = compacted(end, clean_end).encode();
            assert_eq!(Header::decode(&bytes), Err(Flaw::Field("end offset")), "{end}, {clean_end}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn only_twenty_digits_and_log_name_a_segment() {
        assert_eq!(base_of_file_name("00000000000000000042.log"), Some(Offset::new(42)));
        assert_eq!(base_of_file_name(&file_name(Offset::new(u64::MAX))), Some(Offset::new(u64::MAX)));
        for name in ["42.log", "00000000000000000042.new", "+0000000000000000042.log", "99999999999999999999.log"] {
            assert_eq!(base_of_file_name(name), None, "{name}");
        }
    }
}
