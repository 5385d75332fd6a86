//! The format against itself of another day, and against a reader that shares no code with the library.
//!
//! `tests/golden/v1` is a log that uses everything which version 1 of the format had at first, and the writer wrote: each file
//! without the zeros at its end, `lengths.json` with how long it is, and `expected.json` with what is in it. What the format
//! has got since, without a new version, is in `tests/golden/v1-deleting`: beginnings that were deleted, tails that were cut
//! off, compacted segments, and files of all three whose removal was interrupted.
//!
//! | claim                                                              | who holds it                              |
//! |--------------------------------------------------------------------|-------------------------------------------|
//! | a log of version 1 reads as it ever did                            | the library, opening a copy; `verify`     |
//! | the writer writes what it ever wrote                               | the library, on the simulated machine     |
//! | the specification is enough to read a log                          | `second_reader/reader.py`, written from it |
//!
//! Planted by hand, each of these turned a test red: no lag in batches, no marker of an idle partition, or a checksum without
//! the salt, the writer's; a narrow timestamp delta read wrong, the reader's of the golden log and of random ones;
//! stopping at the first bad batch, or believing a bad checksum, the random ones'; a rolled marker that proves no
//! name, the last.
//!
//! The second reader also reads random logs, copied while they are open and damaged then, as the library does.
//! `TIDELOG_LOGS=1000` says how many, `TIDELOG_SEED` which. `TIDELOG_GOLDEN=write` writes the golden logs anew. Without
//! python3 the second reader is skipped, with a note; `TIDELOG_SECOND_READER=required` makes that a failure.
#![cfg(all(feature = "sim", feature = "arbitrary"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidelog::fuzz;
use tidelog::sim::{Fault, Machine, Operation};
use tidelog::{
    CleanupPolicy, Consumer, ConsumerConfig, Durability, Error, EventLog, GroupsBeyond, LogConfig, OffsetAndMetadata,
    OffsetReset, Producer, ProducerRecord, Retention, Timestamp, TimestampType, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;
/// The first of January 2020, when every simulation begins.
const START: i64 = 1_577_836_800_000;

/// The files of a log, by their path in it.
type Files = BTreeMap<String, Vec<u8>>;

// The golden log ------------------------------------------------------------------------------------------------------

/// What writes a log.
type Writer = fn() -> Files;

/// The golden logs, and who writes them.
const GOLDEN: [(&str, Writer); 2] = [("v1", write_golden), ("v1-deleting", write_deleting)];

fn golden_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn config() -> LogConfig {
    LogConfig::new().background(false).offsets_segment_bytes(1 << 20)
}

/// Writes the first golden log. Every call counts: another order is another log.
fn write_golden() -> Files {
    let machine = Machine::new(2020);
    let log = machine.open(config()).unwrap();
    let small = TopicConfig::new().segment_bytes(4096);
    log.create_topic("orders", small.clone()).unwrap();
    log.create_topic("audit", small.clone().durability(Durability::Os).timestamp_type(TimestampType::Append)).unwrap();
    log.create_topic("short.lived", small.clone()).unwrap();
    log.create_topic("altered", small.clone()).unwrap();
    log.create_topic("compacted", small.clone()).unwrap();
    log.create_topic("abandoned", small.clone()).unwrap();
    let producer = log.producer();
    send_every_kind(&producer);
    machine.advance(Duration::from_millis(50));
    send_appended(&machine, &producer);
    // Nobody appends meanwhile: the second look finds the partition idle, and marks it as synced.
    for _ in 0..3 {
        log.maintain();
        machine.advance(Duration::from_millis(30));
    }
    fill_segments(&machine, &producer);
    producer.send(ProducerRecord::new("short.lived", b"soon gone").partition(0)).unwrap().wait().unwrap();
    commit(&log, "billing", &[("orders", 0, 4, "first"), ("short.lived", 0, 1, "of a topic that goes")]);
    commit(&log, "a/b größe", &[("audit", 0, 2, "")]);
    commit(&log, "billing", &[("orders", 0, 7, "second, häl")]);
    log.delete_topic("short.lived").unwrap();
    log.alter_topic("altered", TopicConfig::new().segment_bytes(8192).durability("interval".parse().unwrap())).unwrap();
    log.add_partitions("altered", 2).unwrap();
    log.close().unwrap();

    machine.advance(Duration::from_secs(3600));
    let log = machine.open(config()).unwrap();
    let producer = log.producer();
    producer.send(ProducerRecord::new("orders", b"of the second opening").partition(0)).unwrap().wait().unwrap();
    // The same name, and another topic.
    log.create_topic("short.lived", small).unwrap();
    producer.send(ProducerRecord::new("altered", b"not closed").key(b"k").partition(1)).unwrap();
    commit(&log, "billing", &[("altered", 1, 1, "")]);
    for n in 0..3u8 {
        producer.send(ProducerRecord::new("audit", &[n; 300]).key(&[n]).partition(0)).unwrap();
    }
    // As often as it takes for the table to be said again, in a segment that does not begin at offset 0.
    let note = "n".repeat(4000);
    for n in 0..70 {
        commit(&log, "often", &[("orders", 0, n % 7, &note)]);
    }
    machine.fail(Fault::new(Operation::Remove, 0));
    log.delete_topic("abandoned").expect_err("its files are still to be removed");
    let machine = machine.kill();
    let mut files: Files = machine.files().iter().map(|path| (text_of(path), machine.read_file(path))).collect();
    tear_last_batch(files.get_mut("topics/audit/0/00000000000000000000.log").unwrap());
    put_batches_of_others(files.get_mut("topics/compacted/0/00000000000000000000.log").unwrap());
    // As if the process had died before the file had its name.
    let unborn = files["topics/orders/0/00000000000000000000.log"][..128].to_vec();
    files.insert("topics/orders/0/00000000000000000100.log.new".to_owned(), unborn);
    files
}

/// Writes the golden log of what is deleted, cut off and compacted.
fn write_deleting() -> Files {
    let machine = Machine::new(2021);
    let log = machine.open(config()).unwrap();
    let small = TopicConfig::new().segment_bytes(4096);
    let compacted = small.clone().cleanup_policy(CleanupPolicy::Compact).delete_retention(Duration::from_secs(1));
    for (topic, config) in [
        ("deleted", small.clone().retention(Retention::new().bytes(1 << 30))),
        ("cut", small.clone()),
        ("emptied", small),
        ("compacted", compacted.clone()),
        ("compacted.and.cut", compacted.clone()),
    ] {
        log.create_topic(topic, config).unwrap();
    }
    let send = |topic: &str, numbers: std::ops::Range<u8>, keys: u8| {
        for n in numbers {
            let (key, value) = ([n % keys], vec![n; 700 + usize::from(n)]);
            let record = ProducerRecord::new(topic, &value).key(&key).header("n", &value[..1]);
            drop(
                log.producer().send(if n % 9 == 4 { ProducerRecord::tombstone(topic, &key) } else { record }).unwrap(),
            );
        }
        log.producer().flush().unwrap();
    };
    let name = |topic: &str| TopicPartition::new(topic, 0);
    ["deleted", "cut", "emptied"].into_iter().for_each(|topic| send(topic, 0..14, 255));
    commit(&log, "billing", &[("cut", 0, 12, "beyond"), ("emptied", 0, 3, ""), ("deleted", 0, 2, "lost")]);
    let mut before = segments_of(&machine);
    log.delete_records(&name("deleted"), 7).unwrap();
    log.truncate(&name("cut"), 6, GroupsBeyond::PullBack).unwrap();
    log.truncate(&name("emptied"), 0, GroupsBeyond::PullBack).unwrap();
    send("cut", 20..25, 255);
    // Tombstones are given their time, and go; small segments become one.
    for (topic, rounds) in [("compacted", 3), ("compacted.and.cut", 2)] {
        for round in 0..rounds {
            machine.advance(Duration::from_secs(1));
            send(topic, 40 * round..40 * round + 40, 23);
            if round + 1 == rounds {
                before.extend(segments_of(&machine).into_iter().filter(|(path, _)| path.contains("compacted")));
                log.alter_topic(topic, compacted.clone().segment_bytes(1 << 16)).unwrap();
            }
            log.compact(&name(topic), |_| {}).unwrap();
        }
    }
    let ends = (40..70).rev();
    let cut = ends.filter(|end| log.truncate(&name("compacted.and.cut"), *end, GroupsBeyond::PullBack).is_ok());
    assert_eq!(cut.take(1).count(), 1, "there is a boundary between two batches");
    send("compacted.and.cut", 200..206, 23);
    // A second opening, so that the cuts are of one before.
    log.close().unwrap();
    let log = machine.open(config()).unwrap();
    drop(log.producer().send(ProducerRecord::new("cut", b"of the second opening")).unwrap().wait().unwrap());
    let machine = machine.kill();
    let mut files: Files = machine.files().iter().map(|path| (text_of(path), machine.read_file(path))).collect();
    // A power cut can undo each removal; and a copy may not have got its name.
    for (path, bytes) in before {
        files.entry(path).or_insert(bytes);
    }
    let unborn = files["topics/compacted/0/00000000000000000000.log"][..4096].to_vec();
    files.insert("topics/compacted/0/00000000000000000000.copy.log.new".to_owned(), unborn);
    files
}

/// What version 1 reads and this writer does not write yet: gaps, offsets that are not dense, extensions.
fn put_batches_of_others(bytes: &mut [u8]) {
    let salt = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    let record = |key: &[u8], timestamp| fuzz::Record {
        key: Some(key.to_vec()),
        value: Some(b"kept".to_vec()),
        headers: vec![("trace".to_owned(), None)],
        timestamp,
    };
    let sparse = [(1, record(b"a", START + 5)), (4, record(b"b", START - 5)), (6, record(b"c", START))];
    let placed = sparse.map(|(offset_delta, record)| fuzz::BatchRecord { offset_delta, record });
    let attributes = 8 | 64 | 128 | 256 | 1024 | 2048;
    let (base_timestamp, delete_horizon, producer) = (START, START + 1000, *b"producer, 1 of 1");
    let batch = fuzz::Batch {
        base_timestamp,
        span: 8,
        epoch: 1,
        attributes,
        delete_horizon,
        producer,
        content: fuzz::Content::Records(placed.to_vec()),
        ..fuzz::Batch::default()
    };
    let gap = fuzz::Batch { base_offset: 8, span: 5, epoch: 1, spare_words: 2, ..fuzz::Batch::default() };
    let sparse_gap = fuzz::Batch { base_offset: 13, span: 2, attributes: 1024, ..gap.clone() };
    let wide = [record(b"d", START), record(b"e", 1 << 45)];
    let dense = fuzz::Batch { attributes: 512 | 2048, ..fuzz::Batch::dense(15, 2, wide) };
    let mut at = 128;
    for batch in [batch, gap, sparse_gap, dense] {
        let encoded = batch.encode(salt);
        bytes[at..at + encoded.len()].copy_from_slice(&encoded);
        at += encoded.len();
    }
}

/// Keys, values and headers that are there, empty or absent; timestamps that need no, a narrow or a wide delta.
fn send_every_kind(producer: &Producer) {
    let at = |millis| Timestamp::from_millis(START + millis);
    let alone = |record: ProducerRecord<'_>| drop(producer.send(record.partition(0)).unwrap().wait().unwrap());
    let orders = |value: &'static [u8]| ProducerRecord::new("orders", value);
    alone(orders(b"no key"));
    alone(orders(b"value").key(b"key").timestamp(at(-5)));
    alone(ProducerRecord::tombstone("orders", b"key"));
    alone(orders(b"").key(b""));
    alone(ProducerRecord::tombstone("orders", b"").header_without_value("why"));
    let all_kinds = |value: &'static [u8]| {
        let record = orders(value).key(b"headers").header("trace", b"1").header("trace", b"2");
        record.header_without_value("trace").header("", b"no name").header("größe", b"").header("bytes", &[0, 255, 128])
    };
    alone(all_kinds(b"with headers"));
    let batch = |records: Vec<ProducerRecord<'static>>| {
        let records = records.into_iter().map(|record| record.partition(0));
        drop(producer.send_batch(records).unwrap().wait().unwrap());
    };
    batch(vec![orders(b"same"), orders(b"moment").key(b"k"), orders(b"three")]);
    batch(vec![
        orders(b"narrow").timestamp(at(0)),
        all_kinds(b"earlier").timestamp(at(-1_000_000)),
        orders(b"later").timestamp(at(i64::from(i32::MAX))),
        ProducerRecord::tombstone("orders", b"k").timestamp(at(7)),
    ]);
    batch(vec![
        orders(b"wide").timestamp(at(i64::from(i32::MAX))),
        orders(b"very early").timestamp(Timestamp::from_millis(0)),
        orders(b"the end of time").timestamp(Timestamp::from_millis(i64::MAX)),
    ]);
}

/// What the producer says of the time is not what is kept.
fn send_appended(machine: &Machine, producer: &Producer) {
    for n in 0..3u8 {
        machine.advance(Duration::from_millis(1));
        let value = [n];
        let record = ProducerRecord::new("audit", &value).timestamp(Timestamp::from_millis(5)).header("n", &value);
        producer.send(record.partition(0)).unwrap();
    }
}

fn fill_segments(machine: &Machine, producer: &Producer) {
    for n in 0..9u8 {
        machine.advance(Duration::from_millis(10));
        let value = vec![n; 1100 + usize::from(n)];
        producer.send(ProducerRecord::new("orders", &value).key(&[n]).partition(0)).unwrap().wait().unwrap();
    }
}

fn commit(log: &EventLog, group: &str, offsets: &[(&str, u32, u64, &str)]) {
    let mut outsider = log.consumer(ConsumerConfig::group(group).auto_commit(false)).unwrap();
    let name = |topic: &str, partition| TopicPartition::new(topic, partition);
    outsider.assign(offsets.iter().map(|(topic, partition, ..)| name(topic, *partition))).unwrap();
    let commits = offsets.iter().map(|(topic, partition, offset, note)| {
        (name(topic, *partition), OffsetAndMetadata::new(*offset, note.to_owned()))
    });
    outsider.commit_offsets(commits).unwrap();
}

/// As if the last bytes had not got to the disk before the power failed.
fn tear_last_batch(bytes: &mut [u8]) {
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end - 100..end].fill(0);
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().replace('\\', "/")
}

fn keep_golden(name: &str, files: &Files) {
    let dir = golden_dir(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).unwrap();
    }
    let mut lengths = Map::new();
    for (path, bytes) in files {
        let kept = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let file = dir.join("data").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, &bytes[..kept]).unwrap();
        lengths.insert(path.clone(), json!(bytes.len()));
    }
    fs::write(dir.join("lengths.json"), pretty(&Value::Object(lengths))).unwrap();
}

fn golden(name: &str) -> Files {
    let dir = golden_dir(name);
    let lengths = json_of(&fs::read(dir.join("lengths.json")).unwrap());
    let file = |(path, length): (&String, &Value)| {
        let mut bytes = fs::read(dir.join("data").join(path)).unwrap();
        bytes.resize(usize::try_from(length.as_u64().unwrap()).unwrap(), 0);
        (path.clone(), bytes)
    };
    lengths.as_object().unwrap().iter().map(file).collect()
}

fn expected(name: &str) -> Value {
    json_of(&fs::read(golden_dir(name).join("expected.json")).unwrap())
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// The files in a directory of their own.
fn laid_out(files: &Files) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    dir
}

#[test]
fn the_writer_writes_what_it_ever_wrote() {
    for (name, write) in GOLDEN {
        let written = write();
        if std::env::var("TIDELOG_GOLDEN").is_ok_and(|what| what == "write") {
            keep_golden(name, &written);
            let dir = laid_out(&written);
            let read = second_reader(&[dir.path()]).expect("what is expected is what the second reader reads");
            fs::write(golden_dir(name).join("expected.json"), pretty(&read[0])).unwrap();
        }

        let golden = golden(name);

        assert_eq!(written.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>(), "{name}");
        for (path, bytes) in &golden {
            let differs = written[path].iter().zip(bytes).position(|(one, other)| one != other);
            assert_eq!((differs, written[path].len()), (None, bytes.len()), "{name}/{path} differs first at this byte");
        }
    }
}

#[test]
fn a_log_of_version_1_reads_as_it_ever_did() {
    for (name, _) in GOLDEN {
        let dir = laid_out(&golden(name));

        let log = EventLog::open_with(dir.path(), config()).unwrap();

        assert!(log.recovery_report().is_clean(), "{name}: {:?}", log.recovery_report());
        assert_eq!(log.recovery_report().bytes_cut > 0, name == "v1", "{name}: there was a torn tail");
        assert_same(&expected(name)["contents"], &contents(&log).0, name);
    }
}

#[test]
fn a_sound_log_of_version_1_verifies_and_its_leftovers_go_when_it_is_opened() {
    let dir = laid_out(&golden("v1-deleting"));
    let verified = tidelog::inspect::verify(dir.path(), |_| {}).unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);

    let expected = expected("v1-deleting");
    let places = expected["files"].as_object().unwrap();
    let segments = places.values().map(|read| read["segments"].as_array().unwrap().len());
    assert_eq!(verified.segments, segments.sum::<usize>(), "what is left does not count");

    drop(EventLog::open_with(dir.path(), config()).unwrap());

    for (place, read) in places {
        let named = read["segments"].as_array().unwrap().iter().map(|segment| segment["file"].as_str().unwrap());
        let named: BTreeSet<String> = named.map(str::to_owned).collect();
        let left = fs::read_dir(dir.path().join(place)).unwrap();
        let left: BTreeSet<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(left, named, "{place}");
    }
}

#[test]
fn the_second_reader_reads_the_golden_logs() {
    for (name, _) in GOLDEN {
        let dir = laid_out(&golden(name));
        if let Some(read) = second_reader(&[dir.path()]) {
            assert_same(&expected(name), &read[0], name);
        }
    }
}

#[test]
fn the_golden_log_of_what_goes_has_everything_that_the_format_has_for_it() {
    let expected = expected("v1-deleting");
    let segments = |place: &str| expected["files"][place]["segments"].as_array().unwrap().clone();
    for (place, is_cut) in [("topics/compacted/0", false), ("topics/compacted.and.cut/0", true)] {
        let header = &segments(place)[0]["header"];
        assert!(header["compacted_end"].as_u64().unwrap() > 40 && header["clean_end"].as_u64().unwrap() > 40);
        assert_eq!(header["end_offset"] != header["compacted_end"], is_cut, "{place}: {header}");
    }
    assert_eq!(expected["catalog"]["cuts"].as_object().unwrap().len(), 3, "{}", expected["catalog"]);
    assert_eq!(expected["catalog"]["starts"].as_object().unwrap().len(), 1, "{}", expected["catalog"]);
    assert_eq!(expected["contents"]["records"]["deleted/0"][0]["offset"], 7);
    let all = golden("v1-deleting");
    let left = |place: &str| all.keys().filter(|path| path.starts_with(place) && path.ends_with(".log")).count();
    for topic in ["deleted", "cut", "emptied", "compacted", "compacted.and.cut"] {
        let place = format!("topics/{topic}/0");
        assert!(left(&place) > segments(&place).len(), "{topic}: nothing was left by an interrupted removal");
    }
    let attributes: Vec<u32> = all.values().flat_map(|bytes| attributes_of(bytes)).collect();
    for (bit, name) in [(6, "horizon"), (10, "sparse")] {
        assert!(attributes.iter().any(|bits| bits >> bit & 1 == 1), "{name}");
    }
}

#[test]
fn the_golden_log_has_everything_that_the_format_has() {
    let expected = expected("v1");
    let text = expected.to_string();
    let files = expected["files"].as_object().unwrap();
    for marker in ["synced", "closed", "rolled"] {
        assert!(text.contains(&format!("\"{marker}\"")), "no {marker} marker");
    }
    assert!(files["topics/orders/0"]["segments"].as_array().unwrap().len() > 2);
    assert!(files["topics/audit/0"]["torn"].is_object());
    let attributes: Vec<u32> = golden("v1").values().flat_map(|bytes| attributes_of(bytes)).collect();
    let any = |test: &dyn Fn(u32) -> bool| attributes.iter().any(|bits| test(*bits));
    for (bit, name) in
        [(3, "append time"), (5, "control"), (6, "horizon"), (7, "producer"), (10, "sparse"), (11, "headers")]
    {
        assert!(any(&|bits| bits >> bit & 1 == 1), "{name}");
    }
    assert!((0..3).all(|width| any(&|bits| bits >> 8 & 3 == width)), "widths");
    let offsets = expected["contents"]["records"]["compacted/0"].as_array().unwrap().iter();
    let offsets: Vec<_> = offsets.map(|record| record["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [1, 4, 6, 15, 16], "gaps, of offsets and of batches");
    assert_eq!(expected["catalog"]["deleted"].as_object().unwrap().len(), 1, "a deletion that was interrupted");
    assert!(golden("v1").keys().any(|path| path.ends_with(".log.new")), "a file that was being made");
    let rewritten = &files["groups/often"]["segments"][0]["header"];
    assert!(rewritten["base_offset"].as_u64().unwrap() > 0, "a table that was said again");
    let records = expected["contents"]["records"]["orders/0"].as_array().unwrap();
    assert!(records.iter().any(|record| record["key"].is_null()));
    assert!(records.iter().any(|record| record["value"].is_null()));
    assert!(records.iter().any(|record| record["headers"].as_array().unwrap().iter().any(|one| one[1].is_null())));
    assert_eq!(expected["catalog"]["epoch"], 2);
    assert_eq!(expected["contents"]["groups"]["billing"].as_object().unwrap().len(), 2, "not the one that is gone");
}

/// The attributes of all batches, going by their lengths.
fn attributes_of(bytes: &[u8]) -> Vec<u32> {
    let number = |at: usize| bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes(four.try_into().unwrap()));
    let (mut found, mut at) = (Vec::new(), 128);
    while bytes.starts_with(b"tidelog\0") && number(at) != 0 {
        found.push(number(at + 40));
        at += number(at) as usize;
    }
    found
}

// What the two readers read -------------------------------------------------------------------------------------------

/// What the second reader reads in each of the directories; `None`, and a word about it, where there is no Python.
fn second_reader(dirs: &[&Path]) -> Option<Vec<Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_reader/reader.py");
    let output = match Command::new("python3").arg("-B").arg(script).args(dirs).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let required = std::env::var_os("TIDELOG_SECOND_READER").is_some_and(|how| how == "required");
            assert!(!required, "there is no python3 here, and TIDELOG_SECOND_READER=required");
            let note = "NOT TESTED: there is no python3 here, so the second reader of the format was not asked\n";
            std::io::stderr().write_all(note.as_bytes()).unwrap();
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read: Vec<_> = lines.map(json_of).collect();
    assert_eq!(read.len(), dirs.len());
    Some(read)
}

/// What the library reads, in the second reader's words; and by partition, the offsets that it refused as damaged.
fn contents(log: &EventLog) -> (Value, BTreeMap<String, Vec<(u64, u64)>>) {
    let (mut topics, mut records, mut damage) = (Map::new(), Map::new(), BTreeMap::new());
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    for topic in log.list_topics() {
        let described = log.describe_topic(&topic).unwrap();
        let count = described.config.partition_count();
        // Of the settings that came later, those that are not at their defaults are written down.
        let written = ["durability", "max.message.bytes", "message.timestamp.type", "segment.bytes"];
        let defaults = TopicConfig::new().entries();
        let is_written = |entry: &(_, _)| written.contains(&entry.0) || !defaults.contains(entry);
        let settings: BTreeMap<_, _> = described.config.entries().into_iter().filter(is_written).collect();
        topics.insert(topic.clone(), json!({"partitions": count, "settings": settings}));
        for number in 0..count {
            let (held, refused) = read_all(&mut reader, &TopicPartition::new(topic.as_str(), number));
            records.insert(format!("{topic}/{number}"), Value::Array(held));
            damage.insert(format!("{topic}/{number}"), refused);
        }
    }
    let mut groups = Map::new();
    for group in log.list_groups() {
        let mut committed = Map::new();
        for entry in log.describe_group(&group).unwrap().offsets {
            let key = format!("{}/{}", entry.partition.topic(), entry.partition.partition());
            committed.insert(key, json!({"offset": entry.committed.unwrap().get(), "metadata": entry.metadata}));
        }
        groups.insert(group, Value::Object(committed));
    }
    (json!({"topics": topics, "records": records, "groups": groups}), damage)
}

fn read_all(reader: &mut Consumer, name: &TopicPartition) -> (Vec<Value>, Vec<(u64, u64)>) {
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    reader.assign([name.clone()]).unwrap();
    reader.seek_to_beginning(&[]).unwrap();
    loop {
        match reader.poll(NOW) {
            Ok(records) if records.is_empty() => return (held, refused),
            Ok(records) => held.extend(records.iter().map(|record| {
                let kind = if record.timestamp_type() == TimestampType::Append { "append" } else { "create" };
                json!({
                    "offset": record.offset().get(),
                    "timestamp": record.timestamp().as_millis(),
                    "timestamp_type": kind,
                    "key": hex(record.key()),
                    "value": hex(record.value()),
                    "headers": record.headers().map(|(name, value)| json!([name, hex(value)])).collect::<Vec<_>>(),
                })
            })),
            Err(Error::Corrupt(damage)) => {
                refused.push((damage.offsets.start.get(), damage.offsets.end.get()));
                reader.seek(name, damage.offsets.end).unwrap();
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

fn hex(bytes: Option<&[u8]>) -> Value {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.map_or(Value::Null, |bytes| json!({"hex": digits(bytes)}))
}

/// Finds the smallest part that differs, and shows that.
#[track_caller]
fn assert_same(expected: &Value, found: &Value, place: &str) {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(one), names(other), "{place}");
            one.iter().for_each(|(key, value)| assert_same(value, &other[key], &format!("{place}/{key}")));
        }
        (Value::Array(one), Value::Array(other)) => {
            let both = one.iter().zip(other).enumerate();
            both.for_each(|(at, (value, found))| assert_same(value, found, &format!("{place}/{at}")));
            assert_eq!(one.len(), other.len(), "{place}: so many expected, so many found");
        }
        _ => assert_eq!(expected, found, "{place}"),
    }
}

// Random logs ---------------------------------------------------------------------------------------------------------

/// Random numbers that depend on a seed only: splitmix64, by Sebastiano Vigna.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Mostly few, now and then many.
    fn bytes(&mut self) -> Vec<u8> {
        let most = [0, 3, 40, 400, 1500][self.below(5) as usize];
        (0..self.below(most + 1)).map(|_| if self.one_in(8) { 0 } else { self.next() as u8 }).collect()
    }
}

const HEADER_NAMES: [&str; 4] = ["", "trace", "größe", "content-type"];
const GROUP_NAMES: [&str; 3] = ["billing", "a/b", "größe.."];

/// A log at work in a directory of its own.
struct Worker {
    dir: TempDir,
    log: Option<EventLog>,
    chance: Chance,
    topics: Vec<(String, u32)>,
    made: u32,
}

impl Worker {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open_with(dir.path(), config()).unwrap();
        let mut worker = Worker { dir, log: Some(log), chance: Chance(seed), topics: Vec::new(), made: 0 };
        worker.create_topic();
        worker
    }

    fn log(&self) -> &EventLog {
        self.log.as_ref().unwrap()
    }

    fn config(&mut self, partitions: u32) -> TopicConfig {
        let kind = if self.chance.one_in(3) { TimestampType::Append } else { TimestampType::Create };
        let interval = Durability::Interval { every: Duration::from_millis(1), bytes: 2000 };
        let durability = [Durability::Sync, interval, Durability::Os][self.chance.below(3) as usize];
        let bytes = [4096, 4096, 12288][self.chance.below(3) as usize];
        TopicConfig::new().partitions(partitions).segment_bytes(bytes).durability(durability).timestamp_type(kind)
    }

    fn create_topic(&mut self) {
        self.made += 1;
        let (name, partitions) = (format!("topic.{}", self.made), 1 + self.chance.below(2) as u32);
        let config = self.config(partitions);
        self.log().create_topic(&name, config).unwrap();
        self.topics.push((name, partitions));
    }

    fn any_partition(&mut self) -> Option<(String, u32)> {
        let at = self.chance.below(self.topics.len().max(1) as u64) as usize;
        let (name, partitions) = self.topics.get(at)?.clone();
        Some((name, self.chance.below(u64::from(partitions)) as u32))
    }

    fn step(&mut self) {
        match self.chance.below(40) {
            0 => self.create_topic(),
            1 => {
                let Some((name, _)) = self.any_partition() else { return };
                self.log().delete_topic(&name).unwrap();
                self.topics.retain(|(other, _)| *other != name);
            }
            2 => {
                let Some((name, _)) = self.any_partition() else { return };
                let partitions = self.topics.iter().find(|(other, _)| *other == name).unwrap().1;
                let config = self.config(partitions);
                self.log().alter_topic(&name, config).unwrap();
            }
            3 => {
                let Some((name, _)) = self.any_partition() else { return };
                let topic = self.topics.iter_mut().find(|(other, _)| *other == name).unwrap();
                topic.1 += 1;
                let total = topic.1;
                self.log().add_partitions(&name, total).unwrap();
            }
            4 => {
                self.log.take().unwrap().close().unwrap();
                self.open();
            }
            5..=7 => drop(self.log().maintain()),
            8 => self.log().producer().flush().unwrap(),
            9..=11 => self.commit(),
            12 => self.delete(),
            13 | 14 => self.compact(),
            15 => self.cut(),
            _ => self.send(),
        }
    }

    /// Deletes a beginning, or all.
    fn delete(&mut self) {
        let Some((name, number)) = self.any_partition() else { return };
        let visible = self.log().describe_topic(&name).unwrap().partitions[number as usize].high_watermark.get();
        let before = self.chance.below(visible + 1);
        self.log().delete_records(&TopicPartition::new(name.as_str(), number), before).unwrap();
    }

    /// Compacts what may have been sent without keys. Tombstones go the second time. Some of what was removed comes back, as
    /// if a power cut had undone it.
    fn compact(&mut self) {
        let Some((name, number)) = self.any_partition() else { return };
        let config = self.log().describe_topic(&name).unwrap().config;
        let compacted = config.clone().cleanup_policy(CleanupPolicy::CompactAndDelete).delete_retention(NOW);
        self.log().alter_topic(&name, compacted).unwrap();
        let dir = self.dir.path().join("topics").join(&name).join(number.to_string());
        let paths = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect::<BTreeSet<_>>();
        let before: BTreeMap<PathBuf, Vec<u8>> =
            paths().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        self.log().compact(&TopicPartition::new(name.as_str(), number), |_| {}).unwrap();
        let after = paths();
        for (path, bytes) in before.into_iter().filter(|(path, _)| !after.contains(path)) {
            if self.chance.one_in(2) {
                fs::write(path, bytes).unwrap();
            }
        }
        self.log().alter_topic(&name, config).unwrap();
    }

    fn open(&mut self) {
        self.log = Some(EventLog::open_with(self.dir.path(), config()).unwrap());
    }

    /// Cuts a tail off, or all.
    fn cut(&mut self) {
        let Some((name, number)) = self.any_partition() else { return };
        let partition = self.log().describe_topic(&name).unwrap().partitions[number as usize].clone();
        let end = partition.log_start.get() + self.chance.below(partition.log_end.since(partition.log_start) + 1);
        match self.log().truncate(&TopicPartition::new(name.as_str(), number), end, GroupsBeyond::PullBack) {
            // Inside of a batch.
            Ok(_) | Err(Error::InvalidState { .. }) => {}
            // A removed file has come back with the name that the next segment would have. No file does that while the log
            // is open; the opening behind a crash removes it.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                drop(self.log.take());
                self.open();
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn commit(&mut self) {
        let Some((name, number)) = self.any_partition() else { return };
        let group = GROUP_NAMES[self.chance.below(3) as usize];
        let end = self.log().describe_topic(&name).unwrap().partitions[number as usize].log_end.get();
        let (offset, note) = (self.chance.below(end + 1), HEADER_NAMES[self.chance.below(4) as usize]);
        commit(self.log(), group, &[(&name, number, offset, note)]);
    }

    fn send(&mut self) {
        let Some((name, number)) = self.any_partition() else { return };
        let count = if self.chance.one_in(4) { 1 + self.chance.below(5) } else { 1 };
        let payloads: Vec<_> = (0..count).map(|_| (self.chance.bytes(), self.chance.bytes())).collect();
        let shift = [0, 1, 1 << 20, 1 << 40][self.chance.below(4) as usize];
        let timed = self.chance.one_in(3);
        let mut records = Vec::new();
        for (key, value) in &payloads {
            let mut record = match self.chance.below(6) {
                0 => ProducerRecord::tombstone(&name, key),
                1 => ProducerRecord::new(&name, value),
                _ => ProducerRecord::new(&name, value).key(key),
            };
            if timed {
                record = record.timestamp(Timestamp::from_millis(START + self.chance.below(shift + 1) as i64));
            }
            while self.chance.one_in(4) {
                let name = HEADER_NAMES[self.chance.below(4) as usize];
                record = match self.chance.below(3) {
                    0 => record.header_without_value(name),
                    _ => record.header(name, key),
                };
            }
            records.push(record.partition(number));
        }
        match self.log().producer().send_batch(records) {
            Ok(_) | Err(Error::RecordTooLarge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// What a kill at this moment would leave.
    fn killed(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        copy
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The segments of topics, the oldest of each partition first.
fn segments_in(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.collect::<BTreeSet<_>>()
    };
    let partitions = list(&dir.join("topics")).into_iter().flat_map(|topic| list(&topic));
    partitions.flat_map(|partition| list(&partition)).collect()
}

/// Does to one segment what disks and power cuts do. Returns what that was.
fn damage(dir: &Path, chance: &mut Chance) -> String {
    let segments = segments_in(dir);
    let Some(path) = segments.get(chance.below(segments.len().max(1) as u64) as usize) else { return "none".into() };
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let at = chance.below(used + 1) as usize;
    let length = 1 + chance.below(200) as usize;
    let name = path.strip_prefix(dir).unwrap().display();
    let what = match chance.below(6) {
        0 => {
            fs::remove_file(path).unwrap();
            return format!("{name} removed");
        }
        1 => {
            bytes.truncate(at);
            format!("{name} ends at {at}")
        }
        2 => {
            bytes[at..].fill(0);
            format!("{name} is zero from {at} on")
        }
        3 => {
            let end = (at + length).min(bytes.len());
            bytes[at..end].fill(0);
            format!("{name} is zero in {at}..{end}")
        }
        4 => {
            let end = (at + length).min(bytes.len());
            bytes[at..end].fill_with(|| chance.next() as u8);
            format!("{name} is noise in {at}..{end}")
        }
        _ => {
            let (at, bit) = (at.min(bytes.len() - 1), chance.below(8));
            bytes[at] ^= 1 << bit;
            format!("{name} has bit {bit} of {at} flipped")
        }
    };
    fs::write(path, bytes).unwrap();
    what
}

/// The offsets that promised records had, and which the second reader says are gone. `None`: up to where the log goes on.
fn gone(read: &Value, partition: &str) -> Vec<(u64, Option<u64>)> {
    let ranges = read["files"][format!("topics/{partition}")]["damage"].as_array().unwrap().iter();
    let ranges = ranges.map(|range| (range[0].as_u64().unwrap(), range[1].as_u64()));
    // Where a marker was, nothing is gone.
    ranges.filter(|(first, next)| Some(*first) != *next).collect()
}

/// Opens the log and holds what it reads against what the second reader read of it before.
fn compare(dir: &Path, read: &Value, message: &str) -> (usize, bool) {
    let log = EventLog::open_with(dir, config()).unwrap_or_else(|error| panic!("{error}; {message}"));
    let mut expected = read["contents"].clone();
    for pulled in &log.recovery_report().pulled_back {
        let key = format!("{}/{}", pulled.partition.topic(), pulled.partition.partition());
        let entry = &mut expected["groups"][&pulled.group][&key]["offset"];
        assert_eq!(*entry, json!(pulled.from.get()), "{message}");
        *entry = json!(pulled.to.get());
    }
    let (found, refused) = contents(&log);
    assert_same(&expected, &found, message);
    for (partition, refused) in &refused {
        let gone = gone(read, partition);
        let same = |(one, other): (&(u64, u64), &(u64, Option<u64>))| {
            one.0 == other.0 && other.1.is_none_or(|next| next == one.1)
        };
        let agree = refused.len() == gone.len() && refused.iter().zip(&gone).all(same);
        assert!(agree, "{partition}: the library refuses {refused:?}, the second reader misses {gone:?}; {message}");
    }
    let records = found["records"].as_object().unwrap().values().map(|held| held.as_array().unwrap().len()).sum();
    (records, refused.values().any(|refused| !refused.is_empty()))
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[test]
fn the_second_reader_reads_random_logs_as_the_library_does() {
    let logs = number_from("TIDELOG_LOGS").unwrap_or(20);
    let first_seed = number_from("TIDELOG_SEED").unwrap_or(1);
    let seeds: Vec<u64> = (first_seed..first_seed + logs).collect();
    let (mut records, mut copies, mut damaged) = (0, 0, 0);
    for seeds in seeds.chunks(20) {
        let mut made = Vec::new();
        for seed in seeds {
            let mut worker = Worker::new(*seed);
            for _ in 0..worker.chance.below(100) {
                worker.step();
            }
            made.push((worker.killed(), format!("TIDELOG_SEED={seed} TIDELOG_LOGS=1, killed")));
            let dir = worker.killed();
            let what = damage(dir.path(), &mut worker.chance);
            made.push((dir, format!("TIDELOG_SEED={seed} TIDELOG_LOGS=1, {what}")));
        }
        let dirs: Vec<_> = made.iter().map(|(dir, _)| dir.path()).collect();
        let Some(read) = second_reader(&dirs) else { return };
        for ((dir, message), read) in made.iter().zip(&read) {
            let (held, refused) = compare(dir.path(), read, message);
            records += held;
            copies += 1;
            damaged += usize::from(refused);
        }
    }
    println!("{logs} logs, {copies} copies, {damaged} of them with records refused, {records} records read by both");
}

#[test]
fn the_second_reader_reads_a_cut_that_was_interrupted_as_the_library_does() {
    let mut made = Vec::new();
    for end in [0, 2, 5, 8, 10] {
        for step in 0.. {
            let machine = Machine::new(7);
            let log = machine.open(config()).unwrap();
            log.create_topic("orders", TopicConfig::new().segment_bytes(4096)).unwrap();
            let send = |n: u8| drop(log.producer().send(ProducerRecord::new("orders", &[n; 700])).unwrap());
            (0..13).for_each(send);
            log.producer().flush().unwrap();
            machine.crash_at(machine.operations() + step);
            let done = log.truncate(&TopicPartition::new("orders", 0), end, GroupsBeyond::Refuse).is_ok();
            if done {
                machine.crash_at(u64::MAX);
                (0..9).for_each(send);
                log.producer().flush().unwrap();
            }
            let machine = machine.kill();
            let files: Files = machine.files().iter().map(|path| (text_of(path), machine.read_file(path))).collect();
            made.push((laid_out(&files), format!("cut at {end}, stopped after {step} operations")));
            if done {
                break;
            }
        }
    }
    assert!(made.len() > 40, "{}", made.len());
    let dirs: Vec<_> = made.iter().map(|(dir, _)| dir.path()).collect();
    let Some(read) = second_reader(&dirs) else { return };
    for ((dir, message), read) in made.iter().zip(&read) {
        let (held, refused) = compare(dir.path(), read, message);
        assert!(!refused && held > 0 || message.starts_with("cut at 0"), "{message}");
    }
}

#[test]
fn a_segment_that_ends_inside_of_its_last_marker_takes_no_later_segment_with_it() {
    let machine = Machine::new(7);
    let log = machine.open(config()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(4096)).unwrap();
    let producer = log.producer();
    let send = |n: u8, bytes: usize| {
        let value = vec![n; bytes];
        producer.send(ProducerRecord::new("orders", &value)).unwrap().wait().unwrap();
    };
    send(0, 1000);
    for _ in 0..3 {
        log.maintain();
        machine.advance(Duration::from_millis(30));
    }
    (1..6).for_each(|n| send(n, 3500));
    log.close().unwrap();
    let first = "topics/orders/0/00000000000000000000.log";
    let mut files: Files = machine.files().iter().map(|path| (text_of(path), machine.read_file(path))).collect();
    let bytes = files.get_mut(first).unwrap();
    bytes.truncate(128 + 1056 + 20);
    let dir = laid_out(&files);
    let read = second_reader(&[dir.path()]);

    let log = EventLog::open_with(dir.path(), config()).unwrap();

    if let Some(read) = read {
        assert_same(&read[0]["contents"], &contents(&log).0, "cut marker");
    }
    let held = contents(&log).0["records"]["orders/0"].as_array().unwrap().len();
    assert_eq!(held, 6, "{:?}", log.recovery_report());
    assert_eq!(log.recovery_report().damage.len(), 1, "the marker is gone, and somebody should look at the disk");
    assert_eq!(log.recovery_report().bytes_cut, 0);
}

#[test]
fn a_segment_that_is_gone_behind_a_rolled_one_takes_no_later_segment_with_it() {
    let machine = Machine::new(8);
    let log = open_with_rolled_segment(&machine);
    let gone = ["00000000000000000001.log", "00000000000000000002.log"];
    for count in 1..=2 {
        let all = machine.files();
        let mut files: Files = all.iter().map(|path| (text_of(path), machine.read_file(path))).collect();
        gone[..count].iter().for_each(|name| drop(files.remove(&format!("topics/orders/0/{name}")).unwrap()));
        let dir = laid_out(&files);
        let read = second_reader(&[dir.path()]);

        if let Some(read) = read {
            let (records, refused) = compare(dir.path(), &read[0], "rolled");
            assert_eq!((records, refused), (5 - count, true), "what is behind counts");
        }
    }
    drop(log);
}

/// Segments of one record each, of which the first alone was synced.
fn open_with_rolled_segment(machine: &Machine) -> EventLog {
    let log = machine.open(config()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(4096).durability(Durability::Os)).unwrap();
    for n in 0..5u8 {
        log.producer().send(ProducerRecord::new("orders", &[n; 3500])).unwrap();
        if n == 1 {
            // What was rolled is synced once nothing more has come for a while.
            log.maintain();
            machine.advance(Duration::from_millis(100));
            log.maintain();
        }
    }
    log
}

/// A compacted log of 24 records, eight small segments of which have become one or two; cut at these offsets, in turn, with
/// a few records sent behind each cut. And the first files that became none.
fn cut_after_compaction(cuts: &[u64]) -> (Machine, Files) {
    let machine = Machine::new(9);
    let log = machine.open(config()).unwrap();
    let compacted = TopicConfig::new().segment_bytes(4096).cleanup_policy(CleanupPolicy::Compact);
    log.create_topic("orders", compacted.clone()).unwrap();
    let send = |n: u8| drop(log.producer().send(ProducerRecord::new("orders", &[n; 1200]).key(&[n])).unwrap());
    (0..24).for_each(send);
    log.producer().flush().unwrap();
    log.alter_topic("orders", compacted.segment_bytes(1 << 16)).unwrap();
    let before = segments_of(&machine);
    log.compact(&TopicPartition::new("orders", 0), |_| {}).unwrap();
    let after = segments_of(&machine);
    assert!(before.len() == 8 && after.len() == 2, "{:?}, and then {:?}", before.keys(), after.keys());
    for (number, end) in cuts.iter().enumerate() {
        log.truncate(&TopicPartition::new("orders", 0), *end, GroupsBeyond::Refuse).unwrap();
        (0..9).for_each(|n| send(100 + 20 * number as u8 + n));
        log.producer().flush().unwrap();
    }
    let gone = before.into_iter().filter(|(path, _)| !after.contains_key(path)).collect();
    (machine.kill(), gone)
}

fn segments_of(machine: &Machine) -> Files {
    let files = machine.files().into_iter().filter(|path| path.starts_with("topics"));
    files.map(|path| (text_of(&path), machine.read_file(&path))).collect()
}

fn segment_path(base: u64) -> String {
    format!("topics/orders/0/{base:020}.log")
}

/// A bit of its header, and so all that it says.
const BIT_OF_HEADER: u64 = 8 * 60;

#[test]
fn what_came_behind_a_cut_in_a_compacted_segment_is_missed_when_nothing_says_what_it_is() {
    let mut made = Vec::new();
    for (cuts, damaged, lost, records) in [
        (&[12, 15][..], &[][..], &[][..], 0),
        (&[12], &[12], &[(12, None)], 9),
        (&[12, 15], &[12], &[(12, Some(15))], 3),
        (&[12, 15], &[15], &[(15, None)], 9),
        (&[12, 15], &[12, 15], &[(12, Some(15)), (15, None)], 12),
        (&[15, 12], &[12], &[(12, None)], 9),
        (&[0], &[0], &[(0, None)], 9),
    ] {
        let (machine, _) = cut_after_compaction(cuts);
        let left = machine.verify().unwrap().records - records;
        damaged.iter().for_each(|base| machine.flip_bit(segment_path(*base), BIT_OF_HEADER));
        let case = format!("cut at {cuts:?}, {damaged:?} damaged");
        let files: Files = machine.files().iter().map(|path| (text_of(path), machine.read_file(path))).collect();
        made.push((laid_out(&files), machine, (lost, left), case));
    }
    let dirs: Vec<_> = made.iter().map(|(dir, ..)| dir.path()).collect();
    let read = second_reader(&dirs);
    for (number, (dir, machine, (lost, left), case)) in made.iter().enumerate() {
        if let Some(read) = &read {
            assert_eq!(gone(&read[number], "orders/0"), *lost, "{case}");
            compare(dir.path(), &read[number], case);
        }
        let verified = machine.verify().unwrap();
        assert_eq!((verified.findings.len(), verified.records), (lost.len(), *left), "{case}: {:?}", verified.findings);

        let log = machine.open(config()).unwrap();

        let damage = &log.recovery_report().damage;
        let found = damage.iter().map(|damage| damage.offsets.start.get());
        assert_eq!(
            found.collect::<Vec<_>>(),
            lost.iter().map(|(first, _)| *first).collect::<Vec<_>>(),
            "{case}: {damage:?}"
        );
        let sent = log.producer().send(ProducerRecord::new("orders", b"next").key(b"k")).unwrap().wait().unwrap();
        assert!(sent.offset().get() > 21, "{case}: offset {} is given again", sent.offset());
        let machine = machine.kill();
        machine.repair(true).unwrap();
        assert!(machine.verify().unwrap().is_sound(), "{case}: {:?}", machine.verify());
        let log = machine.open(config()).unwrap();
        assert_eq!(log.recovery_report().damage, [], "{case}");
    }
}

#[test]
fn what_a_damaged_compacted_segment_stands_for_keeps_nobody_from_sending_behind_a_cut() {
    for (cuts, case) in [(&[][..], "cut with it"), (&[12], "found behind a cut")] {
        let (machine, gone) = cut_after_compaction(cuts);
        machine.flip_bit(segment_path(0), 8 * 20_000);
        machine.write_file(segment_path(12), &gone[&segment_path(12)]);
        let log = machine.open(config()).unwrap();
        // Opening the log anew is enough in any case.
        let log = match log.truncate(&TopicPartition::new("orders", 0), 12, GroupsBeyond::Refuse) {
            Ok(_) => log,
            Err(_) => machine.kill().open(config()).unwrap(),
        };
        let sent = log.producer().send(ProducerRecord::new("orders", b"next").key(b"k")).unwrap().wait();
        assert_eq!(sent.unwrap().offset().get(), 12, "{case}");
    }
}
