//! A batch as plain data, and its bytes: written from the specification, so that it can say what the writer never says.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::format::segment::checksum;
use crate::fuzz::Record;

const CONTROL: u32 = 32;
const DELETE_HORIZON: u32 = 64;
const PRODUCER: u32 = 128;
const TIMESTAMP_WIDTH_SHIFT: u32 = 8;
const SPARSE: u32 = 1024;
const HEADERS: u32 = 2048;

/// The bytes before extensions and records.
const HEADER_BYTES: usize = 44;
const ALIGNMENT: usize = 8;

/// A batch on the disk. See the specification of the format, in the rustdoc of `src/format/batch.rs`, for the fields.
///
/// `count` is the number of the records. What else shall be wrong is in `forged`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The offset of the first record.
    pub base_offset: u64,
    /// Milliseconds since the Unix epoch.
    pub base_timestamp: i64,
    /// How many offsets the batch takes.
    pub span: u32,
    /// Of the opening in which it was written.
    pub epoch: u32,
    /// How far the durable end was behind.
    pub lag: u32,
    /// They also say which of the fields below are written, and how wide.
    pub attributes: u32,
    /// Written if the attributes have bit 6.
    pub delete_horizon: i64,
    /// Producer id, sequence and producer epoch; written if the attributes have bit 7.
    pub producer: [u8; 16],
    /// Records, or what a marker says.
    pub content: Content,
    /// So many words of zeros more than the batch needs.
    pub spare_words: u8,
    /// Words at these bytes that are replaced by these before the checksum is computed. Those of length and checksum stay.
    pub forged: Vec<(u32, u32)>,
}

/// What stands behind the header of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The records; none in a gap.
    Records(Vec<BatchRecord>),
    /// What a marker marks: 1 synced, 2 closed, 3 rolled.
    Marker(u32),
}

impl Default for Content {
    fn default() -> Self {
        Content::Records(Vec::new())
    }
}

/// A record and its place in the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRecord {
    /// How far it is behind the base offset; written if the attributes have bit 10.
    pub offset_delta: u32,
    /// The record. Its timestamp is written as the attributes say: not at all, or cut to 32 bits.
    pub record: Record,
}

impl Batch {
    /// A marker of nothing but the rules: 1 synced, 2 closed, 3 rolled.
    pub fn marker(base_offset: u64, epoch: u32, kind: u32) -> Self {
        Batch { base_offset, epoch, attributes: CONTROL, content: Content::Marker(kind), ..Batch::default() }
    }

    /// Dense records of one moment, as the writer writes them.
    pub fn dense(base_offset: u64, epoch: u32, records: impl IntoIterator<Item = Record>) -> Self {
        let place = |(at, record): (usize, Record)| BatchRecord { offset_delta: at as u32, record };
        let records: Vec<_> = records.into_iter().enumerate().map(place).collect();
        let headers = if records.iter().any(|placed| !placed.record.headers.is_empty()) { HEADERS } else { 0 };
        let (span, base_timestamp) =
            (records.len() as u32, records.first().map_or(0, |placed| placed.record.timestamp));
        let content = Content::Records(records);
        Batch { base_offset, base_timestamp, epoch, span, attributes: headers, content, ..Batch::default() }
    }

    /// The offset that is due behind it.
    pub fn next_offset(&self) -> u64 {
        self.base_offset.wrapping_add(u64::from(self.span))
    }

    /// Its bytes, in a segment with this salt: the checksum in the segment's header.
    pub fn encode(&self, salt: u32) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend(self.base_offset.to_le_bytes());
        bytes.extend(self.base_timestamp.to_le_bytes());
        let count = match &self.content {
            Content::Records(records) => records.len() as u32,
            Content::Marker(_) => 0,
        };
        for field in [count, self.span, self.epoch, self.lag, self.attributes] {
            bytes.extend(field.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        if self.attributes & DELETE_HORIZON != 0 {
            bytes.extend(self.delete_horizon.to_le_bytes());
        }
        if self.attributes & PRODUCER != 0 {
            bytes.extend(self.producer);
        }
        match &self.content {
            Content::Marker(kind) => bytes.extend(kind.to_le_bytes()),
            Content::Records(records) => records.iter().for_each(|record| self.put_record(record, &mut bytes)),
        }
        let length = bytes.len().next_multiple_of(ALIGNMENT) + usize::from(self.spare_words) * ALIGNMENT;
        bytes.resize(length, 0);
        for (at, word) in &self.forged {
            if let Some(place) = bytes[8..].chunks_exact_mut(4).nth(*at as usize / 4) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        let length = length as u32;
        let crc = checksum(length ^ salt, &bytes[8..]);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn put_record(&self, placed: &BatchRecord, out: &mut Vec<u8>) {
        let record = &placed.record;
        let delta = record.timestamp.wrapping_sub(self.base_timestamp);
        match self.attributes >> TIMESTAMP_WIDTH_SHIFT & 0b11 {
            0 => {}
            1 => out.extend((delta as i32).to_le_bytes()),
            _ => out.extend(delta.to_le_bytes()),
        }
        if self.attributes & SPARSE != 0 {
            out.extend(placed.offset_delta.to_le_bytes());
        }
        let mut headers = Vec::new();
        if self.attributes & HEADERS != 0 && !record.headers.is_empty() {
            headers.extend((record.headers.len() as u32).to_le_bytes());
            for (name, value) in &record.headers {
                headers.extend((name.len() as u32).to_le_bytes());
                headers.extend(length_of(value.as_deref()).to_le_bytes());
                headers.extend(name.as_bytes());
                headers.extend(value.as_deref().unwrap_or_default());
            }
        }
        if self.attributes & HEADERS != 0 {
            out.extend((headers.len() as u32).to_le_bytes());
        }
        out.extend(length_of(record.key.as_deref()).to_le_bytes());
        out.extend(length_of(record.value.as_deref()).to_le_bytes());
        out.extend(headers);
        out.extend(record.key.as_deref().unwrap_or_default());
        out.extend(record.value.as_deref().unwrap_or_default());
    }
}

fn length_of(bytes: Option<&[u8]>) -> u32 {
    bytes.map_or(u32::MAX, |bytes| bytes.len() as u32)
}

impl<'a> Arbitrary<'a> for Batch {
    /// Mostly sound; one in eight has a field forged.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut batch = Batch {
            base_offset: if u.ratio(1, 16)? { u.arbitrary()? } else { u64::from(u.arbitrary::<u8>()?) },
            base_timestamp: if u.ratio(1, 4)? { u.arbitrary()? } else { 0 },
            epoch: u.int_in_range(0..=3)?,
            lag: if u.ratio(1, 8)? { u.arbitrary()? } else { u32::from(u.int_in_range(0..=3u8)?) },
            ..Batch::default()
        };
        match u.int_in_range(0..=7)? {
            0 => {
                batch.attributes = CONTROL;
                batch.content = Content::Marker(u.int_in_range(0..=4)?);
                batch.spare_words = u.int_in_range(0..=2)?;
            }
            1 => {
                batch.span = if u.ratio(1, 4)? { u.arbitrary()? } else { u.int_in_range(0..=9)? };
                batch.attributes = if u.arbitrary()? { SPARSE } else { 0 };
                batch.spare_words = u.int_in_range(0..=2)?;
            }
            _ => batch.draw_records(u)?,
        }
        while batch.forged.len() < 3 && u.ratio(1, 8)? {
            let at = if u.ratio(1, 2)? { u.int_in_range(0..=9u32)? * 4 } else { u32::from(u.arbitrary::<u8>()?) };
            let word = if u.ratio(1, 2)? { *u.choose(&[0, 1, 7, 8, u32::MAX])? } else { u.arbitrary()? };
            batch.forged.push((at, word));
        }
        Ok(batch)
    }
}

impl Batch {
    fn draw_records(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let known =
            [8, DELETE_HORIZON, PRODUCER, 1 << TIMESTAMP_WIDTH_SHIFT, 2 << TIMESTAMP_WIDTH_SHIFT, SPARSE, HEADERS];
        for bit in known {
            if u.ratio(1, 3)? {
                self.attributes |= bit;
            }
        }
        let (mut records, mut delta) = (Vec::new(), 0u32);
        while records.len() < 12 && (records.is_empty() || u.ratio(2, 3)?) {
            if self.attributes & SPARSE != 0 && u.ratio(1, 2)? {
                delta = delta.wrapping_add(u.int_in_range(0..=3)?);
            }
            records.push(BatchRecord { offset_delta: delta, record: u.arbitrary()? });
            delta = delta.wrapping_add(1);
        }
        self.span = delta;
        self.content = Content::Records(records);
        Ok(())
    }
}
