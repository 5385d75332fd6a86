//! The decoders, on plain bytes: no disk, no log.

use std::hint::black_box;

use arbitrary::{Arbitrary, Unstructured};
use tidelog::fuzz::seams::{self, Believed, Step};
use tidelog::fuzz::{Record, Segment};

use super::{files, memory, reference};

/// What a decoder that copies nothing may take all the same.
const SMALL_BYTES: usize = 1024;
/// A walk looks for the end of 64 holes, and checks four times the segment for each at the most. Then there is a pass for
/// the batches that are whole.
const MOST_CHECKED: u64 = 64 * 5 + 1;

/// A salt, and the bytes of a batch as they are.
pub fn decode(input: &[u8]) {
    let Some((salt, bytes)) = input.split_first_chunk() else { return };
    check_batch(bytes, u32::from_le_bytes(*salt));
}

/// The same with the length and the checksum that they should have.
pub fn forged(input: &[u8]) {
    let Some((salt, bytes)) = input.split_first_chunk() else { return };
    let salt = u32::from_le_bytes(*salt);
    let mut bytes = bytes[..bytes.len() / 8 * 8].to_vec();
    if bytes.len() >= 8 {
        files::seal(&mut bytes, salt);
    }
    check_batch(&bytes, salt);
}

/// An arbitrary segment: checksums fit unless it was damaged behind them.
pub fn structured(input: &[u8]) {
    let Ok(segment) = Segment::arbitrary(&mut Unstructured::new(input)) else { return };
    check_segment(&segment.encode());
}

/// The bytes of a segment file, with the checksums that they should have if the first bit says so.
pub fn differential(input: &[u8]) {
    let Some((control, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    files::mend_checksums(&mut bytes, *control, None);
    check_segment(&bytes);
    check_dump(&bytes, control & 4 != 0);
}

fn check_batch(bytes: &[u8], salt: u32) {
    let seen = memory::within(SMALL_BYTES, || seams::batch(bytes, salt).map(|batch| batch.inspect(touch)));
    let read = reference::batch(bytes, salt);
    match (seen, read) {
        (Ok(Some(seen)), Some(read)) => check_same(&seen, &read),
        (Ok(None), None) => assert!(bytes.iter().take(4).all(|byte| *byte == 0), "no batch, but a length"),
        (Err(_), None) => {}
        (seen, read) => panic!("the log: {seen:?}\nthe reference: {read:?}"),
    }
}

/// Reads everything, and keeps nothing.
fn touch(batch: &Believed<'_>) {
    for record in batch.records() {
        black_box(&record);
        record.headers().for_each(|header| {
            black_box(header);
        });
    }
}

#[track_caller]
fn check_same(seen: &Believed<'_>, read: &reference::Batch) {
    let seen_parts = (seen.position, seen.length(), seen.base(), seen.next(), seen.epoch(), seen.durable_end());
    let read_parts = (read.position, read.length, read.base, read.next, read.epoch, read.durable_end);
    assert_eq!(seen_parts, read_parts, "position, length, base, next, epoch, durable end");
    assert_eq!(seen.marker(), read.marker);
    assert_eq!(seen.count() as usize, read.records.len());
    let records = seen.records().map(|record| reference::Record {
        offset: record.offset,
        timestamp: record.timestamp,
        append_time: record.append_time,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
    });
    assert!(records.eq(read.records.iter().cloned()), "the records of the batch at {}", read.position);
}

fn check_segment(bytes: &[u8]) {
    seams::checked_bytes();
    let walked = memory::within(SMALL_BYTES, || {
        seams::walk(bytes, |step| match step {
            Step::Batch(batch) => touch(&batch),
            Step::Hole { .. } => {}
        })
    });
    let checked = seams::checked_bytes();
    assert!(checked <= MOST_CHECKED * bytes.len() as u64, "{checked} bytes checked of {}", bytes.len());

    let header = reference::header(bytes);
    assert_eq!(walked.is_ok(), header.is_some(), "{walked:?} and {header:?}");
    let (Ok(end), Some(header)) = (walked, header) else { return };
    let read = reference::segment(bytes, &header, bytes.len() as u64, u64::MAX);
    let (mut batches, mut holes) = (read.batches.iter(), read.holes.iter());
    let again = seams::walk(bytes, |step| match step {
        Step::Batch(seen) => check_same(&seen, batches.next().unwrap_or_else(|| panic!("only the log has {seen:?}"))),
        Step::Hole { start, first, next, .. } => {
            assert_eq!(Some(&reference::Hole { position: start, first, next }), holes.next());
        }
    });
    assert_eq!(again, Ok(end));
    assert_eq!((batches.next(), holes.next()), (None, None), "only the reference has it");
    assert_eq!(((end.position, end.due), end.torn), (read.end, read.torn));
}

/// `dump` explains all bytes, in their order, each once.
fn check_dump(bytes: &[u8], of_a_group: bool) {
    seams::checked_bytes();
    let (mut position, mut inner) = (0, 0);
    memory::within(64 * bytes.len() + (64 << 10), || {
        seams::dump(bytes, of_a_group, |item| {
            let end = item.position + item.length;
            assert!(end <= bytes.len() as u64, "{item:?} ends behind the {} bytes", bytes.len());
            if item.depth == 0 {
                assert_eq!(item.position, position, "{item:?}");
                (position, inner) = (end, item.position);
            } else {
                assert!(item.position >= inner && end <= position, "{item:?} is outside of {inner}..{position}");
            }
        });
    });
    let checked = seams::checked_bytes();
    assert!(checked <= MOST_CHECKED * bytes.len() as u64, "{checked} bytes checked of {}", bytes.len());
    if reference::header(bytes).is_some() {
        assert_eq!(position, bytes.len() as u64, "the rest is not explained");
    }
}

/// Arbitrary records, encoded and decoded by the log and decoded by the reference.
pub fn round_trip(input: &[u8]) {
    let mut u = Unstructured::new(input);
    let Ok((base, behind, epoch, append_time, salt)) = u.arbitrary::<(u64, u32, u32, bool, u32)>() else { return };
    let mut records = Vec::new();
    while let (false, Ok(record)) = (u.is_empty() || records.len() == 16, Record::arbitrary(&mut u)) {
        records.push(record);
    }
    if records.is_empty() {
        return;
    }
    // An offset that is full is the business of the appender.
    let base = base >> 1;
    let durable_end = base.saturating_sub(u64::from(behind));
    let bytes = seams::encode(&records, base, durable_end, epoch, append_time, salt);

    let seen = seams::batch(&bytes, salt).expect("what is written is read").expect("it is a batch");
    let read = reference::batch(&bytes, salt).expect("the reference reads it too");
    check_same(&seen, &read);
    assert_eq!(seen.length(), bytes.len() as u64, "all of the bytes");
    assert_eq!((seen.base(), seen.next(), seen.epoch()), (base, base + records.len() as u64, epoch));
    // A lag of 2^32-1 and more says nothing.
    let told = base - durable_end < u64::from(u32::MAX);
    assert_eq!(seen.durable_end(), if told { durable_end } else { 0 });
    let decoded: Vec<Record> = read
        .records
        .into_iter()
        .map(|record| Record {
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp: record.timestamp,
        })
        .collect();
    assert_eq!(decoded, records);
    assert!(seen.records().all(|record| record.append_time == append_time));
    assert_eq!(seams::encode(&decoded, base, durable_end, epoch, append_time, salt), bytes, "written again");
}

/// The length of a key, the key, and a value or none, of the catalog and of a group.
pub fn entries(input: &[u8]) {
    let Some((length, rest)) = input.split_first() else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(length & 127)));
    let value = (length & 128 == 0).then_some(value);
    let limit = 16 * input.len() + 4096;
    if let Ok((meaning, again)) = memory::within(limit, || seams::fact(key, value))
        && let Some((key, value)) = again
    {
        let (meaning_again, _) = seams::fact(&key, value.as_deref()).expect("what is written is read");
        assert_eq!(meaning_again, meaning);
    }
    let value = value.unwrap_or_default();
    let committed = memory::within(limit, || seams::commit(key, value)).ok();
    assert_eq!(committed.as_ref().map(|(parts, _)| parts.clone()), reference::committed(key, value));
    if let Some((parts, (key, value))) = committed {
        assert_eq!(seams::commit(&key, &value).map(|(parts, _)| parts), Ok(parts));
    }
    if let Some((_, directory)) = std::str::from_utf8(key).ok().and_then(seams::group_directory) {
        assert_eq!(directory.as_bytes(), key, "a group has one directory");
    }
}
