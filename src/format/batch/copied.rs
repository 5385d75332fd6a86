//! Batches of records that stood in other batches: what compaction writes.
//!
//! Records keep their offsets, timestamps and headers. Those of batches that hold one or two records share a new batch,
//! so that what a batch costs is paid once for many; the records of a larger one stay by themselves, so that a few
//! timestamps that differ do not make many records longer. A copy is less than twice as long as what it is the copy of,
//! and mostly shorter: where records are left out of a batch, the others need four bytes more to say their offsets.

use crate::format::batch::{
    ABSENT, ALIGNMENT, APPEND_TIME, Batch, DELETE_HORIZON, HEADER_BYTES, HEADERS, HORIZON_BYTES, PRODUCER,
    PRODUCER_BYTES, RecordView, SPARSE, Stamp, TIMESTAMP_WIDTH_SHIFT, delta_width, put_header, seal,
};
use crate::format::bytes::Writer;
use crate::types::{Offset, Timestamp, TimestampType};

/// Records are put into one batch up to so many bytes: enough to share what a batch costs, and still quick to look through.
const SHARED_BYTES: u64 = 4096;

/// From so many records on, a batch is not shared.
const FEW: usize = 2;

/// What the records of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    timestamp_type: TimestampType,
    producer: Option<[u8; PRODUCER_BYTES]>,
    delete_horizon: Option<Timestamp>,
}

impl Kind {
    /// That of the records of `batch`, which are to have this delete horizon.
    pub(crate) fn of(batch: &Batch<'_>, delete_horizon: Option<Timestamp>) -> Self {
        let append_time = batch.attributes() & APPEND_TIME != 0;
        let timestamp_type = if append_time { TimestampType::Append } else { TimestampType::Create };
        Kind { timestamp_type, producer: batch.producer(), delete_horizon }
    }

    fn extension_bytes(&self) -> u64 {
        let horizon = if self.delete_horizon.is_some() { HORIZON_BYTES } else { 0 };
        (horizon + if self.producer.is_some() { PRODUCER_BYTES } else { 0 }) as u64
    }
}

/// Records that wait to be put into one batch.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    kind: Kind,
    records: Vec<RecordView<'a>>,
    /// Of keys, values and headers.
    bytes: u64,
    has_headers: bool,
    /// Of the timestamp deltas: 0, 1 or 2, as the attributes say it.
    width: u32,
    is_full: bool,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(kind: Kind) -> Self {
        Shared { kind, records: Vec::new(), bytes: 0, has_headers: false, width: 0, is_full: false }
    }

    /// Whether `records`, of this kind, belong into the same batch.
    pub(crate) fn takes(&self, kind: &Kind, records: &[RecordView<'a>]) -> bool {
        *kind == self.kind && !self.is_full && records.len() <= FEW
    }

    /// Adds records, whose offsets are behind those that are there.
    pub(crate) fn add(&mut self, records: &[RecordView<'a>]) {
        for record in records {
            self.records.push(*record);
            let base = self.records[0].timestamp.as_millis();
            if record.timestamp.as_millis() != base {
                self.width = self.width.max(delta_width(base, record.timestamp.as_millis()));
            }
            self.has_headers |= !record.headers.is_empty();
            let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
            self.bytes += record.headers.len() as u64 + length(record.key) + length(record.value);
        }
        self.is_full = records.len() > FEW || self.bytes + self.records.len() as u64 * 8 >= SHARED_BYTES;
    }

    /// How late its records are.
    pub(crate) fn latest(&self) -> Option<Timestamp> {
        self.records.iter().map(|record| record.timestamp).max()
    }

    fn attributes(&self, offsets: (Offset, Offset)) -> u32 {
        let dense = offsets.1.since(offsets.0) == self.records.len() as u64;
        let append_time = if self.kind.timestamp_type == TimestampType::Append { APPEND_TIME } else { 0 };
        append_time
            | if self.kind.delete_horizon.is_some() { DELETE_HORIZON } else { 0 }
            | if self.kind.producer.is_some() { PRODUCER } else { 0 }
            | if dense { 0 } else { SPARSE }
            | if self.has_headers { HEADERS } else { 0 }
            | self.width << TIMESTAMP_WIDTH_SHIFT
    }

    /// The length of the batch that takes the offsets from the first of these on, up to the second.
    pub(crate) fn length(&self, offsets: (Offset, Offset)) -> u64 {
        let attributes = self.attributes(offsets);
        let sparse = if attributes & SPARSE == 0 { 0 } else { 4 };
        let headers = if self.has_headers { 4 } else { 0 };
        let each = 8 + [0, 4, 8][self.width as usize] + sparse + headers;
        let all = each * self.records.len() as u64 + self.bytes;
        (HEADER_BYTES as u64 + self.kind.extension_bytes() + all).next_multiple_of(ALIGNMENT as u64)
    }

    /// Encodes the batch into `place`, all but its first word; returns that word.
    pub(crate) fn encode(&self, place: &mut [u8], stamp: &Stamp, next: Offset) -> u64 {
        let offsets = (stamp.base, next);
        assert_eq!(place.len() as u64, self.length(offsets), "a batch is encoded into exactly its place");
        let attributes = self.attributes(offsets);
        let span = u32::try_from(next.since(stamp.base)).expect("who covers does not go too far");
        let count = u32::try_from(self.records.len()).expect("there are no more records than offsets");
        let base_timestamp = self.records.first().map_or(0, |first| first.timestamp.as_millis());
        let mut out = Writer::new(&mut place[8..]);
        put_header(&mut out, stamp, base_timestamp, (count, span), attributes);
        if let Some(horizon) = self.kind.delete_horizon {
            out.put(&horizon.as_millis().to_le_bytes());
        }
        if let Some(producer) = &self.kind.producer {
            out.put(producer);
        }
        for record in &self.records {
            self.put(&mut out, record, base_timestamp, (attributes & SPARSE != 0).then_some(stamp.base));
        }
        out.pad();
        seal(place, stamp.salt)
    }

    /// `base`: of the batch, if offsets are said.
    fn put(&self, out: &mut Writer<'_>, record: &RecordView<'_>, base_timestamp: i64, base: Option<Offset>) {
        let delta = record.timestamp.as_millis().wrapping_sub(base_timestamp);
        match self.width {
            0 => {}
            1 => out.put(&i32::try_from(delta).expect("the width was chosen so that it fits").to_le_bytes()),
            _ => out.put(&delta.to_le_bytes()),
        }
        let short = |length: u64| u32::try_from(length).expect("the batch fits its length field");
        if let Some(base) = base {
            out.u32(short(record.offset.since(base)));
        }
        if self.has_headers {
            out.u32(short(record.headers.len() as u64));
        }
        for bytes in [record.key, record.value] {
            out.u32(bytes.map_or(ABSENT, |bytes| short(bytes.len() as u64)));
        }
        out.put(record.headers);
        out.put(record.key.unwrap_or_default());
        out.put(record.value.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Offset, timestamp, key, value, and the bytes of the headers: one without a value, or none.
    type Parts = (u64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

    fn parts() -> impl Strategy<Value = Vec<Parts>> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        let header = [1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, b'h'];
        let headers = prop_oneof![Just(Vec::new()), Just(header.to_vec())];
        let millis = prop_oneof![3 => Just(7), 1 => -1000..1000i64, 1 => any::<i64>()];
        let steps = prop::collection::vec((0..4u64, millis, bytes(), bytes(), headers), 1..12);
        steps.prop_map(|mut records| {
            let mut offset = 100;
            for record in &mut records {
                offset += record.0;
                record.0 = offset;
                offset += 1;
            }
            records
        })
    }

    fn view(parts: &Parts) -> RecordView<'_> {
        RecordView {
            offset: Offset::new(parts.0),
            timestamp: Timestamp::from_millis(parts.1),
            timestamp_type: TimestampType::Append,
            key: parts.2.as_deref(),
            value: parts.3.as_deref(),
            headers: &parts.4,
        }
    }

    proptest! {
        #[test]
        fn what_is_copied_is_whole_and_reads_as_before(
            parts in parts(),
            horizon in prop::option::of(any::<i64>()),
            producer in prop::option::of(Just([9; PRODUCER_BYTES])),
            behind in 0..3u64,
        ) {
            let records: Vec<RecordView<'_>> = parts.iter().map(view).collect();
            let delete_horizon = horizon.map(Timestamp::from_millis);
            let kind = Kind { timestamp_type: TimestampType::Append, producer, delete_horizon };
            let mut shared = Shared::new(kind);
            for record in &records {
                shared.add(std::slice::from_ref(record));
            }
            let (base, last) = (Offset::new(100), parts.last().unwrap().0);
            let next = Offset::new(last + 1 + behind);
            let stamp = Stamp { base, durable_end: base, epoch: 3, salt: 5, timestamp_type: TimestampType::Create };
            let mut bytes = vec![0xa5; shared.length((base, next)) as usize];
            let word = shared.encode(&mut bytes, &stamp, next);
            bytes[..8].copy_from_slice(&word.to_le_bytes());

            let batch = Batch::at(&bytes).unwrap().unwrap();
            prop_assert_eq!(batch.verify(5), Ok(()));
            prop_assert_eq!((batch.base(), batch.next(), batch.epoch()), (base, next, 3));
            prop_assert_eq!((batch.durable_end(), batch.delete_horizon()), (base, delete_horizon));
            prop_assert_eq!(Kind::of(&batch, delete_horizon), kind);
            let read: Vec<RecordView<'_>> = batch.records().collect();
            prop_assert_eq!(&read, &records);
            for offset in (0..=next.get()).map(Offset::new) {
                let from = records.partition_point(|record| record.offset < offset);
                let mut rest = batch.records_from(batch.spot_of(offset));
                prop_assert_eq!(rest.due(), records.get(from).map(|record| record.offset));
                prop_assert_eq!(rest.pass(next, 1), u32::from(from < records.len()));
                prop_assert_eq!(rest.collect::<Vec<_>>(), records.get(from + 1..).unwrap_or_default());
            }
        }
    }
}
