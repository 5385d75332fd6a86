//! What the records of a group hold: its committed offsets.
//!
//! A group is a partition, in a directory of its own, and a table (see [the format](super)). Keys are UTF-8.
//!
//! | key                | value                                                                             |
//! |--------------------|-----------------------------------------------------------------------------------|
//! | `TOPIC/PARTITION`  | topic id u128, offset u64 (of the next record to read), metadata as text (u32 length, UTF-8) |
//!
//! An entry whose topic id is not that of the topic of this name belongs to a topic that was deleted, and counts for
//! nothing, like one of a partition that the topic does not have. The last `/` parts topic and partition, which is in
//! decimal. Behind the metadata nothing follows: a value that goes on is not understood, and passed over. The timestamp
//! of the record says when it was committed.

use crate::error::Flaw;
use crate::format::bytes::{Reader, put_text};
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// A committed offset and the identity of the topic that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) topic_id: u128,
    pub(crate) offset: OffsetAndMetadata,
}

pub(crate) fn encode_key(partition: &TopicPartition) -> Vec<u8> {
    let mut out = Vec::new();
    put_key(&mut out, partition);
    out
}

pub(crate) fn encode_value(committed: &Committed) -> Vec<u8> {
    let mut out = Vec::new();
    put_value(&mut out, committed.topic_id, &committed.offset);
    out
}

pub(crate) fn put_key(out: &mut Vec<u8>, partition: &TopicPartition) {
    out.extend_from_slice(partition.topic().as_bytes());
    out.push(b'/');
    put_decimal(out, partition.partition());
}

fn put_decimal(out: &mut Vec<u8>, number: u32) {
    if number >= 10 {
        put_decimal(out, number / 10);
    }
    out.push(b"0123456789"[(number % 10) as usize]);
}

pub(crate) fn put_value(out: &mut Vec<u8>, topic_id: u128, offset: &OffsetAndMetadata) {
    out.extend_from_slice(&topic_id.to_le_bytes());
    out.extend_from_slice(&offset.offset.get().to_le_bytes());
    put_text(out, &offset.metadata);
}

pub(crate) fn decode_key(key: &[u8]) -> Result<TopicPartition, Flaw> {
    let key = std::str::from_utf8(key).map_err(|_| Flaw::Field("key"))?;
    let (topic, partition) = key.rsplit_once('/').ok_or(Flaw::Field("key"))?;
    let partition = partition.parse().map_err(|_| Flaw::Field("partition"))?;
    Ok(TopicPartition::new(topic, partition))
}

pub(crate) fn decode_value(value: &[u8]) -> Result<Committed, Flaw> {
    let mut fields = Reader::new(value);
    let (topic_id, offset) = (fields.u128()?, Offset::new(fields.u64()?));
    let metadata = fields.text()?.to_owned();
    if !fields.rest().is_empty() {
        return Err(Flaw::Field("metadata"));
    }
    Ok(Committed { topic_id, offset: OffsetAndMetadata { offset, metadata } })
}

/// The name of the directory of a group. Different groups have different ones, also where case is ignored only
/// if they differ in more than case.
pub(crate) fn directory_name(group: &str) -> String {
    let mut name = String::new();
    for byte in group.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

/// The group whose directory has this name, if it is one that [`directory_name`] gives.
pub(crate) fn group_of_directory(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    let group = String::from_utf8(bytes).ok()?;
    (directory_name(&group) == name && !group.is_empty()).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_offset_reads_back_as_it_was_written() {
        for number in [0, 9, 10, 4096, u32::MAX] {
            let key = encode_key(&TopicPartition::new("orders", number));
            assert_eq!(key, format!("orders/{number}").into_bytes());
        }
        let partition = TopicPartition::new("orders", 12);
        let committed = Committed { topic_id: 77, offset: OffsetAndMetadata::new(Offset::new(5), "häl") };
        assert_eq!(decode_key(&encode_key(&partition)), Ok(partition));
        assert_eq!(decode_value(&encode_value(&committed)), Ok(committed));
    }

    #[test]
    fn the_name_of_a_group_and_of_its_directory_lead_to_each_other() {
        for group in ["billing", "a/b", "..", "größe", "a%2fb", " "] {
            assert_eq!(group_of_directory(&directory_name(group)).as_deref(), Some(group));
        }
        assert_eq!(directory_name(".."), "%2e%2e");
        for stray in ["", "a.b", "%2", "%zz", "%41"] {
            assert_eq!(group_of_directory(stray), None, "{stray}");
        }
    }
}
