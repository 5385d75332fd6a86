//! All files of a log.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::format::catalog::{Cut, Fact, TopicFact};
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
    /// A log of up to two topics and a group, of which partitions may have been compacted, cut or shortened from the front,
    /// to the end or not quite; sound but for what was done to up to three files: removed, damaged, swapped with another, or
    /// stray to begin with.
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

    /// Puts segments that follow one another, and what was done to them; returns the offset behind them.
    fn draw_partition(&mut self, u: &mut Unstructured<'_>, topic: &str, id: u128, number: u32) -> Result<u64> {
        let mut segments = Vec::new();
        let (mut base, mut predecessor) = (0, None);
        for _ in 0..u.int_in_range(1..=3)? {
            let segment = draw_segment(u, (id, number), EPOCH, base, predecessor)?;
            let (end_position, next) = segment.end();
            predecessor = Some((base, end_position));
            segments.push(segment);
            if next <= base {
                break;
            }
            base = next;
        }
        // What is left of what is none of the partition's any more. What has its name has taken its place.
        let mut left = Vec::new();
        if u.ratio(1, 4)? {
            left.extend(compact(u, &mut segments)?);
        }
        if u.ratio(1, 4)? {
            let (cut, gone) = cut(u, (id, number), &mut segments)?;
            left.extend(gone);
            self.facts.push(Fact::Cut(id, number, cut));
            self.facts.push(Fact::End(id, number, cut.end));
        }
        if u.ratio(1, 4)? {
            let start = Offset::new(u.int_in_range(0..=base)?);
            self.facts.push(Fact::Start(id, number, start));
            let deleted =
                segments.partition_point(|segment| segment.header.base_offset <= start.get()).saturating_sub(1);
            segments.drain(..u.int_in_range(0..=deleted)?);
        }
        for segment in left.into_iter().chain(segments) {
            let path = format!("topics/{topic}/{number}/{}", file_name(Offset::new(segment.header.base_offset)));
            self.files.insert(path, segment.encode());
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

fn draw_segment(
    u: &mut Unstructured<'_>,
    (topic_id, partition): (u128, u32),
    epoch: u32,
    base_offset: u64,
    predecessor: Option<(u64, u64)>,
) -> Result<Segment> {
    let header = SegmentHeader {
        log_id: LOG_ID,
        topic_id,
        partition,
        epoch,
        base_offset,
        predecessor,
        durable_end: base_offset,
        compacted: None,
    };
    let mut segment = Segment { header, free_bytes: 64, ..Segment::default() };
    segment.draw_batches(u)?;
    Ok(segment)
}

/// Puts one compacted segment in the place of some that follow one another, but for the last; returns those of them that
/// are still there, because the compaction was interrupted.
fn compact(u: &mut Unstructured<'_>, segments: &mut Vec<Segment>) -> Result<Vec<Segment>> {
    let first = u.int_in_range(0..=segments.len().saturating_sub(2))?;
    let next = u.int_in_range(first..=segments.len() - 1)?;
    let end = segments[next].header.base_offset;
    let mut replaced: Vec<Segment> = segments.drain(first..next).collect();
    let Some(Segment { header, .. }) = replaced.first().cloned() else { return Ok(replaced) };
    let epoch = header.epoch + u.int_in_range(0..=1)?;
    let mut batches = Vec::new();
    for batch in replaced.iter().flat_map(|segment| &segment.batches).filter(|batch| batch.span > 0) {
        let gap = Batch { base_offset: batch.base_offset, span: batch.span, epoch, ..Batch::default() };
        batches.push(if u.ratio(1, 3)? { gap } else { Batch { epoch, ..batch.clone() } });
    }
    let compacted = Some((end, u.int_in_range(end..=end.saturating_add(9))?));
    let header = SegmentHeader { epoch, compacted, ..header };
    segments.insert(first, Segment { header, batches, free_bytes: 64, ..Segment::default() });
    replaced.remove(0);
    let left = u.int_in_range(0..=replaced.len())?;
    Ok(replaced.split_off(left))
}

/// Cuts the partition between two batches, or as far as the cut got: it is recorded, the segments behind it are gone, a new
/// one begins there. Returns those that came back.
fn cut(u: &mut Unstructured<'_>, home: (u128, u32), segments: &mut Vec<Segment>) -> Result<(Cut, Vec<Segment>)> {
    let at = u.int_in_range(0..=segments.len() - 1)?;
    let Segment { header, batches, .. } = &segments[at];
    let kept = u.int_in_range(0..=batches.len())?;
    let parted = Segment { batches: batches[..kept].to_vec(), header: header.clone(), ..Segment::default() };
    let (position, end) = parted.end();
    let epoch = segments.iter().map(|segment| segment.header.epoch).fold(EPOCH, u32::max) + 1;
    let cut = Cut { end: Offset::new(end), epoch };
    let stays = segments.partition_point(|segment| segment.header.base_offset < end);
    let mut left = Vec::new();
    match u.int_in_range(0..=3)? {
        0 => {}
        1 => segments.truncate(u.int_in_range(stays..=segments.len())?),
        finished => {
            let gone = segments.split_off(stays);
            let last = segments.last().map(|last| {
                let base = last.header.base_offset;
                (base, if base == parted.header.base_offset { position } else { last.end().0 })
            });
            if finished == 3 {
                segments.push(draw_segment(u, home, epoch, end, last)?);
            }
            left = gone.into_iter().skip(u.int_in_range(0..=2)?).collect();
        }
    }
    Ok((cut, left))
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
