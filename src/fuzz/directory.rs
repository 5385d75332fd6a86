//! All files of a log.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::format::catalog::{Fact, TopicFact};
use crate::format::committed::{Committed, directory_name, encode_key, encode_value};
use crate::format::segment::{CATALOG_ID, HEADER_BYTES, file_name, group_id};
use crate::fuzz::{Batch, Damage, Record, Segment, SegmentHeader};
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// Of the logs that are made here. What it is does not matter, but that all files say the same.
const LOG_ID: u128 = 0x7469_6465;
/// The opening that made the files.
const EPOCH: u32 = 1;
/// A record takes at least as many bytes, and positions are multiples of it.
const WORD: u64 = 8;

/// The files of a log, by their paths in its directory, with `/` between the names.
///
/// ```
/// use arbitrary::{Arbitrary, Unstructured};
/// use tidelog::fuzz::Directory;
///
/// let input: Vec<u8> = (0..=255).collect(); // from the fuzzer, or from a seed
/// let log = Directory::arbitrary(&mut Unstructured::new(&input))?;
/// let dir = tempfile::tempdir().unwrap();
/// log.write_to(|path, bytes| {
///     let file = dir.path().join(path);
///     std::fs::create_dir_all(file.parent().unwrap()).unwrap();
///     std::fs::write(file, bytes).unwrap();
/// });
/// # Ok::<(), arbitrary::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// What the files hold.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Directory {
    /// Hands every file over, in the order of the paths.
    pub fn write_to(&self, mut write: impl FnMut(&str, &[u8])) {
        self.files.iter().for_each(|(path, bytes)| write(path, bytes));
    }
}

/// A log that is being made up.
struct Draft {
    files: BTreeMap<String, Vec<u8>>,
    /// What the catalog says.
    facts: Vec<Fact>,
}

impl<'a> Arbitrary<'a> for Directory {
    /// A log of up to two topics and a group, sound but for what was done to up to three files: removed, damaged,
    /// swapped with another, or stray to begin with.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut draft = Draft { files: BTreeMap::new(), facts: vec![Fact::Epoch(EPOCH)] };
        for (name, id) in [("orders", 11), ("audit", 12)] {
            if u.ratio(3, 4)? {
                draft.draw_topic(u, name, id)?;
            }
        }
        if u.ratio(1, 2)? {
            draft.draw_group(u)?;
        }
        if u.ratio(1, 4)? {
            draft.facts.push(Fact::Deleting(13, "gone".to_owned()));
        }
        if u.ratio(1, 2)? {
            draft.facts.push(Fact::Closed(EPOCH));
        }
        draft.put_catalog();
        let mut directory = Directory { files: draft.files };
        for _ in 0..u.int_in_range(0..=3)? {
            directory.hurt(u)?;
        }
        Ok(directory)
    }
}

impl Draft {
    fn draw_topic(&mut self, u: &mut Unstructured<'_>, name: &str, id: u128) -> Result<()> {
        let partitions = u.int_in_range(1..=2)?;
        for number in 0..partitions {
            let end = self.draw_partition(u, name, id, number)?;
            if u.ratio(1, 2)? {
                self.facts.push(Fact::End(id, number, Offset::new(end)));
            }
        }
        let settings = vec![("segment.bytes".to_owned(), "4096".to_owned())];
        self.facts.push(Fact::Topic(name.to_owned(), TopicFact { id, partitions, settings }));
        Ok(())
    }

    /// Puts segments that follow one another; returns the offset behind them.
    fn draw_partition(&mut self, u: &mut Unstructured<'_>, topic: &str, id: u128, number: u32) -> Result<u64> {
        let (mut base, mut predecessor) = (0, None);
        for _ in 0..u.int_in_range(1..=3)? {
            let header = SegmentHeader {
                log_id: LOG_ID,
                topic_id: id,
                partition: number,
                epoch: EPOCH,
                base_offset: base,
                predecessor,
                durable_end: base,
                compacted: None,
            };
            let mut segment = Segment { header, free_bytes: 64, ..Segment::default() };
            segment.draw_batches(u)?;
            let (end_position, next) = segment.end();
            let path = format!("topics/{topic}/{number}/{}", file_name(Offset::new(base)));
            self.files.insert(path, segment.encode());
            predecessor = Some((base, end_position));
            if next <= base {
                break;
            }
            base = next;
        }
        Ok(base)
    }

    fn draw_group(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let name = u.choose(&["billing", "a/b"])?.to_string();
        let mut records = Vec::new();
        for (topic, id) in [("orders", 11), ("audit", 12)] {
            let offset = OffsetAndMetadata::new(u64::from(u.int_in_range(0..=9u8)?), "");
            let partition = TopicPartition::new(topic, u.int_in_range(0..=1)?);
            records.push((encode_key(&partition), Some(encode_value(&Committed { topic_id: id, offset }))));
        }
        let path = format!("groups/{}/{}", directory_name(&name), file_name(Offset::ZERO));
        self.files.insert(path, table_of(group_id(&name), records));
        self.facts.push(Fact::Group(name));
        Ok(())
    }

    fn put_catalog(&mut self) {
        let records = self.facts.iter().map(Fact::encode).collect();
        self.files.insert(format!("catalog/{}", file_name(Offset::ZERO)), table_of(CATALOG_ID, records));
    }
}

/// A table of these keys and values in one segment.
fn table_of(topic_id: u128, records: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Vec<u8> {
    let header = SegmentHeader { log_id: LOG_ID, topic_id, epoch: EPOCH, ..SegmentHeader::default() };
    let record = |(key, value)| Record { key: Some(key), value, ..Record::default() };
    let batches = vec![Batch::dense(0, EPOCH, records.into_iter().map(record))];
    Segment { header, batches, free_bytes: 64, ..Segment::default() }.encode()
}

impl Directory {
    fn hurt(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let paths: Vec<String> = self.files.keys().cloned().collect();
        let path = u.choose(&paths)?;
        match u.int_in_range(0..=5)? {
            0 => drop(self.files.remove(path)),
            1 => drop(self.files.insert(format!("{path}.new"), Vec::new())),
            2 => {
                let moved = u64::from(u.arbitrary::<u8>()?) * WORD;
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                let bytes = self.files.remove(path).unwrap_or_default();
                self.files.insert(format!("{dir}/{}", file_name(Offset::new(moved))), bytes);
            }
            3 => {
                let other = u.choose(&paths)?;
                let (one, another) = (self.files.remove(path), self.files.remove(other));
                self.files.extend(another.map(|bytes| (path.clone(), bytes)));
                self.files.extend(one.map(|bytes| (other.clone(), bytes)));
            }
            _ => {
                let damage: Damage = u.arbitrary()?;
                let bytes = self.files.entry(path.clone()).or_default();
                damage.strike(bytes);
                // Half of a header is the most that a name can stand for.
                bytes.truncate(bytes.len().max(HEADER_BYTES as usize / 2));
            }
        }
        if self.files.is_empty() {
            self.files.insert(format!("catalog/{}", file_name(Offset::ZERO)), Vec::new());
        }
        Ok(())
    }
}
