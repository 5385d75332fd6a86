//! The format's encoder and decoders as plain functions, for the fuzz targets of this repository. No promise to anybody.
//!
//! Nothing is decoded here: each function calls what the log itself calls, and shows the result.

use crate::error::Flaw;
use crate::format::batch::{self, Batch, Draft, Layout, Stamp, Walk};
use crate::format::catalog::Fact;
use crate::format::segment::{self, Header};
use crate::format::{committed, work};
use crate::fuzz::{Record, SegmentHeader};
use crate::inspect::{DumpItem, dump_bytes};
use crate::partition::Met;
use crate::types::{Offset, Timestamp, TimestampType};

/// A batch that the log believes.
#[derive(Clone, Copy, Debug)]
pub struct Believed<'a> {
    /// Where it begins in its segment.
    pub position: u64,
    batch: Batch<'a>,
}

/// A record in the bytes of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the format has the words")]
pub struct SeenRecord<'a> {
    pub offset: u64,
    pub timestamp: i64,
    pub append_time: bool,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> SeenRecord<'a> {
    /// Names and values.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        batch::headers(self.headers)
    }
}

#[allow(missing_docs, reason = "the format has the words")]
impl<'a> Believed<'a> {
    pub fn length(&self) -> u64 {
        self.batch.length()
    }

    pub fn base(&self) -> u64 {
        self.batch.base().get()
    }

    pub fn next(&self) -> u64 {
        self.batch.next().get()
    }

    pub fn epoch(&self) -> u32 {
        self.batch.epoch()
    }

    pub fn durable_end(&self) -> u64 {
        self.batch.durable_end().get()
    }

    pub fn count(&self) -> u32 {
        self.batch.count()
    }

    pub fn marker(&self) -> Option<u32> {
        self.batch.marker().map(|marker| marker as u32)
    }

    pub fn records(&self) -> impl Iterator<Item = SeenRecord<'a>> + use<'a> {
        self.batch.records().map(|record| SeenRecord {
            offset: record.offset.get(),
            timestamp: record.timestamp.as_millis(),
            append_time: record.timestamp_type == TimestampType::Append,
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
    }
}

/// The batch at the start of these bytes, whatever its base offset and epoch; `None` where the length is zero.
///
/// # Errors
///
/// What is wrong with it.
pub fn batch(bytes: &[u8], salt: u32) -> Result<Option<Believed<'_>>, Flaw> {
    let Some(batch) = Batch::at(bytes)? else { return Ok(None) };
    batch.verify(salt)?;
    Ok(Some(Believed { position: 0, batch }))
}

/// What a walk over a segment meets.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the format has the words")]
pub enum Step<'a> {
    Batch(Believed<'a>),
    Hole { start: u64, end: u64, first: u64, next: u64 },
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the format has the words")]
pub struct End {
    pub position: u64,
    pub due: u64,
    /// Whether something stands there that is no batch.
    pub torn: bool,
}

/// Walks over the bytes of a segment with a whole header, as recovery and `verify` do.
///
/// # Errors
///
/// What is wrong with the header.
pub fn walk<'a>(bytes: &'a [u8], mut each: impl FnMut(Step<'a>)) -> Result<End, Flaw> {
    let header = Header::decode(bytes)?;
    let mut walk = Walk::begin(&header, segment::salt(bytes));
    let mut holes = 0;
    loop {
        let position = walk.position;
        match Met::next(&mut walk, bytes, holes) {
            Met::Batch(batch) => each(Step::Batch(Believed { position, batch })),
            Met::Hole(hole) => {
                holes += 1;
                each(Step::Hole { start: hole.start, end: hole.end, first: hole.first.get(), next: hole.next.get() });
            }
            Met::End(flaw) => return Ok(End { position, due: walk.due.get(), torn: flaw.is_some() }),
        }
    }
}

/// The header of a segment.
///
/// # Errors
///
/// What is wrong with it.
pub fn header(bytes: &[u8]) -> Result<SegmentHeader, Flaw> {
    let header = Header::decode(bytes)?;
    Ok(SegmentHeader {
        log_id: header.identity.log,
        topic_id: header.identity.topic,
        partition: header.identity.partition,
        epoch: header.epoch,
        base_offset: header.base.get(),
        predecessor: header.predecessor.map(|before| (before.base.get(), before.end_position)),
        durable_end: header.durable_end.get(),
        compacted: header.compacted.map(|compacted| (compacted.end.get(), compacted.clean_end.get())),
    })
}

/// The bytes of a batch as the log writes it.
pub fn encode(records: &[Record], base: u64, durable_end: u64, epoch: u32, append_time: bool, salt: u32) -> Vec<u8> {
    let borrowed: Vec<_> = records.iter().map(|record| record.to_producer_record("")).collect();
    let drafts: Vec<Draft<'_>> = records
        .iter()
        .zip(&borrowed)
        .map(|(record, borrowed)| Draft {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &borrowed.headers,
            timestamp: Timestamp::from_millis(record.timestamp),
        })
        .collect();
    let layout = Layout::of(&drafts);
    let timestamp_type = if append_time { TimestampType::Append } else { TimestampType::Create };
    let stamp = Stamp { base: Offset::new(base), durable_end: Offset::new(durable_end), epoch, salt, timestamp_type };
    // The place is not clean: an earlier attempt may have left something there.
    let mut bytes = vec![0xa5; layout.length as usize];
    let word = batch::encode(&mut bytes, layout, &stamp, &drafts);
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    bytes
}

/// What a record of the catalog says, in words; and its key and value written again, if it is one that this version knows.
///
/// # Errors
///
/// What is wrong with it.
#[allow(clippy::type_complexity, reason = "nobody keeps it")]
pub fn fact(key: &[u8], value: Option<&[u8]>) -> Result<(String, Option<(Vec<u8>, Option<Vec<u8>>)>), Flaw> {
    let fact = Fact::decode(key, value)?;
    let again = (fact != Fact::Unknown).then(|| fact.encode());
    Ok((format!("{fact:?}"), again))
}

/// Topic, partition, topic id, offset and note of a committed offset; and its key and value written again.
///
/// # Errors
///
/// What is wrong with it.
#[allow(clippy::type_complexity, reason = "nobody keeps it")]
pub fn commit(key: &[u8], value: &[u8]) -> Result<((String, u32, u128, u64, String), (Vec<u8>, Vec<u8>)), Flaw> {
    let (partition, entry) = (committed::decode_key(key)?, committed::decode_value(value)?);
    let again = (committed::encode_key(&partition), committed::encode_value(&entry));
    let (offset, note) = (entry.offset.offset.get(), entry.offset.metadata);
    Ok(((partition.topic().to_owned(), partition.partition(), entry.topic_id, offset, note), again))
}

/// The group of a directory, and the directory of that group.
pub fn group_directory(name: &str) -> Option<(String, String)> {
    let group = committed::group_of_directory(name)?;
    let directory = committed::directory_name(&group);
    Some((group, directory))
}

/// [`inspect::dump`](fn@crate::inspect::dump) of bytes.
pub fn dump(bytes: &[u8], of_a_group: bool, mut each: impl FnMut(&DumpItem)) {
    dump_bytes(bytes, None, of_a_group, &mut each);
}

/// How many bytes this thread has computed checksums of since it asked last.
pub fn checked_bytes() -> u64 {
    work::take()
}
