//! Inputs that are files: taking them apart, and making their checksums right.

use std::collections::BTreeMap;

use super::reference::{self, HEADER_BYTES, crc32};

/// The files of a log, by their paths in it.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The most files, and the most bytes of one: what is larger says nothing new, slowly.
const MOST_FILES: usize = 24;
const MOST_BYTES: usize = 1 << 16;

/// Whose segment it shall be: log id, topic id, partition, base offset.
pub type Place = (u128, u128, u32, u64);

/// Bits of the first byte of an input.
pub const MEND_HEADER: u8 = 1;
pub const MEND_BATCHES: u8 = 2;

/// An input as files. For each: the length of its path in a byte, the path, how many bytes it holds in two, those, and how
/// many words of zeros follow them in two.
pub fn unpack(mut input: &[u8]) -> Files {
    let mut files = Files::new();
    while let Some((length, rest)) = input.split_first() {
        let (path, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        let (held, rest) = number(rest);
        let (bytes, rest) = rest.split_at(rest.len().min(held));
        let (zeros, rest) = number(rest);
        input = rest;
        let Ok(path) = std::str::from_utf8(path) else { continue };
        if files.len() < MOST_FILES && fits(&files, path) {
            let mut bytes = bytes.to_vec();
            bytes.resize((bytes.len() + zeros * 8).min(MOST_BYTES), 0);
            files.insert(path.to_owned(), bytes);
        }
    }
    files
}

/// A number of two bytes, of which some may be missing.
fn number(input: &[u8]) -> (usize, &[u8]) {
    let (bytes, rest) = input.split_at(input.len().min(2));
    (bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)), rest)
}

/// The input that [`unpack`] takes apart to these files.
pub fn pack(files: &Files) -> Vec<u8> {
    let mut input = Vec::new();
    for (path, bytes) in files {
        let held = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Zeros come in words of eight.
        let held = held + (bytes.len() - held) % 8;
        input.push(path.len() as u8);
        input.extend(path.as_bytes());
        input.extend((held as u16).to_le_bytes());
        input.extend(&bytes[..held]);
        input.extend((((bytes.len() - held) / 8) as u16).to_le_bytes());
    }
    input
}

/// Whether a disk can hold this path beside the others: no file is a directory.
fn fits(files: &Files, path: &str) -> bool {
    let sound =
        |name: &str| !name.is_empty() && name != "." && name != ".." && name.len() < 256 && !name.contains('\0');
    let clashes = |other: &String| {
        other == path || other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/"))
    };
    path.split('/').all(sound) && path.split('/').count() < 8 && !files.keys().any(clashes)
}

/// Writes the length and the checksum of a batch that fills these bytes.
pub fn seal(bytes: &mut [u8], salt: u32) {
    let length = bytes.len() as u32;
    let crc = crc32(length ^ salt, &bytes[8..]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the checksums of a segment right, as `control` says: that of the header, whose fields are those of `place` if
/// there is one, and those of the batches, found by their lengths. Other bytes stay as they are.
pub fn mend_checksums(bytes: &mut [u8], control: u8, place: Option<Place>) {
    if bytes.len() < HEADER_BYTES as usize {
        return;
    }
    if control & MEND_HEADER != 0 {
        if let Some((log_id, topic_id, partition, base)) = place {
            bytes[16..32].copy_from_slice(&log_id.to_le_bytes());
            bytes[32..48].copy_from_slice(&topic_id.to_le_bytes());
            bytes[48..52].copy_from_slice(&partition.to_le_bytes());
            bytes[56..64].copy_from_slice(&base.to_le_bytes());
        }
        bytes[..8].copy_from_slice(b"tidelog\0");
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        let crc = crc32(1, &bytes[16..HEADER_BYTES as usize]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    if control & MEND_BATCHES == 0 {
        return;
    }
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let salt = word(bytes, 12);
    let mut at = HEADER_BYTES as usize;
    while at + 8 <= bytes.len() {
        let length = word(bytes, at) as usize;
        // A checksum that is all ones was meant to be wrong.
        if length >= 44 && length.is_multiple_of(8) && at + length <= bytes.len() {
            if word(bytes, at + 4) != u32::MAX {
                seal(&mut bytes[at..at + length], salt);
            }
            at += length;
        } else {
            at += 8;
        }
    }
}

/// Makes the checksums of all segments right, as `control` says.
pub fn mend_all(files: &mut Files, control: u8) {
    for (path, bytes) in files {
        if path.ends_with(".log") {
            mend_checksums(bytes, control, None);
        }
    }
}

/// The segments in a directory, by their names.
pub fn segments_in<'a>(files: &'a Files, dir: &str) -> BTreeMap<&'a str, &'a [u8]> {
    let below = |(path, bytes): (&'a String, &'a Vec<u8>)| {
        let name = path.strip_prefix(dir)?.strip_prefix('/')?;
        reference::base_of(name).map(|_| (name, bytes.as_slice()))
    };
    files.iter().filter_map(below).collect()
}
