//! What the records of the catalog hold.
//!
//! The catalog is a partition, and a table (see [the format](super)). Keys are UTF-8.
//!
//! | key                 | value                                                                                  |
//! |---------------------|----------------------------------------------------------------------------------------|
//! | `epoch`             | u32: the number of the latest opening for writing                                      |
//! | `closed`            | u32: the number of the latest opening that was closed cleanly                          |
//! | `topic/NAME`        | topic id u128, partitions u32, then settings: a count u32 and for each two texts, name and value |
//! | `deleted/TOPIC ID`  | text: the name of a topic whose files are being removed; the id in 32 hexadecimal digits |
//! | `group/NAME`        | no bytes: the files of the group are there, its committed offsets in them               |
//! | `end/TOPIC ID/PARTITION` | u64: everything below this offset was durable when the log was last closed, or the partition cut; of topics and groups |
//! | `start/TOPIC ID/PARTITION` | u64: everything below this offset was deleted on purpose; without it, nothing was         |
//! | `cut/TOPIC ID/PARTITION` | offset u64, epoch u32: everything at or above this offset was cut off on purpose, as far as it lies in segments of an earlier epoch; the latest cut counts |
//!
//! The ends are the witnesses of last resort: of a partition whose newest pages or files are gone nothing else could
//! tell. The id of a group is that in the headers of its segments, its partition is 0. If `closed` is `epoch`, nothing
//! was appended since.
//!
//! No two topics have the same id. A copy of a topic's directory, under another name, is none of the log's; and if the
//! catalog says the same id of two, only the one counts whose name comes first, byte by byte.
//!
//! A text is a u32 length and UTF-8. In keys, ids are 32 hexadecimal digits, `a` to `f` in lower case, and partitions are
//! in decimal. Settings are named as in Kafka where it has them; their values are texts as `TopicConfig::set` takes
//! them. A reader keeps what it does not know of a topic's settings, and steps over keys that it does not know and over
//! bytes behind the fields of a value.

use crate::error::Flaw;
use crate::format::bytes::{Reader, put_text};
use crate::types::Offset;

/// Where a partition was cut: what segments of an epoch before this one hold at or above `end` does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) end: Offset,
    pub(crate) epoch: u32,
}

/// A record of the catalog, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Epoch(u32),
    Topic(String, TopicFact),
    /// The topic of this name is gone.
    NoTopic(String),
    /// The files of this topic are being removed.
    Deleting(u128, String),
    Deleted(u128),
    /// The files of this group are there.
    Group(String),
    /// The group of this name is gone.
    NoGroup(String),
    /// Where the partition of the topic or group with this id ended when it was closed.
    End(u128, u32, Offset),
    /// The partition is gone.
    NoEnd(u128, u32),
    /// Everything below was deleted on purpose from the partition of the topic with this id.
    Start(u128, u32, Offset),
    /// The partition is gone.
    NoStart(u128, u32),
    /// Where the partition of the topic with this id was cut last.
    Cut(u128, u32, Cut),
    /// The partition is gone.
    NoCut(u128, u32),
    /// The opening with this number was closed cleanly.
    Closed(u32),
    /// From a newer library.
    Unknown,
}

/// What the catalog holds of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicFact {
    pub(crate) id: u128,
    pub(crate) partitions: u32,
    pub(crate) settings: Vec<(String, String)>,
}

impl Fact {
    /// The key and the value of the record that says this.
    pub(crate) fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        match self {
            Fact::Epoch(epoch) => (b"epoch".to_vec(), Some(epoch.to_le_bytes().to_vec())),
            Fact::Topic(name, topic) => (name_key("topic", name), Some(topic.encode())),
            Fact::NoTopic(name) => (name_key("topic", name), None),
            Fact::Deleting(id, name) => {
                let mut value = Vec::new();
                put_text(&mut value, name);
                (deleted_key(*id), Some(value))
            }
            Fact::Deleted(id) => (deleted_key(*id), None),
            Fact::Group(name) => (name_key("group", name), Some(Vec::new())),
            Fact::NoGroup(name) => (name_key("group", name), None),
            Fact::End(id, partition, end) => {
                (partition_key("end", *id, *partition), Some(end.get().to_le_bytes().to_vec()))
            }
            Fact::NoEnd(id, partition) => (partition_key("end", *id, *partition), None),
            Fact::Start(id, partition, start) => {
                (partition_key("start", *id, *partition), Some(start.get().to_le_bytes().to_vec()))
            }
            Fact::NoStart(id, partition) => (partition_key("start", *id, *partition), None),
            Fact::Cut(id, partition, cut) => (partition_key("cut", *id, *partition), Some(cut.encode())),
            Fact::NoCut(id, partition) => (partition_key("cut", *id, *partition), None),
            Fact::Closed(epoch) => (b"closed".to_vec(), Some(epoch.to_le_bytes().to_vec())),
            Fact::Unknown => unreachable!("what is not known is never written"),
        }
    }

    pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Fact, Flaw> {
        let key = std::str::from_utf8(key).map_err(|_| Flaw::Field("key"))?;
        if let Some(name) = key.strip_prefix("topic/") {
            return Ok(match value {
                Some(value) => Fact::Topic(name.to_owned(), TopicFact::decode(value)?),
                None => Fact::NoTopic(name.to_owned()),
            });
        }
        if let Some(id) = key.strip_prefix("deleted/") {
            let id = u128::from_str_radix(id, 16).map_err(|_| Flaw::Field("topic id"))?;
            return Ok(match value {
                Some(value) => Fact::Deleting(id, Reader::new(value).text()?.to_owned()),
                None => Fact::Deleted(id),
            });
        }
        if let Some(name) = key.strip_prefix("group/") {
            return Ok(match value {
                Some(_) => Fact::Group(name.to_owned()),
                None => Fact::NoGroup(name.to_owned()),
            });
        }
        if let Some(rest) = key.strip_prefix("end/")
            && let Some((id, partition)) = partition_of_key(rest)?
        {
            return Ok(match value {
                Some(value) => Fact::End(id, partition, Offset::new(Reader::new(value).u64()?)),
                None => Fact::NoEnd(id, partition),
            });
        }
        if let Some(rest) = key.strip_prefix("start/")
            && let Some((id, partition)) = partition_of_key(rest)?
        {
            return Ok(match value {
                Some(value) => Fact::Start(id, partition, Offset::new(Reader::new(value).u64()?)),
                None => Fact::NoStart(id, partition),
            });
        }
        if let Some(rest) = key.strip_prefix("cut/")
            && let Some((id, partition)) = partition_of_key(rest)?
        {
            return Ok(match value {
                Some(value) => Fact::Cut(id, partition, Cut::decode(value)?),
                None => Fact::NoCut(id, partition),
            });
        }
        match (key, value) {
            ("epoch", Some(value)) => Ok(Fact::Epoch(Reader::new(value).u32()?)),
            ("closed", Some(value)) => Ok(Fact::Closed(Reader::new(value).u32()?)),
            _ => Ok(Fact::Unknown),
        }
    }
}

/// The group of which there are files, if this is the key that says so.
pub(crate) fn group_of_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix("group/")
}

fn name_key(what: &str, name: &str) -> Vec<u8> {
    [what, "/", name].concat().into_bytes()
}

fn deleted_key(id: u128) -> Vec<u8> {
    [&b"deleted/"[..], &hexadecimal(id)].concat()
}

fn partition_key(what: &str, id: u128, partition: u32) -> Vec<u8> {
    [what.as_bytes(), b"/", &hexadecimal(id), b"/", partition.to_string().as_bytes()].concat()
}

/// An id as keys have it. Opening a log looks some keys up for each partition, and `format!` takes ten times as long.
fn hexadecimal(id: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (4 * at)) as usize & 0xf];
    }
    digits
}

/// The topic id and the partition that a key ends with; `None` if it is none of ours.
fn partition_of_key(rest: &str) -> Result<Option<(u128, u32)>, Flaw> {
    let Some((id, partition)) = rest.split_once('/') else { return Ok(None) };
    let id = u128::from_str_radix(id, 16).map_err(|_| Flaw::Field("topic id"))?;
    Ok(Some((id, partition.parse().map_err(|_| Flaw::Field("partition"))?)))
}

impl Cut {
    fn encode(self) -> Vec<u8> {
        [&self.end.get().to_le_bytes()[..], &self.epoch.to_le_bytes()[..]].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Cut, Flaw> {
        let mut fields = Reader::new(bytes);
        Ok(Cut { end: Offset::new(fields.u64()?), epoch: fields.u32()? })
    }
}

impl TopicFact {
    fn encode(&self) -> Vec<u8> {
        // As much as the settings take that every topic has.
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.partitions.to_le_bytes());
        let count = u32::try_from(self.settings.len()).expect("a topic has few settings");
        out.extend_from_slice(&count.to_le_bytes());
        for (name, value) in &self.settings {
            put_text(&mut out, name);
            put_text(&mut out, value);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<TopicFact, Flaw> {
        let mut fields = Reader::new(bytes);
        let (id, partitions, count) = (fields.u128()?, fields.u32()?, fields.u32()?);
        let mut settings = Vec::new();
        for _ in 0..count {
            settings.push((fields.text()?.to_owned(), fields.text()?.to_owned()));
        }
        Ok(TopicFact { id, partitions, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_reads_back_as_it_was_written() {
        let settings = vec![("durability".to_owned(), "os".to_owned()), ("x".to_owned(), String::new())];
        for fact in [
            Fact::Epoch(7),
            Fact::Topic("orders".into(), TopicFact { id: 1 << 99, partitions: 3, settings }),
            Fact::NoTopic("orders".into()),
            Fact::Deleting(5, "orders".into()),
            Fact::Deleted(u128::MAX),
            Fact::Group("a/b".into()),
            Fact::NoGroup("a/b".into()),
            Fact::End(u128::MAX, 7, Offset::new(1 << 60)),
            Fact::NoEnd(3, 0),
            Fact::Start(7, 1, Offset::new(5)),
            Fact::NoStart(7, 1),
            Fact::Cut(7, 1, Cut { end: Offset::new(5), epoch: 3 }),
            Fact::NoCut(7, 1),
            Fact::Closed(9),
        ] {
            let (key, value) = fact.encode();
            assert_eq!(Fact::decode(&key, value.as_deref()), Ok(fact));
        }
    }

    #[test]
    fn keys_are_as_the_table_in_the_head_says() {
        let key = |fact: Fact| String::from_utf8(fact.encode().0).unwrap();

        assert_eq!(key(Fact::NoEnd(0xa5 << 100, 12)), format!("end/{:032x}/12", 0xa5_u128 << 100));
        assert_eq!(key(Fact::NoStart(0, 0)), "start/00000000000000000000000000000000/0");
        assert_eq!(key(Fact::NoCut(7, u32::MAX)), "cut/00000000000000000000000000000007/4294967295");
        assert_eq!(key(Fact::Deleted(u128::MAX)), "deleted/ffffffffffffffffffffffffffffffff");
    }

    #[test]
    fn a_key_of_a_newer_library_is_stepped_over_and_a_cut_value_is_a_flaw() {
        assert_eq!(Fact::decode(b"quota/me", Some(b"9")), Ok(Fact::Unknown));
        let (key, value) = Fact::Topic("t".into(), TopicFact { id: 1, partitions: 1, settings: vec![] }).encode();
        assert_eq!(Fact::decode(&key, value.as_deref().map(|bytes| &bytes[..23])), Err(Flaw::TooShort));
    }
}
