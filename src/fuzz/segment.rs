//! A segment file as plain data, and its bytes.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::format::segment::{Compacted, HEADER_BYTES, Header, Identity, Predecessor, salt};
use crate::fuzz::Batch;
use crate::types::Offset;

/// A segment file: a header, batches behind it, zeros, and what happened to the bytes later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Whose file it is.
    pub header: SegmentHeader,
    /// What stands behind it.
    pub batches: Vec<Batch>,
    /// How many zeros follow.
    pub free_bytes: u32,
    /// What happened to the bytes after their checksums were computed, in order.
    pub damage: Vec<Damage>,
}

/// The header of a segment file. See the specification of the format, in the rustdoc of `src/format/segment.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The same in all files of a log.
    pub log_id: u128,
    /// Of the topic; 0: the catalog.
    pub topic_id: u128,
    /// Its number in the topic.
    pub partition: u32,
    /// Of the opening in which the file was made.
    pub epoch: u32,
    /// Of the first record.
    pub base_offset: u64,
    /// The base offset of the segment before, and the position at which that one ended.
    pub predecessor: Option<(u64, u64)>,
    /// Everything below this offset was synced when the file was made.
    pub durable_end: u64,
    /// Of a compacted segment: the offset behind its last, and up to where compaction looked.
    pub compacted: Option<(u64, u64)>,
}

/// What disks, power cuts and people do to the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The bits of a byte are turned over.
    Flip {
        /// The position; behind the end nothing happens.
        at: u32,
        /// The bits.
        bits: u8,
    },
    /// Bytes are other bytes.
    Overwrite {
        /// The position of the first; behind the end nothing happens.
        at: u32,
        /// How many.
        length: u32,
        /// What they are now.
        with: u8,
    },
    /// The file ends here.
    Cut {
        /// Its new length, unless it is shorter anyway.
        at: u32,
    },
}

impl SegmentHeader {
    /// Its bytes, with the checksum that they should have.
    pub fn encode(&self) -> Vec<u8> {
        let predecessor =
            self.predecessor.map(|(base, end_position)| Predecessor { base: Offset::new(base), end_position });
        let identity = Identity { log: self.log_id, topic: self.topic_id, partition: self.partition };
        let (base, durable_end) = (Offset::new(self.base_offset), Offset::new(self.durable_end));
        let compacted = self.compacted.map(|(end, clean_end)| {
            let (end, clean_end) = (Offset::new(end), Offset::new(clean_end));
            Compacted { end, clean_end }
        });
        Header { identity, epoch: self.epoch, base, predecessor, durable_end, compacted }.encode().to_vec()
    }
}

impl Segment {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header.encode();
        let salt = salt(&bytes);
        self.batches.iter().for_each(|batch| bytes.extend(batch.encode(salt)));
        bytes.resize(bytes.len() + self.free_bytes as usize, 0);
        self.damage.iter().for_each(|damage| damage.strike(&mut bytes));
        bytes
    }

    /// The position and the offset behind the last batch.
    pub fn end(&self) -> (u64, u64) {
        let bytes: usize = self.batches.iter().map(|batch| batch.encode(0).len()).sum();
        let next = self.batches.last().map_or(self.header.base_offset, Batch::next_offset);
        (HEADER_BYTES + bytes as u64, next)
    }
}

impl Damage {
    /// Does it to these bytes.
    pub fn strike(&self, bytes: &mut Vec<u8>) {
        match *self {
            Damage::Flip { at, bits } => {
                if let Some(byte) = bytes.get_mut(at as usize) {
                    *byte ^= bits;
                }
            }
            Damage::Overwrite { at, length, with } => {
                let from = bytes.len().min(at as usize);
                let to = bytes.len().min(from + length as usize);
                bytes[from..to].fill(with);
            }
            Damage::Cut { at } => bytes.truncate(at as usize),
        }
    }
}

impl<'a> Arbitrary<'a> for Damage {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let at = u32::from(u.arbitrary::<u16>()?) % 5000;
        Ok(match u.int_in_range(0..=3)? {
            0 => Damage::Cut { at },
            1 => Damage::Overwrite { at, length: u.int_in_range(1..=600)?, with: *u.choose(&[0, 0, 255, 7])? },
            _ => Damage::Flip { at, bits: u.arbitrary()? },
        })
    }
}

impl<'a> Arbitrary<'a> for Segment {
    /// Batches that follow one another, but for one in sixteen; half of the segments are damaged, an eighth is compacted.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut header = SegmentHeader { log_id: 1, topic_id: 2, partition: 0, epoch: 1, ..SegmentHeader::default() };
        if u.ratio(1, 4)? {
            header.base_offset = u.arbitrary()?;
            header.predecessor = Some((u.arbitrary()?, u.arbitrary()?));
        }
        let mut segment = Segment { header, free_bytes: u32::from(u.arbitrary::<u8>()?) * 8, ..Segment::default() };
        segment.draw_batches(u)?;
        if u.ratio(1, 8)? {
            let (_, next) = segment.end();
            segment.header.compacted = Some((next.saturating_add(u.int_in_range(0..=3)?), u.arbitrary()?));
        }
        while segment.damage.len() < 4 && u.ratio(1, 2)? {
            segment.damage.push(u.arbitrary()?);
        }
        Ok(segment)
    }
}

impl Segment {
    /// Adds batches until the input says that it is enough.
    pub(super) fn draw_batches(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (mut due, mut epoch) = (self.header.base_offset, self.header.epoch);
        while self.batches.len() < 24 && !u.is_empty() && u.ratio(7, 8)? {
            let mut batch: Batch = u.arbitrary()?;
            if !u.ratio(1, 16)? {
                batch.base_offset = due;
                batch.epoch = epoch.saturating_add(u.int_in_range(0..=1)?);
            }
            (due, epoch) = (batch.next_offset(), batch.epoch);
            self.batches.push(batch);
        }
        Ok(())
    }
}
