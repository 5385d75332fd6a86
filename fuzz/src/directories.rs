//! Whole logs with hostile files, through the real recovery, `verify`, `dump` and `repair`, on the simulated disk.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use tidelog::fuzz::seams;
use tidelog::inspect::{Finding, FindingClass};
use tidelog::sim::Machine;
use tidelog::{
    ConsumerConfig, Error, EventLog, LogConfig, OffsetAndMetadata, OffsetReset, ProducerRecord, TimestampType,
    TopicConfig, TopicPartition,
};

use super::files::{self, Files, MEND_BATCHES, MEND_HEADER, Place};
use super::memory;
use super::reference::{self, Record, Stream};

const FIRST: &str = "topics/orders/0/00000000000000000000.log";
const GROUP: &str = "groups/billing/00000000000000000000.log";
const CATALOG: &str = "catalog/00000000000000000000.log";

/// What a log takes that holds nothing, and for each byte of its files: they are on the simulated disk a few times, too.
const LOG_BYTES: usize = 4 << 20;
const GROWTH: usize = 64;
/// See `decoders`: for every time that a segment is walked over.
const MOST_CHECKED: u64 = 64 * 5 + 1;
/// What opening a log writes and checks of its own: catalog and markers.
const OWN_BYTES: usize = 4096;
/// So many records are looked for one by one.
const MOST_SEEKS: usize = 16;
/// How often a segment is walked over while a log is opened, read, opened again and read again.
const WALKS: u64 = 8;

/// A catalog that mentions more partitions is not opened: that each of them is looked for is what it asks for.
const MOST_PARTITIONS: u32 = 64;

/// A sound log, killed: one topic of one partition with three records, a group that has read two of them.
struct Sound {
    files: Files,
    log_id: u128,
    topic_id: u128,
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let machine = Machine::new(1);
        let log = machine.open(config()).expect("an empty disk opens");
        log.create_topic("orders", TopicConfig::new().segment_bytes(4096)).expect("there is no topic yet");
        for value in ["one", "two", "three"] {
            let delivery = log.producer().send(ProducerRecord::new("orders", value).key("k").partition(0));
            delivery.and_then(|delivery| delivery.wait()).expect("the disk is sound");
        }
        let mut consumer = log.consumer(ConsumerConfig::group("billing").auto_commit(false)).expect("a group");
        let partition = TopicPartition::new("orders", 0);
        consumer.assign([partition.clone()]).expect("the partition is there");
        consumer.commit_offsets([(partition, OffsetAndMetadata::new(2, "two read"))]).expect("the disk is sound");
        let files = files_of(&machine.kill());
        let header = reference::header(&files[FIRST]).expect("the header is whole");
        Sound { files, log_id: header.log_id, topic_id: header.topic_id }
    })
}

/// The id of the topic in the sound log, for seeds that speak of it.
pub fn topic_id() -> u128 {
    sound().topic_id
}

/// The files on a disk, but for those that hold nothing.
fn files_of(machine: &Machine) -> Files {
    let named = |path: std::path::PathBuf| {
        let name = path.to_str().expect("names are text").to_owned();
        (!["LOCK", "RESERVE"].contains(&name.as_str())).then(|| (name, machine.read_file(path)))
    };
    machine.files().into_iter().filter_map(named).collect()
}

fn machine_with(files: &Files) -> Machine {
    let machine = Machine::new(1);
    machine.set_write_back(false);
    files.iter().for_each(|(path, bytes)| machine.write_file(path, bytes));
    machine
}

fn config() -> LogConfig {
    LogConfig::new().background(false)
}

/// What somebody can read of a partition: records, and the offsets that are refused.
#[derive(Debug, Default, PartialEq)]
struct Read {
    records: Vec<Record>,
    refused: Vec<(u64, u64)>,
    /// Where the partition begins, and goes on.
    start: u64,
    end: u64,
}

fn read(log: &EventLog, name: &TopicPartition) -> Read {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).expect("no group");
    consumer.assign([name.clone()]).expect("the partition is there");
    let described = &log.describe_topic(name.topic()).expect("it is there").partitions[name.partition() as usize];
    let (start, end) = (described.log_start.get(), described.log_end.get());
    let (mut read, mut position) = (Read { start, end, ..Read::default() }, 0);
    loop {
        match consumer.poll(Duration::ZERO) {
            // A gap may be all that there was for now.
            Ok(records) if records.is_empty() => match consumer.position(name).expect("it is assigned").get() {
                reached if reached == position => return read,
                reached => position = reached,
            },
            Ok(records) => read.records.extend(records.iter().map(|record| Record {
                offset: record.offset().get(),
                timestamp: record.timestamp().as_millis(),
                append_time: record.timestamp_type() == TimestampType::Append,
                key: record.key().map(<[u8]>::to_vec),
                value: record.value().map(<[u8]>::to_vec),
                headers: record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
            })),
            Err(Error::Corrupt(damage)) => {
                let (first, next) = (damage.offsets.start.get(), damage.offsets.end.get());
                assert!(first < next, "{damage}: there is no way past it");
                let behind = read.refused.last().is_none_or(|(_, end)| *end <= first);
                assert!(behind, "{damage}: it was refused before: {:?}", read.refused);
                read.refused.push((first.max(start), next));
                consumer.seek(name, damage.offsets.end).expect("the partition is assigned");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// What the reference reads of the partition against what the log reads.
#[track_caller]
fn check_read(read: &Read, expected: &reference::Partition) {
    for (found, record) in read.records.iter().zip(&expected.records) {
        assert_eq!(found, record, "the log, and the reference");
    }
    let offsets = |records: &[Record]| records.iter().map(|record| record.offset).collect::<Vec<_>>();
    assert_eq!(offsets(&read.records), offsets(&expected.records), "the log, and the reference");
    // Where a marker was, no offset is missing; and none if the log goes on where its end was lost.
    let lost = |(first, next): &&(u64, Option<u64>)| *first < next.unwrap_or(read.end);
    let missing: Vec<_> = expected.damage.iter().filter(lost).collect();
    let same = |(refused, missing): (&(u64, u64), &&(u64, Option<u64>))| {
        refused.0 == missing.0 && missing.1.is_none_or(|next| next == refused.1)
    };
    let agree = read.refused.len() == missing.len() && read.refused.iter().zip(&missing).all(same);
    assert!(agree, "the log refuses {:?}, the reference misses {missing:?}", read.refused);
}

/// Opens the log, holds it against the reference, goes on in it, kills it and opens it again.
fn check_orders(files: &Files) {
    let home = (sound().log_id, sound().topic_id, 0);
    let expected = reference::partition(&files::segments_in(files, "topics/orders/0"), home, 0, Some(0), None);
    let bytes: usize = files.values().map(Vec::len).sum();
    let name = TopicPartition::new("orders", 0);
    seams::checked_bytes();
    memory::within(GROWTH * bytes + LOG_BYTES, || {
        let machine = machine_with(files);
        let log =
            machine.open(config()).unwrap_or_else(|error| panic!("what a segment holds keeps nobody out: {error}"));
        let first = read(&log, &name);
        check_read(&first, &expected);
        assert!(log.recovery_report().bytes_cut == 0 || expected.torn, "{:?}", log.recovery_report());

        let sent = log.producer().send(ProducerRecord::new("orders", "afterwards").partition(0));
        let sent = sent.and_then(|delivery| delivery.wait());
        let sent = match sent {
            Ok(sent) => sent.offset().get(),
            // There is no offset left to give.
            Err(Error::InvalidState { .. }) if first.end > u64::MAX - 2 => return,
            Err(error) => panic!("the partition takes no more: {error}"),
        };
        let given = first.records.last().map(|record| record.offset);
        assert!(given.is_none_or(|given| sent > given), "offset {sent} is given again");
        assert!(first.refused.last().is_none_or(|(_, end)| sent >= *end), "offset {sent} is missing");

        // By now an index leads to each of them.
        first.records.iter().take(MOST_SEEKS).for_each(|record| check_seek(&log, &name, record));
        let machine = machine.kill();
        let log = machine.open(config()).unwrap_or_else(|error| panic!("it opened before: {error}"));
        assert_eq!(log.recovery_report().bytes_cut, 0, "there was nothing left to cut");
        let mut again = read(&log, &name);
        let last = again.records.pop().expect("what was sent is there");
        assert_eq!((last.offset, last.value.as_deref()), (sent, Some(&b"afterwards"[..])));
        assert_eq!(again.records, first.records, "the second opening");
        drop(log);
        let left = machine.verify().expect("it is a log").findings;
        let newest = machine.files().into_iter().rfind(|path| path.starts_with("topics/orders/0"));
        let newest = newest.expect("it was appended to");
        let torn = |finding: &&Finding| finding.class == FindingClass::TornTail && finding.path.ends_with(&newest);
        let torn = left.iter().find(torn);
        assert_eq!(torn, None, "what was torn off is still there");
    });
    check_work(bytes);
}

fn check_seek(log: &EventLog, name: &TopicPartition, record: &Record) {
    let mut consumer = log.consumer(ConsumerConfig::new().max_poll_records(1)).expect("no group");
    consumer.assign([name.clone()]).expect("the partition is there");
    consumer.seek(name, record.offset).expect("the partition is assigned");
    match consumer.poll(Duration::ZERO) {
        Ok(records) => assert_eq!(records.iter().next().map(|found| found.offset().get()), Some(record.offset)),
        Err(error) => panic!("offset {} was read before: {error}", record.offset),
    }
}

/// The work since it was asked last is within a fixed multiple of so many bytes of files.
fn check_work(bytes: usize) {
    let (checked, most) = (seams::checked_bytes(), WALKS * MOST_CHECKED * (bytes + OWN_BYTES) as u64);
    assert!(checked <= most, "{checked} bytes were checked, of {bytes}");
}

/// The newest and only segment of a partition. Its identity is made right if its checksum is.
pub fn active_segment(input: &[u8]) {
    let Some((control, bytes)) = input.split_first() else { return };
    check_orders(&with_segment(bytes, *control));
}

/// The sound log with other bytes in the place of its records.
pub fn with_segment(bytes: &[u8], control: u8) -> Files {
    let mut files = sound().files.clone();
    files.insert(FIRST.to_owned(), segment(bytes, control, (sound().log_id, sound().topic_id, 0, 0)));
    files
}

/// A segment that has a successor: control, where the successor says that it ended in two bytes, and with which offset in
/// two; how much of it the successor proves in one. Then its bytes.
pub fn sealed_segment(input: &[u8]) {
    if let Some(files) = with_successor(input) {
        check_orders(&files);
    }
}

/// The sound log with these bytes in the place of its records, and a successor behind them.
pub fn with_successor(input: &[u8]) -> Option<Files> {
    let (&[control, end_low, end_high, base_low, base_high, behind], bytes) = input.split_first_chunk()?;
    let (log_id, topic_id) = (sound().log_id, sound().topic_id);
    let end = u64::from(u16::from_le_bytes([end_low, end_high]));
    let base = u64::from(u16::from_le_bytes([base_low, base_high])).max(1);
    let durable_end = base.saturating_sub(u64::from(behind));
    let header = tidelog::fuzz::SegmentHeader {
        log_id,
        topic_id,
        partition: 0,
        epoch: 1,
        base_offset: base,
        predecessor: Some((0, end)),
        durable_end,
        compacted: None,
    };
    let record = tidelog::fuzz::Record { value: Some(b"in the successor".to_vec()), ..Default::default() };
    let batches = vec![tidelog::fuzz::Batch::dense(base, 1, [record])];
    let successor = tidelog::fuzz::Segment { header, batches, free_bytes: 256, damage: Vec::new() };
    let mut files = with_segment(bytes, control);
    files.insert(format!("topics/orders/0/{base:020}.log"), successor.encode());
    Some(files)
}

fn segment(bytes: &[u8], control: u8, place: Place) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    files::mend_checksums(&mut bytes, control, Some(place));
    bytes
}

/// The one segment of a group.
pub fn group(input: &[u8]) {
    let Some((control, bytes)) = input.split_first() else { return };
    let (log_id, topic_id) = (sound().log_id, sound().topic_id);
    let home = (log_id, reference::group_id("billing"), 0);
    let mut files = sound().files.clone();
    files.insert(GROUP.to_owned(), segment(bytes, *control, (home.0, home.1, 0, 0)));
    let expected = reference::partition(&files::segments_in(&files, "groups/billing"), home, 0, None, None);
    let table = reference::table(&expected.records);
    let committed = table.get(&b"orders/0"[..]).and_then(|value| reference::committed(b"orders/0", value));
    let committed = committed.filter(|(_, _, id, ..)| *id == topic_id).map(|(.., offset, note)| (offset, note));
    let all: usize = files.values().map(Vec::len).sum();
    seams::checked_bytes();
    memory::within(GROWTH * all + LOG_BYTES, || {
        let machine = machine_with(&files);
        let log = machine.open(config()).unwrap_or_else(|error| panic!("what a group holds keeps nobody out: {error}"));
        let outsider = log.consumer(ConsumerConfig::group("billing")).expect("the group has no member");
        match outsider.committed(&TopicPartition::new("orders", 0)) {
            Ok(found) => {
                let found = found.map(|found| (found.offset.get(), found.metadata));
                // Three records are there, and nobody has read the fourth.
                let pulled_back = committed.clone().map(|(offset, note)| (offset.min(3), note));
                assert_eq!(found, pulled_back, "{:?}", log.recovery_report());
            }
            Err(Error::Corrupt(_)) => assert!(!log.recovery_report().damage.is_empty(), "who says so?"),
            Err(error) => panic!("{error}"),
        }
        let damaged = !expected.damage.is_empty();
        assert!(!damaged || !log.recovery_report().damage.is_empty(), "{expected:?}: {:?}", log.recovery_report());
        drop(outsider);
        drop(log);
        machine.kill().open(config()).unwrap_or_else(|error| panic!("it opened before: {error}"));
    });
    check_work(all);
}

/// The one segment of the catalog. The log may not open; but nobody's records go.
pub fn catalog(input: &[u8]) {
    let Some((control, bytes)) = input.split_first() else { return };
    let mut files = sound().files.clone();
    files.insert(CATALOG.to_owned(), segment(bytes, *control, (sound().log_id, 0, 0, 0)));
    if asks_too_much(&files) {
        return;
    }
    let catalog = catalog_of(&files);
    // Who writes a catalog can say that the topic is deleted.
    let deleted = catalog.is_some_and(|catalog| catalog.deleting.iter().any(|name| name == "orders"));
    let machine = machine_with(&files);
    let opened = memory::within(GROWTH * bytes.len() + LOG_BYTES, || machine.open(config()));
    let after = files_of(&machine);
    if !deleted {
        let records = |files: &Files| {
            let bytes = files.get(FIRST).expect("the records are still there");
            let header = reference::header(bytes).expect("the header is whole");
            reference::segment(bytes, &header, u64::MAX, u64::MAX).batches
        };
        assert!(records(&after).starts_with(&records(&files)), "records were removed, or others put in their place");
    }
    if let Ok(log) = opened {
        for name in partitions_of(&log) {
            read(&log, &name);
        }
        drop(log);
        machine.kill().open(config()).unwrap_or_else(|error| panic!("it opened before: {error}"));
    }
}

fn partitions_of(log: &EventLog) -> Vec<TopicPartition> {
    let of_topic = |topic: String| {
        let count = log.describe_topic(&topic).expect("it is listed").config.partition_count();
        (0..count).map(move |number| TopicPartition::new(topic.as_str(), number))
    };
    log.list_topics().into_iter().flat_map(of_topic).collect()
}

/// What a catalog says that the reference understands.
#[derive(Debug, Default)]
struct Catalog {
    log_id: u128,
    topics: BTreeMap<String, (u128, u32)>,
    deleting: Vec<String>,
    ends: BTreeMap<String, u64>,
    /// Below these, records were deleted on purpose.
    starts: BTreeMap<String, u64>,
    /// Where tails were cut off, and the epoch before which that counts.
    cuts: BTreeMap<String, (u64, u32)>,
    /// Whether nothing is lost of it, and nothing in it that makes no sense.
    sound: bool,
}

/// `None`: there is no header that says whose log it is.
fn catalog_of(files: &Files) -> Option<Catalog> {
    let segments = files::segments_in(files, "catalog");
    let log_id = segments.values().find_map(|bytes| reference::header(bytes))?.log_id;
    let held = reference::partition(&segments, (log_id, 0, 0), 0, None, None);
    let first = segments.keys().next().and_then(|name| reference::base_of(name)).unwrap_or(0);
    let mut catalog = Catalog { log_id, sound: held.damage.is_empty() && first == 0, ..Catalog::default() };
    for (key, value) in reference::table(&held.records) {
        let understood = catalog.take(&key, &value).is_some();
        catalog.sound &= understood;
    }
    // Of those with the same id the first counts.
    let mut ids = Vec::new();
    catalog.topics.retain(|_, (id, _)| {
        let is_first = !ids.contains(id);
        ids.push(*id);
        is_first
    });
    Some(catalog)
}

impl Catalog {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let key = std::str::from_utf8(key).ok()?;
        let mut fields = Stream::new(value);
        if let Some(name) = key.strip_prefix("topic/") {
            self.topics.insert(name.to_owned(), (fields.u128()?, fields.u32()?));
        } else if key.starts_with("deleted/") {
            self.deleting.push(fields.text()?);
        } else if let Some(place) = key.strip_prefix("end/") {
            self.ends.insert(place.to_owned(), fields.u64()?);
        } else if let Some(place) = key.strip_prefix("start/") {
            self.starts.insert(place.to_owned(), fields.u64()?);
        } else if let Some(place) = key.strip_prefix("cut/") {
            self.cuts.insert(place.to_owned(), (fields.u64()?, fields.u32()?));
        }
        Some(())
    }

    /// What the reference reads of a partition in this directory.
    fn read(&self, files: &Files, dir: &str, id: u128, number: u32) -> reference::Partition {
        let place = format!("{id:032x}/{number}");
        let said = |facts: &BTreeMap<String, u64>| facts.get(&place).copied().unwrap_or(0);
        let (start, end) = (said(&self.starts), said(&self.ends));
        reference::partition(
            &files::segments_in(files, dir),
            (self.log_id, id, number),
            end,
            Some(start),
            self.cuts.get(&place).copied(),
        )
    }
}

/// A catalog can ask for a hundred thousand partitions, and gets them.
fn asks_too_much(files: &Files) -> bool {
    let many = |catalog: Catalog| catalog.topics.values().any(|(_, partitions)| *partitions > MOST_PARTITIONS);
    catalog_of(files).is_some_and(many) || files.keys().any(|path| stands_for_many(path))
}

/// The directory of a partition with a high number, in a log that has lost its catalog, stands for all those below it.
fn stands_for_many(path: &str) -> bool {
    let number = path.split('/').nth(2).and_then(|number| number.parse::<u32>().ok());
    number.is_some_and(|number| number > MOST_PARTITIONS)
}

/// Any files. Opened for reading, nothing changes; opened for writing, a topic of a sound catalog is what the reference
/// reads.
pub fn directory(input: &[u8]) {
    let Some((control, packed)) = input.split_first() else { return };
    let mut files = files::unpack(packed);
    files::mend_all(&mut files, *control & (MEND_HEADER | MEND_BATCHES));
    if asks_too_much(&files) {
        return;
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    seams::checked_bytes();
    memory::within(GROWTH * bytes + LOG_BYTES, || check_directory(&files));
    check_work(bytes);
}

fn check_directory(files: &Files) {
    let machine = machine_with(files);
    if let Ok(log) = machine.open_read_only() {
        partitions_of(&log).iter().for_each(|name| drop(read(&log, name)));
    }
    assert!(files_of(&machine) == *files_without_locks(files), "a log that was opened for reading was changed");

    let Ok(log) = machine.open(config()) else { return };
    check_nothing_is_hidden(files, &log);
    let mut found = BTreeMap::new();
    for name in partitions_of(&log) {
        let read = read(&log, &name);
        if let Some(expected) = expected_of(files, &log, &name) {
            check_read(&read, &expected);
        }
        found.insert(name, read);
    }
    drop(log);
    let machine = machine.kill();
    let log = machine.open(config()).unwrap_or_else(|error| panic!("it opened before: {error}"));
    assert_eq!(log.recovery_report().bytes_cut, 0, "there was nothing left to cut");
    assert_eq!(partitions_of(&log), found.keys().cloned().collect::<Vec<_>>());
    for (name, before) in &found {
        assert_eq!(read(&log, name).records, before.records, "{name}: the second opening");
    }
}

/// Each directory with records in it, of a topic that is not deleted, is a topic or reported; and so is what the catalog says.
fn check_nothing_is_hidden(files: &Files, log: &EventLog) {
    let catalog = catalog_of(files).unwrap_or_default();
    let holds_records = |(path, bytes): (&String, &Vec<u8>)| {
        let (topic, rest) = path.strip_prefix("topics/")?.split_once('/')?;
        let (number, file) = rest.split_once('/')?;
        let base = reference::base_of(file).filter(|_| number.parse::<u32>().is_ok())?;
        let header = reference::header(bytes).filter(|header| header.base == base)?;
        let segment = reference::segment(bytes, &header, u64::MAX, u64::MAX);
        segment.batches.iter().any(|batch| !batch.records.is_empty()).then(|| topic.to_owned())
    };
    let said = catalog.topics.keys().filter(|_| catalog.sound).cloned();
    let report = log.recovery_report();
    for topic in files.iter().filter_map(holds_records).chain(said) {
        let is_open = log.list_topics().contains(&topic) || catalog.deleting.contains(&topic);
        let is_reported = report.unknown.iter().any(|path| path.ends_with(&topic));
        assert!(is_open || is_reported, "{topic} is hidden: {report:?}");
    }
}

fn files_without_locks(files: &Files) -> std::borrow::Cow<'_, Files> {
    let mut files = std::borrow::Cow::Borrowed(files);
    for name in ["LOCK", "RESERVE"] {
        if files.contains_key(name) {
            files.to_mut().remove(name);
        }
    }
    files
}

/// What the reference reads of a partition, where the catalog is sound and says whose it is.
fn expected_of(files: &Files, log: &EventLog, name: &TopicPartition) -> Option<reference::Partition> {
    let catalog = catalog_of(files).filter(|catalog| catalog.sound)?;
    if log.recovery_report().rebuilt.iter().any(|topic| topic == name.topic()) {
        return None;
    }
    let (id, _) = catalog.topics.get(name.topic())?;
    let dir = format!("topics/{}/{}", name.topic(), name.partition());
    Some(catalog.read(files, &dir, *id, name.partition()))
}

/// `verify`, `dump` and `repair` of any files.
pub fn inspect(input: &[u8]) {
    let Some((control, packed)) = input.split_first() else { return };
    let mut files = files::unpack(packed);
    files::mend_all(&mut files, *control & (MEND_HEADER | MEND_BATCHES));
    if files.keys().any(|path| path.starts_with("repair-backup-")) {
        // The copies that an earlier repair made aside are not of this one.
        return;
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    seams::checked_bytes();
    memory::within(GROWTH * bytes + LOG_BYTES, || check_inspection(&files));
    check_work(bytes);
}

fn check_inspection(files: &Files) {
    for (path, bytes) in files {
        seams::dump(bytes, path.starts_with("groups/"), |_| {});
    }
    let machine = machine_with(files);
    let verified = machine.verify();
    assert!(files_of(&machine) == *files_without_locks(files), "a verification changes nothing");
    let planned = machine.repair(false);
    assert!(files_of(&machine) == *files_without_locks(files), "a repair that is not executed changes nothing");
    let Ok(report) = verified else { return };
    if report.is_sound() && !asks_too_much(files) {
        check_sound(files);
    }

    let (Ok(planned), Ok(repaired)) = (planned, machine.repair(true)) else { return };
    assert_eq!(planned.mends, repaired.mends, "what was done is what was said");
    let mended = files_of(&machine);
    let after = machine.verify().unwrap_or_else(|error| panic!("it verified before: {error}"));
    // What opening sees to, and what cannot be told apart.
    let left = |class| !matches!(class, FindingClass::TornTail | FindingClass::Catalog | FindingClass::Committed);
    let left: Vec<_> = after.findings.iter().filter(|finding| left(finding.class)).collect();
    let gone = |message: &str| message.contains("directory") || message.contains("no segment is left");
    assert!(
        left.iter().all(|finding| gone(&finding.message)) || !repaired.beyond.is_empty(),
        "{left:#?} are left behind {:#?}",
        repaired.mends
    );
    let again = machine.repair(true).unwrap_or_else(|error| panic!("it was repaired before: {error}"));
    assert_eq!(again.mends, [], "the first repair was enough");
    check_kept(files, &mended);
}

/// A log that verifies opens, and nobody who reads it runs into damage.
fn check_sound(files: &Files) {
    let machine = machine_with(files);
    let Ok(log) = machine.open(config()) else { return };
    let report = log.recovery_report();
    let is_sound = report.damage.is_empty() && report.unknown.is_empty() && report.rebuilt.is_empty();
    assert!(is_sound, "it verified, and opening says {report:?}");
    for name in partitions_of(&log) {
        assert_eq!(read(&log, &name).refused, [], "it verified, and reading {name} does not");
    }
}

/// Every record that could be read before the repair can be read after it.
fn check_kept(before: &Files, after: &Files) {
    let Some(catalog) = catalog_of(before) else { return };
    for (topic, (id, partitions)) in &catalog.topics {
        for number in 0..(*partitions).min(MOST_PARTITIONS) {
            let dir = format!("topics/{topic}/{number}");
            let held = |files| catalog.read(files, &dir, *id, number).records;
            let (held, kept) = (held(before), held(after));
            let lost = held.iter().find(|record| !kept.contains(record));
            assert_eq!(lost, None, "{topic}-{number}: the repair took it");
        }
    }
}
