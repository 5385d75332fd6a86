//! A batch: one or more records that were sent together, and live or die together.
//!
//! | bytes  | type | field          | value                                                                        |
//! |--------|------|----------------|------------------------------------------------------------------------------|
//! | 0..4   | u32  | length         | of the whole batch, a multiple of 8; 0: no batch                             |
//! | 4..8   | u32  | crc            | CRC-32 of bytes 8..length, started from `length` XOR the segment's salt      |
//! | 8..16  | u64  | base offset    | the offset of the first record                                               |
//! | 16..24 | i64  | base timestamp | milliseconds since the Unix epoch: that of the first record                  |
//! | 24..28 | u32  | count          | how many records follow                                                      |
//! | 28..32 | u32  | span           | how many offsets the batch takes: more than `count` after compaction         |
//! | 32..36 | u32  | epoch          | of the opening of the log in which it was written                            |
//! | 36..40 | u32  | lag            | base offset minus the durable end offset when it was written; 2^32-1: see below |
//! | 40..44 | u32  | attributes     | see below                                                                    |
//! | 44..   |      | extensions     | those that the attributes name, in the order of their bits                   |
//! | ..     |      | records        | `count` of them; then zeros, fewer than 8, up to `length`                    |
//!
//! "CRC-32 started from n" is zlib's `crc32(n, bytes)`: the checksum covers `length` without a second pass. The *salt*
//! is the crc in the header of the segment: bytes of another file, or of another segment, are no batch in this one.
//! Length and crc are one aligned word of eight bytes, which is stored last: as long as it is zero there is no
//! batch, whatever stands behind it. A lag of 2^32-1 means that or more, so the batch says nothing of what was durable.
//!
//! | attribute | value   | meaning                                                                                |
//! |-----------|---------|----------------------------------------------------------------------------------------|
//! | bits 0..3 | 0       | not compressed. 3: lz4, 4: zstd (Kafka's numbers) are reserved; a reader of v1 refuses them |
//! | bit 3     | 8       | timestamps are append times, not create times                                          |
//! | bit 4     | 16      | part of a transaction; reserved, refused                                               |
//! | bit 5     | 32      | control: a marker and not records. count and span are 0, `base offset` is the next one |
//! | bit 6     | 64      | extension: delete horizon, i64 milliseconds; a reader of v1 steps over it              |
//! | bit 7     | 128     | extension: producer id u64, sequence u32, producer epoch u32; stepped over             |
//! | bits 8, 9 | 256·w   | each record has a timestamp delta to the base, as i32 (w = 1) or i64 (w = 2); 0: all equal |
//! | bit 10    | 1024    | each record has an offset delta to the base, as u32; without it offsets are dense      |
//! | bit 11    | 2048    | each record has headers                                                                |
//! | others    | 0       | refused, and so is w = 3                                                               |
//!
//! What is refused is no batch, even if the checksum fits. So is one whose base offset plus span leaves 64 bits; one of
//! records with a span of 0, fewer offsets than records, or, unless bit 10 is set, not as many; one whose offset deltas
//! do not rise from record to record, or reach the span; and one whose fields do not end as they are said to below.
//!
//! A record is its timestamp delta (whose sum with the base wraps around), its offset delta, and the length of its headers
//! in bytes (u32), each only if the attributes say so; then `key length u32`, `value length u32`, headers, key, value.
//! A length of 2^32-1 says that there is no key or no value, which differs from an empty one. Headers are a count (u32,
//! at least 1) and for each `name length u32`, `value length u32` (2^32-1: no value), name (UTF-8, may be empty), value,
//! and no more; a record without headers has a headers length of 0, and no count.
//!
//! A batch of records may have none left, with a span all the same: that is a *gap*, what compaction or a repair leaves
//! where records were. A gap, and a marker, may be longer than it needs to be; the rest is zeros. A gap may be dense or
//! not, and its span is at least 1.
//!
//! Compaction puts records that stay into new batches, also records of several batches into one, each at its offset. A
//! new batch has the type of the timestamps and the producer of the old ones, the epoch in which it is written, and a lag
//! of 0: what is compacted is durable. A *delete horizon* says from when on the tombstones in the batch may be removed; it is
//! set when everything that they delete is gone.
//!
//! A marker has no attribute but bit 5, so no extensions; its timestamp is when it was written. Its body is one u32: 1
//! synced, 2 closed, 3 rolled; others are refused. All markers say that everything below `base offset` is durable (their
//! lag is 0). *Closed* also says that nothing follows, until the log is opened again; *rolled* that the next segment,
//! which begins at `base offset`, has its name.

#[cfg(test)]
use crate::env::point::{Mistake, is_planted};
use crate::error::Flaw;
use crate::format::bytes::{Reader, Writer};
use crate::format::segment::{self, checksum};
use crate::record::Header;
use crate::types::{Offset, Timestamp, TimestampType};

pub(crate) mod copied;

/// The bytes of a batch before its extensions and records.
pub(crate) const HEADER_BYTES: usize = 44;

/// Batches start at multiples of this, so that the word of length and checksum can be stored at once and never
/// spans two sectors.
pub(crate) const ALIGNMENT: usize = 8;

/// The bytes of a marker.
pub(crate) const MARKER_BYTES: usize = 48;

const CODEC: u32 = 0b111;
const APPEND_TIME: u32 = 1 << 3;
const TRANSACTIONAL: u32 = 1 << 4;
const CONTROL: u32 = 1 << 5;
const DELETE_HORIZON: u32 = 1 << 6;
const PRODUCER: u32 = 1 << 7;
const TIMESTAMP_WIDTH_SHIFT: u32 = 8;
const TIMESTAMP_WIDTH: u32 = 0b11 << TIMESTAMP_WIDTH_SHIFT;
const SPARSE: u32 = 1 << 10;
const HEADERS: u32 = 1 << 11;
const KNOWN: u32 = APPEND_TIME | CONTROL | DELETE_HORIZON | PRODUCER | TIMESTAMP_WIDTH | SPARSE | HEADERS;
const _: () = assert!(KNOWN & (CODEC | TRANSACTIONAL) == 0, "what version 1 does not read is not known");

/// The bytes of the extensions.
const HORIZON_BYTES: usize = 8;
const PRODUCER_BYTES: usize = 16;

/// The length that stands for an absent key or value.
const ABSENT: u32 = u32::MAX;

/// What a marker says besides that everything before it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Synced = 1,
    Closed = 2,
    Rolled = 3,
}

/// A record that is about to be encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) timestamp: Timestamp,
}

/// What a batch says besides its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) base: Offset,
    pub(crate) durable_end: Offset,
    pub(crate) epoch: u32,
    /// Of the segment that the batch is for.
    pub(crate) salt: u32,
    pub(crate) timestamp_type: TimestampType,
}

/// How a batch of some records is laid out: what must be known before its bytes can be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Of the whole batch, a multiple of [`ALIGNMENT`]. Wider than the field, so that nothing overflows.
    pub(crate) length: u64,
    /// Of all records.
    pub(crate) latest: Timestamp,
    attributes: u32,
}

impl Layout {
    #[inline]
    pub(crate) fn of(records: &[Draft<'_>]) -> Layout {
        let mut attributes = 0;
        let mut width = 0;
        let base = records.first().map_or(0, |first| first.timestamp.as_millis());
        let mut latest = base;
        let mut bytes = HEADER_BYTES as u64;
        for record in records {
            bytes += 8 + length_of(record.key) + length_of(record.value);
            if !record.headers.is_empty() {
                attributes |= HEADERS;
                bytes += headers_bytes(record.headers);
            }
            if record.timestamp.as_millis() != base {
                width = width.max(delta_width(base, record.timestamp.as_millis()));
                latest = latest.max(record.timestamp.as_millis());
            }
        }
        let count = records.len() as u64;
        if attributes & HEADERS != 0 {
            bytes += 4 * count;
        }
        bytes += [0, 4, 8][width as usize] * count;
        Layout {
            length: bytes.next_multiple_of(ALIGNMENT as u64),
            latest: Timestamp::from_millis(latest),
            attributes: attributes | width << TIMESTAMP_WIDTH_SHIFT,
        }
    }
}

#[inline]
fn length_of(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| bytes.len() as u64)
}

fn headers_bytes(headers: &[Header<'_>]) -> u64 {
    let each = |header: &Header<'_>| 8 + header.name.len() as u64 + length_of(header.value.as_deref());
    4 + headers.iter().map(each).sum::<u64>()
}

/// 1 if the difference fits 32 bits, 2 if it does not: what the attributes say.
fn delta_width(base: i64, millis: i64) -> u32 {
    if i32::try_from(i128::from(millis) - i128::from(base)).is_ok() { 1 } else { 2 }
}

/// Encodes `records` into `place`, whose length is that of `layout`, all but its first word; returns that word.
///
/// # Panics
///
/// Panics if `place` has another length: the batch would not be what its header says.
#[inline]
pub(crate) fn encode(place: &mut [u8], layout: Layout, stamp: &Stamp, records: &[Draft<'_>]) -> u64 {
    assert_eq!(place.len() as u64, layout.length, "a batch is encoded into exactly its place");
    let base_timestamp = records.first().map_or(0, |first| first.timestamp.as_millis());
    let append_time = if stamp.timestamp_type == TimestampType::Append { APPEND_TIME } else { 0 };
    let count = u32::try_from(records.len()).expect("a batch of at most 2^31 bytes holds fewer records");
    // The padding is at most the last word but a byte; what of the word belongs to the records is written over.
    *place.last_chunk_mut::<ALIGNMENT>().expect("a batch is longer than a word") = [0; ALIGNMENT];
    let mut out = Writer::new(&mut place[8..]);
    put_header(&mut out, stamp, base_timestamp, (count, count), layout.attributes | append_time);
    for record in records {
        put_record(&mut out, layout.attributes, base_timestamp, record);
    }
    seal(place, stamp.salt)
}

/// Encodes a marker that fills `place`, all but its first word; returns that word.
pub(crate) fn encode_marker(place: &mut [u8], stamp: &Stamp, now: Timestamp, marker: Marker) -> u64 {
    assert!(place.len() >= MARKER_BYTES && place.len().is_multiple_of(ALIGNMENT), "a marker has room for its body");
    let mut out = Writer::new(&mut place[8..]);
    put_header(&mut out, stamp, now.as_millis(), (0, 0), CONTROL);
    out.u32(marker as u32);
    out.pad();
    seal(place, stamp.salt)
}

/// Encodes a gap of `span` offsets into `place`, all but its first word; returns that word.
pub(crate) fn encode_gap(place: &mut [u8], stamp: &Stamp, now: Timestamp, span: u32) -> u64 {
    assert!(place.len() >= MARKER_BYTES && place.len().is_multiple_of(ALIGNMENT), "a gap has room for its header");
    let mut out = Writer::new(&mut place[8..]);
    put_header(&mut out, stamp, now.as_millis(), (0, span), 0);
    out.pad();
    seal(place, stamp.salt)
}

/// The header behind the first word, put together first and then copied at once: one place to check, not seven.
#[inline]
fn put_header(out: &mut Writer<'_>, stamp: &Stamp, base_timestamp: i64, (count, span): (u32, u32), attributes: u32) {
    let lag = u32::try_from(stamp.base.since(stamp.durable_end)).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_BYTES - 8];
    header[..8].copy_from_slice(&stamp.base.get().to_le_bytes());
    header[8..16].copy_from_slice(&base_timestamp.to_le_bytes());
    header[16..20].copy_from_slice(&count.to_le_bytes());
    header[20..24].copy_from_slice(&span.to_le_bytes());
    header[24..28].copy_from_slice(&stamp.epoch.to_le_bytes());
    header[28..32].copy_from_slice(&lag.to_le_bytes());
    header[32..].copy_from_slice(&attributes.to_le_bytes());
    out.put(&header);
}

#[inline]
fn put_record(out: &mut Writer<'_>, attributes: u32, base_timestamp: i64, record: &Draft<'_>) {
    let delta = record.timestamp.as_millis().wrapping_sub(base_timestamp);
    match (attributes & TIMESTAMP_WIDTH) >> TIMESTAMP_WIDTH_SHIFT {
        0 => {}
        1 => out.put(&i32::try_from(delta).expect("the layout chose a width that fits").to_le_bytes()),
        _ => out.put(&delta.to_le_bytes()),
    }
    if attributes & HEADERS != 0 {
        let bytes = if record.headers.is_empty() { 0 } else { headers_bytes(record.headers) };
        out.u32(u32::try_from(bytes).expect("the batch fits its length field"));
    }
    let length = |bytes: Option<&[u8]>| {
        bytes.map_or(ABSENT, |bytes| u32::try_from(bytes.len()).expect("the batch fits its length field"))
    };
    out.u64(u64::from(length(record.key)) | u64::from(length(record.value)) << 32);
    if !record.headers.is_empty() {
        out.u32(u32::try_from(record.headers.len()).expect("the batch fits its length field"));
        for header in record.headers {
            out.u32(length(Some(header.name.as_bytes())));
            out.u32(length(header.value.as_deref()));
            out.put(header.name.as_bytes());
            out.put(header.value.as_deref().unwrap_or_default());
        }
    }
    out.put(record.key.unwrap_or_default());
    out.put(record.value.unwrap_or_default());
}

/// The first word of a batch whose other bytes are in place.
#[inline]
fn seal(place: &[u8], salt: u32) -> u64 {
    let length = u32::try_from(place.len()).expect("a batch is at most 2^31 bytes");
    u64::from(length) | u64::from(checksum(length ^ salt, &place[8..])) << 32
}

/// The length that the first word of a batch says.
#[inline]
pub(crate) fn length_of_word(word: u64) -> u32 {
    word as u32
}

/// A batch in its bytes: of the right length, otherwise only as good as whoever made it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the start of `bytes`, which go on to the end of the segment; `None` where there is no batch.
    ///
    /// The length is checked, nothing else: that is for bytes that were [`verify`](Self::verify)'d before.
    #[inline]
    pub(crate) fn at(bytes: &'a [u8]) -> Result<Option<Batch<'a>>, Flaw> {
        let length = match bytes.first_chunk() {
            Some(length) => u32::from_le_bytes(*length) as usize,
            // No place for a length: zeros up to the end all the same.
            None if bytes.iter().all(|byte| *byte == 0) => return Ok(None),
            None => return Err(Flaw::TooShort),
        };
        if length == 0 {
            return Ok(None);
        }
        if length < HEADER_BYTES || !length.is_multiple_of(ALIGNMENT) || length > bytes.len() {
            return Err(Flaw::Length(length as u64));
        }
        Ok(Some(Batch { bytes: &bytes[..length] }))
    }

    #[inline]
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.bytes[at..].first_chunk().expect("a batch has a whole header"))
    }

    #[inline]
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.bytes[at..].first_chunk().expect("a batch has a whole header"))
    }

    /// Its bytes, header and all.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    #[inline]
    pub(crate) fn base(&self) -> Offset {
        Offset::new(self.u64(8))
    }

    #[inline]
    pub(crate) fn base_timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.u64(16).cast_signed())
    }

    /// The timestamp of its latest record; `None` if it has no records.
    pub(crate) fn latest(&self) -> Option<Timestamp> {
        if self.count() != 0 && self.attributes() & TIMESTAMP_WIDTH == 0 {
            return Some(self.base_timestamp());
        }
        self.records().map(|record| record.timestamp).max()
    }

    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.u32(24)
    }

    /// The offset behind the last that the batch takes. Saturates, so that hostile bytes cannot overflow it.
    #[inline]
    pub(crate) fn next(&self) -> Offset {
        Offset::new(self.base().get().saturating_add(u64::from(self.u32(28))))
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.u32(32)
    }

    /// Everything below this offset was durable when the batch was written; the start if that was very far away.
    pub(crate) fn durable_end(&self) -> Offset {
        match self.u32(36) {
            u32::MAX => Offset::ZERO,
            lag => Offset::new(self.base().get().saturating_sub(u64::from(lag))),
        }
    }

    pub(crate) fn crc(&self) -> u32 {
        self.u32(4)
    }

    /// When its tombstones may go, if compaction has said so.
    pub(crate) fn delete_horizon(&self) -> Option<Timestamp> {
        let says_so = self.attributes() & (CONTROL | DELETE_HORIZON) == DELETE_HORIZON;
        says_so.then(|| Timestamp::from_millis(self.u64(HEADER_BYTES).cast_signed()))
    }

    /// What it says of its producer, as it stands there.
    fn producer(&self) -> Option<[u8; PRODUCER_BYTES]> {
        let at = HEADER_BYTES + if self.attributes() & DELETE_HORIZON == 0 { 0 } else { HORIZON_BYTES };
        let says_so = self.attributes() & (CONTROL | PRODUCER) == PRODUCER;
        says_so.then(|| *self.bytes[at..].first_chunk().expect("a batch has its extensions"))
    }

    #[inline]
    pub(crate) fn attributes(&self) -> u32 {
        self.u32(40)
    }

    /// What it marks, if it is no batch of records.
    pub(crate) fn marker(&self) -> Option<Marker> {
        if self.attributes() & CONTROL == 0 {
            return None;
        }
        match Reader::new(&self.bytes[HEADER_BYTES..]).u32() {
            Ok(2) => Some(Marker::Closed),
            Ok(3) => Some(Marker::Rolled),
            _ => Some(Marker::Synced),
        }
    }

    /// Checks everything that the bytes can be asked: the checksum first, then that the structure is sound, so that
    /// not even a forged checksum lets a reader astray.
    pub(crate) fn verify(&self, salt: u32) -> Result<(), Flaw> {
        let stored = self.u32(4);
        let computed = checksum(self.bytes.len() as u32 ^ salt, &self.bytes[8..]);
        #[cfg(test)]
        let stored = if is_planted(Mistake::ChecksumNotLookedAt) { computed } else { stored };
        if stored != computed {
            return Err(Flaw::Checksum { stored, computed });
        }
        let attributes = self.attributes();
        if attributes & !KNOWN != 0 || attributes & TIMESTAMP_WIDTH == TIMESTAMP_WIDTH {
            return Err(Flaw::Field("attributes"));
        }
        let (count, span) = (self.count(), self.u32(28));
        if self.base().get().checked_add(u64::from(span)).is_none() {
            return Err(Flaw::Field("base offset"));
        }
        if attributes & CONTROL != 0 {
            let mut body = Reader::new(&self.bytes[HEADER_BYTES..]);
            let kind = body.u32();
            let padded = body.rest().iter().all(|byte| *byte == 0);
            return match kind {
                Ok(1..=3) if padded && attributes == CONTROL && count == 0 && span == 0 => Ok(()),
                _ => Err(Flaw::Field("marker")),
            };
        }
        let dense = attributes & SPARSE == 0;
        if span == 0 || count > span || (dense && count != span && count != 0) {
            return Err(Flaw::Field("span"));
        }
        self.verify_records()
    }

    fn verify_records(&self) -> Result<(), Flaw> {
        let mut records = self.records_checked()?;
        let mut due = self.base();
        while records.read < records.count {
            let record = records.decode()?;
            if record.offset < due || record.offset >= self.next() {
                return Err(Flaw::Field("offset delta"));
            }
            due = record.offset.advance(1);
            verify_headers(record.headers)?;
        }
        let padding = records.fields.rest();
        let too_long = padding.len() >= ALIGNMENT && self.count() != 0;
        if too_long || padding.iter().any(|byte| *byte != 0) {
            return Err(Flaw::Field("padding"));
        }
        Ok(())
    }

    #[inline]
    fn records_checked(&self) -> Result<Records<'a>, Flaw> {
        let attributes = self.attributes();
        let mut fields = Reader::new(&self.bytes[HEADER_BYTES..]);
        if attributes & DELETE_HORIZON != 0 {
            fields.take(HORIZON_BYTES)?;
        }
        if attributes & PRODUCER != 0 {
            fields.take(PRODUCER_BYTES)?;
        }
        Ok(Records {
            fields,
            attributes,
            base: self.base(),
            base_timestamp: self.base_timestamp().as_millis(),
            read: 0,
            count: if attributes & CONTROL == 0 { self.count() } else { 0 },
        })
    }

    /// The records with where each begins in the batch and how long it is.
    pub(crate) fn placed_records(&self) -> impl Iterator<Item = (u64, u64, RecordView<'a>)> + use<'a> {
        let length = self.length();
        let mut records = self.records_checked().ok();
        std::iter::from_fn(move || {
            let records = records.as_mut()?;
            let before = records.fields.rest().len() as u64;
            let record = records.next()?;
            Some((length - before, before - records.fields.rest().len() as u64, record))
        })
    }

    /// The records, in the order of their offsets. Ends early where the bytes are not sound, which cannot be in a
    /// batch that was verified.
    #[inline]
    pub(crate) fn records(&self) -> Records<'a> {
        self.records_checked().unwrap_or_default()
    }

    /// Where its first record is that is not below `offset`.
    pub(crate) fn spot_of(&self, offset: Offset) -> Spot {
        let mut records = self.records();
        records.pass(offset, u32::MAX);
        records.spot()
    }

    /// Those from `spot` on, which was said of this batch.
    #[inline]
    pub(crate) fn records_from(&self, spot: Spot) -> Records<'a> {
        let mut records = self.records();
        if spot.read != 0 {
            let behind = self.bytes.len().saturating_sub(spot.left as usize);
            records.fields = Reader::new(&self.bytes[behind..]);
            records.read = spot.read;
        }
        records
    }
}

/// Whether `bytes` begin with the marker that the segment was rolled, and that its successor begins at `next`.
pub(crate) fn begins_with_rolled(bytes: &[u8], salt: u32, next: Offset) -> bool {
    let Ok(Some(batch)) = Batch::at(bytes) else { return false };
    batch.verify(salt).is_ok() && batch.base() == next && batch.marker() == Some(Marker::Rolled)
}

/// The whole batches of a segment, one after the other: what [the format](super) says to believe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// Where the next batch is due.
    pub(crate) position: u64,
    /// With which base offset.
    pub(crate) due: Offset,
    /// Not beyond this offset: where the next segment begins.
    pub(crate) until: Offset,
    /// Of this epoch or a later one.
    pub(crate) epoch: u32,
    pub(crate) salt: u32,
    /// Whether the segment was compacted: then a batch may take more offsets than it has bytes for.
    pub(crate) compacted: bool,
}

impl Walk {
    /// At the first batch of the segment with this header, whose epoch none of its batches is below.
    pub(crate) fn begin(header: &segment::Header, salt: u32) -> Walk {
        let until = header.compacted.map_or(Offset::new(u64::MAX), |compacted| compacted.end);
        let (position, compacted) = (segment::HEADER_BYTES, header.compacted.is_some());
        Walk { position, due: header.base, until, epoch: header.epoch, salt, compacted }
    }

    /// The same in a segment whose successor begins at `until`.
    pub(crate) fn until(self, until: Option<Offset>) -> Walk {
        Walk { until: until.unwrap_or(self.until), ..self }
    }

    /// The whole batch that is due, and goes on behind it. `None` where the length is zero, or the bytes end.
    ///
    /// `bytes` are those of the segment from its start to where the caller's interest ends.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes that are no batch. The walk stays where it is.
    pub(crate) fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Batch<'a>>, Flaw> {
        self.step_on(bytes.get(self.position as usize..).unwrap_or_default())
    }

    /// The same with the bytes from the position on.
    pub(crate) fn step_on<'a>(&mut self, rest: &'a [u8]) -> Result<Option<Batch<'a>>, Flaw> {
        let Some(batch) = Batch::at(rest)? else { return Ok(None) };
        batch.verify(self.salt)?;
        if batch.base() != self.due {
            return Err(Flaw::BaseOffset { stored: batch.base(), expected: self.due });
        }
        if batch.epoch() < self.epoch {
            return Err(Flaw::Epoch { stored: batch.epoch(), expected: self.epoch });
        }
        if batch.next() > self.until {
            return Err(Flaw::Field("span"));
        }
        self.position += batch.length();
        self.due = batch.next();
        self.epoch = batch.epoch();
        Ok(Some(batch))
    }

    /// Where whole batches begin again behind bytes that are none, which is at the next whole batch that can come
    /// later than the one that was due.
    ///
    /// A record's value may hold the copy of a batch, but not one that belongs here: a copy has the salt of this
    /// segment only if it was made of this segment, and then its offset is lower than what is due.
    pub(crate) fn resume(&self, bytes: &[u8]) -> Option<Walk> {
        // Hostile bytes can look like the start of a long batch at every place: the work stays linear all the same. The
        // specification says so, because another reader must give up at the same place.
        let mut budget = bytes.len() as u64 * 4;
        let mut position = self.position + ALIGNMENT as u64;
        while (position as usize) < bytes.len() && budget > 0 {
            if let Ok(Some(batch)) = Batch::at(&bytes[position as usize..]) {
                // A record takes at least eight bytes, so no more offsets than that can be missing; unless there were more
                // records once than there are bytes now.
                let missing = batch.base().since(self.due);
                let close = missing <= (position - self.position) / 8 || self.compacted;
                let later = batch.base() >= self.due && close;
                if later && batch.epoch() >= self.epoch && batch.next() <= self.until {
                    if batch.verify(self.salt).is_ok() {
                        return Some(Walk { position, due: batch.base(), ..*self });
                    }
                    budget = budget.saturating_sub(batch.length());
                }
            }
            position += ALIGNMENT as u64;
        }
        None
    }
}

/// A record in the bytes of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordView<'a> {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// As they are on disk; see [`headers`].
    pub(crate) headers: &'a [u8],
}

/// Where in a batch somebody has come to: by default, before its first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// How many records lie before it, and how many bytes of the batch behind it.
    read: u32,
    left: u32,
}

/// The records of a batch, decoded one by one. By default there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records<'a> {
    fields: Reader<'a>,
    attributes: u32,
    base: Offset,
    base_timestamp: i64,
    read: u32,
    count: u32,
}

impl<'a> Records<'a> {
    /// Where the next record is.
    #[inline]
    pub(crate) fn spot(&self) -> Spot {
        Spot { read: self.read, left: self.fields.rest().len() as u32 }
    }

    /// The offset that the next record has, or the first that it can have; `None` behind the last.
    #[inline]
    pub(crate) fn due(&self) -> Option<Offset> {
        if self.read == self.count {
            None
        } else if self.attributes & SPARSE == 0 {
            Some(self.base.saturating_advance(u64::from(self.read)))
        } else {
            self.clone().next().map(|record| record.offset)
        }
    }

    /// Passes the records below `offset`, but no more than `most`; returns how many.
    #[inline]
    pub(crate) fn pass(&mut self, offset: Offset, most: u32) -> u32 {
        let before = self.read;
        let most = most.min(self.count - before);
        if self.attributes & SPARSE == 0 {
            let below = self.due().map_or(0, |due| offset.since(due));
            self.pass_all(u32::try_from(below).map_or(most, |below| below.min(most)));
        } else {
            while self.read - before < most && self.due().is_some_and(|due| due < offset) {
                self.next();
            }
        }
        self.read - before
    }

    /// Passes so many records, of which there are as many.
    fn pass_all(&mut self, count: u32) {
        let end = self.read + count;
        if end == self.count {
            (self.read, self.fields) = (end, Reader::default());
        }
        while self.read < end {
            let first = self.fields.rest();
            if self.next().is_none() {
                return;
            }
            if self.is_plain() {
                // Where the next one is, is known only once the memory has given the lengths of this one. But records of the same
                // lengths are as far from one another, so the processor, which guesses that they go on, asks for many at once.
                let (lengths, behind) = (first.first_chunk::<8>(), self.fields.rest());
                let alike = behind.chunks_exact(first.len() - behind.len()).take((end - self.read) as usize);
                let passed = alike.take_while(|record| record.first_chunk() == lengths).count();
                self.fields = Reader::new(&behind[passed * (first.len() - behind.len())..]);
                self.read += passed as u32;
            }
        }
    }

    /// Whether its records say nothing but lengths, key and value.
    #[inline]
    fn is_plain(&self) -> bool {
        self.attributes & (TIMESTAMP_WIDTH | SPARSE | HEADERS) == 0
    }

    /// What most records have not: the milliseconds behind the batch's timestamp, the offsets behind its base, the length
    /// of the headers; and the fields that follow. Does not borrow the iterator, which can stay in registers that way.
    fn decode_rare_fields(
        mut fields: Reader<'a>,
        attributes: u32,
        read: u32,
    ) -> Result<(i64, u32, u32, Reader<'a>), Flaw> {
        let delta = match (attributes & TIMESTAMP_WIDTH) >> TIMESTAMP_WIDTH_SHIFT {
            0 => 0,
            1 => i64::from(fields.i32()?),
            _ => fields.i64()?,
        };
        let ahead = if attributes & SPARSE == 0 { read } else { fields.u32()? };
        let headers = if attributes & HEADERS == 0 { 0 } else { fields.u32()? };
        Ok((delta, ahead, headers, fields))
    }

    #[inline]
    fn decode(&mut self) -> Result<RecordView<'a>, Flaw> {
        let (delta, ahead, headers, mut fields) = if self.is_plain() {
            (0, self.read, 0, self.fields)
        } else {
            Self::decode_rare_fields(self.fields, self.attributes, self.read)?
        };
        let lengths = fields.u64()?;
        let (key, value) = (lengths as u32, (lengths >> 32) as u32);
        let headers = fields.take(headers as usize)?;
        let mut present =
            |length: u32| if length == ABSENT { Ok(None) } else { fields.take(length as usize).map(Some) };
        let (key, value) = (present(key)?, present(value)?);
        self.fields = fields;
        self.read += 1;
        Ok(RecordView {
            offset: Offset::new(self.base.get().saturating_add(u64::from(ahead))),
            timestamp: Timestamp::from_millis(self.base_timestamp.wrapping_add(delta)),
            timestamp_type: if self.attributes & APPEND_TIME == 0 {
                TimestampType::Create
            } else {
                TimestampType::Append
            },
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordView<'a>> {
        if self.read == self.count {
            return None;
        }
        let record = self.decode().ok();
        if record.is_none() {
            // Nothing behind a record that is not sound can be found.
            self.read = self.count;
        }
        record
    }
}

fn verify_headers(bytes: &[u8]) -> Result<(), Flaw> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut fields = Reader::new(bytes);
    let count = fields.u32()?;
    for _ in 0..count {
        decode_header(&mut fields)?;
    }
    if count == 0 || !fields.rest().is_empty() {
        return Err(Flaw::Field("headers"));
    }
    Ok(())
}

fn decode_header<'a>(fields: &mut Reader<'a>) -> Result<(&'a str, Option<&'a [u8]>), Flaw> {
    let (name, value) = (fields.u32()?, fields.u32()?);
    let name = std::str::from_utf8(fields.take(name as usize)?).map_err(|_| Flaw::Field("header name"))?;
    let value = if value == ABSENT { None } else { Some(fields.take(value as usize)?) };
    Ok((name, value))
}

/// The headers of a record, in order, from their bytes.
pub(crate) fn headers(bytes: &[u8]) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    let mut fields = Reader::new(bytes);
    let count = if bytes.is_empty() { 0 } else { fields.u32().unwrap_or(0) };
    (0..count).map_while(move |_| decode_header(&mut fields).ok())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    const SALT: u32 = 0x1234_5678;

    fn stamp(base: u64) -> Stamp {
        Stamp {
            base: Offset::new(base),
            durable_end: Offset::new(base.saturating_sub(3)),
            epoch: 2,
            salt: SALT,
            timestamp_type: TimestampType::Create,
        }
    }

    fn encoded(stamp: &Stamp, drafts: &[Draft<'_>]) -> Vec<u8> {
        let layout = Layout::of(drafts);
        let mut bytes = vec![0xa5; layout.length as usize];
        let word = encode(&mut bytes, layout, stamp, drafts);
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        bytes
    }

    fn draft<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>, millis: i64) -> Draft<'a> {
        Draft { key, value, headers: &[], timestamp: Timestamp::from_millis(millis) }
    }

    #[test]
    fn a_lone_record_of_100_bytes_costs_52_more() {
        let value = [7; 94];
        let bytes = encoded(&stamp(9), &[draft(Some(b"user-7"), Some(&value), 1)]);
        assert_eq!(bytes.len(), 152);
    }

    #[test]
    fn every_flipped_bit_of_a_batch_is_noticed() {
        let bytes = encoded(&stamp(9), &[draft(Some(b"k"), Some(b"value"), 1), draft(None, Some(b""), 2)]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let sound = Batch::at(&flipped).and_then(|batch| batch.ok_or(Flaw::Hole)?.verify(SALT));
            assert!(sound.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_marker_takes_no_offset_and_says_that_all_before_it_is_durable() {
        let stamp = Stamp { durable_end: Offset::new(40), ..stamp(40) };
        let mut bytes = [0; MARKER_BYTES];
        let word = encode_marker(&mut bytes, &stamp, Timestamp::from_millis(5), Marker::Closed);
        bytes[..8].copy_from_slice(&word.to_le_bytes());

        let batch = Batch::at(&bytes).unwrap().unwrap();
        batch.verify(SALT).unwrap();
        assert_eq!(batch.marker(), Some(Marker::Closed));
        assert_eq!((batch.next(), batch.durable_end()), (Offset::new(40), Offset::new(40)));
        assert_eq!(batch.records().count(), 0);
    }

    type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>, i64);

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        let headers = prop::collection::vec((".{0,5}", bytes()), 0..3);
        let millis = prop_oneof![Just(0), -1000..1000i64, any::<i64>()];
        (bytes(), bytes(), headers, millis)
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(records in prop::collection::vec(parts(), 1..8), base in 0..u64::MAX / 2) {
            let headers: Vec<Vec<Header<'_>>> = records.iter().map(|(_, _, headers, _)| {
                headers.iter().map(|(name, value)| Header {
                    name: Cow::Borrowed(name.as_str()),
                    value: value.as_deref().map(Cow::Borrowed),
                }).collect()
            }).collect();
            let drafts: Vec<Draft<'_>> = records.iter().zip(&headers).map(|((key, value, _, millis), headers)| Draft {
                key: key.as_deref(),
                value: value.as_deref(),
                headers,
                timestamp: Timestamp::from_millis(*millis),
            }).collect();

            let bytes = encoded(&stamp(base), &drafts);

            let batch = Batch::at(&bytes).unwrap().unwrap();
            prop_assert_eq!(batch.verify(SALT), Ok(()));
            prop_assert_eq!(batch.next(), Offset::new(base + records.len() as u64));
            let read: Vec<Parts> = batch.records().map(|record| (
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                super::headers(record.headers).map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
                record.timestamp.as_millis(),
            )).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn who_passes_records_comes_to_the_same_one_as_who_decodes_them(
            lengths in prop::collection::vec(prop_oneof![6 => Just(Some(5)), 1 => Just(None), 2 => Just(Some(0)), 1 => (6..40usize).prop_map(Some)], 1..40),
            millis in prop_oneof![3 => Just(0), 1 => 1..9i64],
        ) {
            let drafts: Vec<Draft<'_>> = lengths
                .iter()
                .zip(0..)
                .map(|(length, n)| draft(Some(b"key"), length.map(|length| &[7; 40][..length]), n * millis))
                .collect();
            let bytes = encoded(&stamp(100), &drafts);
            let batch = Batch::at(&bytes).unwrap().unwrap();
            let all: Vec<RecordView<'_>> = batch.records().collect();
            for from in 0..=all.len() {
                let spot = batch.spot_of(Offset::new(100 + from as u64));
                prop_assert_eq!(&batch.records_from(spot).collect::<Vec<_>>(), &all[from..]);
                for most in 0..=all.len() - from {
                    let mut records = batch.records_from(spot);
                    prop_assert_eq!(records.pass(Offset::new(u64::MAX), most as u32), most as u32);
                    prop_assert_eq!(records.due(), all.get(from + most).map(|record| record.offset));
                    prop_assert_eq!(&batch.records_from(records.spot()).collect::<Vec<_>>(), &all[from + most..]);
                }
            }
        }

        #[test]
        fn no_bytes_with_a_forged_checksum_lead_a_reader_astray(
            mut bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 48..200),
            attributes in 0..4096u32,
            count in 0..5u32,
        ) {
            bytes.truncate(bytes.len() / 8 * 8);
            bytes[24..28].copy_from_slice(&count.to_le_bytes());
            bytes[28..32].copy_from_slice(&count.to_le_bytes());
            bytes[40..44].copy_from_slice(&attributes.to_le_bytes());
            let word = seal(&bytes, SALT);
            bytes[..8].copy_from_slice(&word.to_le_bytes());

            let batch = Batch::at(&bytes).unwrap().unwrap();
            if batch.verify(SALT).is_ok() {
                prop_assert_eq!(batch.records().count() as u32, batch.count());
            }
        }
    }
}
