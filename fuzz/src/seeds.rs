//! Where the fuzzer begins: inputs that reach what the format has, made from the library's own building blocks.
//!
//! `TIDELOG_SEEDS=write cargo test --all-features --test fuzz seeds` writes those that are made here to `fuzz/seeds`. Beside
//! them lie those that campaigns have found and `cargo fuzz cmin` has left: their names are hashes. What is made here is
//! minimised too: of what is drawn at random stands here only what reaches something.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use tidelog::fuzz::{Batch, BatchRecord, Content, Damage, Directory, Record, Segment, SegmentHeader};
use tidelog::sim::PowerCut;

use super::directories::topic_id;
use super::files::{Files, pack};
use super::operations::Step;
use super::reference;

/// By target and name.
pub type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// Random numbers that depend on a seed only: splitmix64, by Sebastiano Vigna.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// One of the inputs, changed here and there.
    pub fn mutated(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let length = 1 + self.below(32);
            let end = (at + length).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = self.next() as u8,
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 if at < bytes.len() => bytes[at] = [0, 1, 8, 127, 128, 255][self.below(6)],
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..end, [])),
                _ => {
                    let copied = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, copied));
                }
            }
        }
        bytes
    }
}

/// The salt of the batches that stand alone.
const SALT: u32 = 0x1234_5678;

/// The target whose seeds this one begins with: those that are given the same files share them.
pub fn owner(target: &str) -> &str {
    if target == "inspect" { "directory" } else { target }
}

/// All that are made here.
pub fn made() -> Seeds {
    let mut seeds = Seeds::new();
    put_batches(&mut seeds);
    put_segments(&mut seeds);
    put_tables(&mut seeds);
    put_directories(&mut seeds);
    put_entries(&mut seeds);
    put_codecs(&mut seeds);
    put_operations(&mut seeds);
    put_consumers(&mut seeds);
    put_drawn(&mut seeds);
    seeds
}

fn record(key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> Record {
    Record { key: key.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec), headers: Vec::new(), timestamp }
}

fn with_headers(value: &[u8]) -> Record {
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let headers = vec![header("trace", Some(b"1")), header("", Some(b"")), header("größe", None)];
    Record { headers, ..record(Some(b"k"), Some(value), 0) }
}

fn placed(records: impl IntoIterator<Item = (u32, Record)>) -> Content {
    let placed = |(offset_delta, record)| BatchRecord { offset_delta, record };
    Content::Records(records.into_iter().map(placed).collect())
}

/// One of each kind, that follow one another from offset 0 on.
fn kinds() -> Vec<(&'static str, Batch)> {
    let plain = |value: &[u8]| record(None, Some(value), 0);
    let wide = [(0, plain(b"a")), (1, record(None, Some(b"b"), 1 << 40)), (2, record(None, None, -1))];
    let mut kinds = vec![
        ("dense", Batch::dense(0, 1, [plain(b"one"), record(Some(b"key"), None, 0), record(Some(b""), Some(b""), 0)])),
        ("headers", Batch::dense(0, 1, [with_headers(b"x"), plain(b"without")])),
        ("append-time", Batch { attributes: 8, ..Batch::dense(0, 1, [plain(b"at the log's time")]) }),
        ("narrow", Batch { attributes: 256, ..Batch::dense(0, 1, [plain(b"a"), record(None, Some(b"b"), -1000)]) }),
        ("wide", Batch { attributes: 512, span: 3, epoch: 1, content: placed(wide), ..Batch::default() }),
        (
            "sparse",
            Batch {
                attributes: 1024,
                span: 9,
                epoch: 1,
                content: placed([(1, plain(b"a")), (2, plain(b"b")), (7, plain(b"c"))]),
                ..Batch::default()
            },
        ),
        (
            "extensions",
            Batch { attributes: 64 | 128, delete_horizon: 9, producer: [7; 16], ..Batch::dense(0, 1, [plain(b"x")]) },
        ),
        (
            "everything",
            Batch {
                attributes: 8 | 64 | 128 | 512 | 1024 | 2048,
                base_timestamp: i64::MAX,
                span: 5,
                epoch: 1,
                content: placed([(0, with_headers(b"x")), (3, record(None, None, i64::MIN))]),
                ..Batch::default()
            },
        ),
        ("gap", Batch { span: 4, epoch: 1, ..Batch::default() }),
        ("sparse-gap", Batch { span: 4, epoch: 1, attributes: 1024, spare_words: 3, ..Batch::default() }),
        ("synced", Batch::marker(0, 1, 1)),
        ("closed", Batch { spare_words: 2, ..Batch::marker(0, 1, 2) }),
        ("rolled", Batch::marker(0, 1, 3)),
    ];
    let mut due = 0;
    for (_, batch) in &mut kinds {
        batch.base_offset = due;
        due = batch.next_offset();
    }
    kinds
}

fn put_batches(seeds: &mut Seeds) {
    let salted = |bytes: Vec<u8>| [SALT.to_le_bytes().to_vec(), bytes].concat();
    for (name, batch) in kinds() {
        seeds.insert(("decode", name.to_owned()), salted(batch.encode(SALT)));
        seeds.insert(("forged", name.to_owned()), salted(batch.encode(SALT)));
    }
    let dense = kinds().swap_remove(0).1;
    // What is refused behind a checksum that fits: a word, and what it is.
    let forged = [
        ("codec", 32, 3),
        ("transactional", 32, 16),
        ("third-width", 32, 768),
        ("unknown-attribute", 32, 1 << 12),
        ("no-span", 20, 0),
        ("span-too-small", 20, 2),
        ("span-too-large", 20, 4),
        ("count-too-large", 16, 4),
        ("key-too-long", 36, 1 << 30),
        ("no-epoch", 24, 0),
        ("unknown-lag", 28, u32::MAX),
        ("marker", 32, 32),
    ];
    for (name, at, word) in forged {
        let batch = Batch { forged: vec![(at, word)], ..dense.clone() };
        seeds.insert(("forged", format!("forged-{name}")), salted(batch.encode(SALT)));
    }
    let highest = Batch { base_offset: u64::MAX - 1, ..dense.clone() };
    seeds.insert(("forged", "offset-leaves-64-bits".to_owned()), salted(highest.encode(SALT)));
    let sparse = |deltas: [u32; 2], span| Batch {
        attributes: 1024,
        span,
        epoch: 1,
        content: placed(deltas.map(|delta| (delta, record(None, Some(b"x"), 0)))),
        ..Batch::default()
    };
    for (name, batch) in
        [("delta-falls", sparse([3, 1], 9)), ("delta-repeats", sparse([3, 3], 9)), ("delta-reaches", sparse([3, 9], 9))]
    {
        seeds.insert(("forged", name.to_owned()), salted(batch.encode(SALT)));
    }
    for (name, byte) in [("padding", 0x2e), ("padding-of-a-marker", 0x2f)] {
        let mut bytes = Batch::marker(0, 1, 1).encode(SALT);
        bytes[byte] = 1;
        seeds.insert(("forged", name.to_owned()), salted(bytes));
    }
    let too_long = Batch { spare_words: 1, ..dense.clone() };
    seeds.insert(("forged", "padded-too-far".to_owned()), salted(too_long.encode(SALT)));
    let mut headers = kinds().swap_remove(1).1.encode(SALT);
    headers[56..60].fill(0);
    seeds.insert(("forged", "headers-that-count-none".to_owned()), salted(headers));
    for (name, bytes) in
        [("empty", vec![]), ("zeros", vec![0; 64]), ("short", vec![48, 0, 0, 0]), ("ones", vec![255; 64])]
    {
        seeds.insert(("decode", name.to_owned()), salted(bytes));
    }
}

fn header(base_offset: u64) -> SegmentHeader {
    SegmentHeader { log_id: 1, topic_id: 2, epoch: 1, base_offset, ..SegmentHeader::default() }
}

/// Segments of the batches, whole and hurt.
fn segments() -> Vec<(String, Segment)> {
    let batches: Vec<Batch> = kinds().into_iter().map(|(_, batch)| batch).collect();
    let whole = Segment { header: header(0), batches, free_bytes: 128, damage: Vec::new() };
    let hurt = |damage: Damage| Segment { damage: vec![damage], ..whole.clone() };
    let length = whole.encode().len() as u32 - 128;
    let places = [130, 140, 190, 300, length / 2, length - 60, length - 10];
    let mut segments = vec![("whole".to_owned(), whole.clone())];
    for at in places {
        segments.push((format!("flipped-{at}"), hurt(Damage::Flip { at, bits: 4 })));
        segments.push((format!("zeroed-{at}"), hurt(Damage::Overwrite { at, length: 64, with: 0 })));
        segments.push((format!("cut-{at}"), hurt(Damage::Cut { at })));
    }
    let behind = Damage::Overwrite { at: length + 64, length: 9, with: 3 };
    segments.push(("bytes-behind-zeros".to_owned(), hurt(behind)));
    // A witness that lies far on makes all of it promised.
    let witness = Segment { batches: [whole.batches.clone(), vec![witness_at(&whole)]].concat(), ..whole.clone() };
    segments.push(("promised".to_owned(), witness.clone()));
    for at in places {
        let damage = vec![Damage::Overwrite { at, length: 40, with: 0 }];
        segments.push((format!("promised-zeroed-{at}"), Segment { damage, ..witness.clone() }));
    }
    let older = Batch { epoch: 0, ..Batch::dense(0, 0, [record(None, Some(b"of an earlier life"), 0)]) };
    segments.push(("older-epoch".to_owned(), Segment { batches: vec![older], ..whole.clone() }));
    let ahead = Batch::dense(7, 1, [record(None, Some(b"too far on"), 0)]);
    segments.push(("offset-ahead".to_owned(), Segment { batches: vec![ahead], ..whole.clone() }));
    segments.push(("empty".to_owned(), Segment { batches: Vec::new(), ..whole.clone() }));
    let high = Segment { header: header(u64::MAX - 3), batches: Vec::new(), ..whole.clone() };
    segments.push(("highest-base".to_owned(), high));
    // Large enough for an index to have something to say.
    let long =
        (0..4).map(|at| Batch::dense(at * 2, 1, [record(None, Some(&[7; 1200]), 0), record(None, Some(b"x"), 0)]));
    let long = Segment { batches: long.collect(), ..whole.clone() };
    let torn = vec![Damage::Flip { at: long.end().0 as u32 - 100, bits: 1 }];
    segments.push(("long-torn-tail".to_owned(), Segment { damage: torn, ..long.clone() }));
    segments.push(("long".to_owned(), long));
    segments.push(("zeros-and-then-a-batch".to_owned(), hole_of_zeros(&whole)));
    for (name, end, count) in [("compacted", 6, 3), ("compacted-too-short", 6, 2), ("compacted-too-far", 5, 3)] {
        let header = SegmentHeader { compacted: Some((end, 9)), ..header(0) };
        segments.push((name.to_owned(), Segment { header, ..compacted(0, count) }));
    }
    segments
}

/// A marker behind the last batch: all before it is durable.
fn witness_at(segment: &Segment) -> Batch {
    Batch::marker(segment.end().1, 1, 1)
}

fn hole_of_zeros(whole: &Segment) -> Segment {
    let last = whole.encode().len() as u32 - 128 - 48;
    let damage = vec![Damage::Overwrite { at: 128, length: last - 128, with: 0 }];
    Segment { damage, ..whole.clone() }
}

fn put_segments(seeds: &mut Seeds) {
    let whole = segments().swap_remove(0).1.encode();
    for (name, control, at) in [("magic", 0, 3), ("version", 0, 8), ("header-checksum", 0, 12), ("reserved", 1, 100)] {
        let mut bytes = [&[control][..], &whole].concat();
        bytes[1 + at] ^= 2;
        seeds.insert(("differential", format!("header-{name}")), bytes);
    }
    for (name, segment) in segments() {
        let bytes = segment.encode();
        let with = |control: &[u8]| [control, &bytes[..]].concat();
        // As they are; the other targets give them the identity that they need and new checksums.
        seeds.insert(("differential", name.clone()), with(&[0]));
        if segment.damage.is_empty() {
            seeds.insert(("differential", format!("{name}-mended")), with(&[3]));
        }
        // A checksum that was damaged stays so: mending asks for lengths only. All ones are left alone.
        let mut marked = bytes.clone();
        mark_damaged(&segment, &mut marked);
        let marked_with = |control: &[u8]| [control, &marked[..]].concat();
        seeds.insert(("active_segment", name.clone()), marked_with(&[3]));
        let (end, next) = segment.end();
        let (end, next) = ((end as u16).to_le_bytes(), (next as u16).to_le_bytes());
        for (kind, behind) in [("proven", 0), ("unproven", 200)] {
            if kind == "proven" || segment.damage.is_empty() {
                let control = [3, end[0], end[1], next[0], next[1], behind];
                seeds.insert(("sealed_segment", format!("{name}-{kind}")), marked_with(&control));
            }
        }
    }
}

/// Gives every batch that is no longer what was written a checksum that mending leaves alone.
fn mark_damaged(segment: &Segment, bytes: &mut [u8]) {
    let sound = Segment { damage: Vec::new(), ..segment.clone() }.encode();
    let mut at = 128;
    for batch in &segment.batches {
        let length = batch.encode(0).len();
        let now = bytes.get(at..at + length);
        if now.is_some_and(|now| now != &sound[at..at + length] && now[..4] != [0; 4]) {
            bytes[at + 4..at + 8].fill(0xff);
        }
        at += length;
    }
}

fn table(entries: &[(&[u8], Option<Vec<u8>>)]) -> Segment {
    let records = entries.iter().map(|(key, value)| record(Some(key), value.as_deref(), 0));
    Segment { header: header(0), batches: vec![Batch::dense(0, 1, records)], free_bytes: 64, damage: Vec::new() }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn commit(topic_id: u128, offset: u64, note: &str) -> Vec<u8> {
    [&topic_id.to_le_bytes()[..], &offset.to_le_bytes(), &text(note)].concat()
}

fn topic(id: u128, partitions: u32, settings: &[(&str, &str)]) -> Vec<u8> {
    let mut value = [&id.to_le_bytes()[..], &partitions.to_le_bytes(), &(settings.len() as u32).to_le_bytes()].concat();
    settings.iter().for_each(|(name, setting)| value.extend([text(name), text(setting)].concat()));
    value
}

/// Entries of a catalog, of every kind.
fn facts() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let key = |text: &str| text.as_bytes().to_vec();
    vec![
        (key("epoch"), Some(vec![7, 0, 0, 0])),
        (key("closed"), Some(vec![7, 0, 0, 0])),
        (key("topic/orders"), Some(topic(11, 1, &[("segment.bytes", "4096"), ("durability", "sync")]))),
        (key("topic/huge"), Some(topic(12, 1, &[("segment.bytes", "2147483648"), ("unknown", "")]))),
        (key("topic/tiny"), Some(topic(13, 2, &[("segment.bytes", "1"), ("max.message.bytes", "0")]))),
        (key("topic/none"), Some(topic(14, 0, &[]))),
        (key("topic/../up"), Some(topic(15, 1, &[]))),
        (key("topic/gone"), None),
        (key("deleted/0000000000000000000000000000000d"), Some(text("gone"))),
        (key("deleted/0000000000000000000000000000000e"), None),
        (key("group/billing"), Some(vec![])),
        (key("end/0000000000000000000000000000000b/0"), Some(vec![3, 0, 0, 0, 0, 0, 0, 0])),
        (key("end/x/0"), Some(vec![0; 8])),
        (key("start/0000000000000000000000000000000b/0"), Some(vec![2, 0, 0, 0, 0, 0, 0, 0])),
        (key("start/0000000000000000000000000000000b/0"), None),
        (key("end/0000000000000000000000000000000b/0"), None),
        (key("group/billing"), None),
        (key("quota/me"), Some(vec![9])),
        (key(""), Some(vec![0; 8])),
        (vec![255], Some(vec![])),
    ]
}

fn put_tables(seeds: &mut Seeds) {
    let mended = |segment: &Segment| [vec![3], segment.encode()].concat();
    for (at, (key, value)) in facts().into_iter().enumerate() {
        let alone = table(&[(&key, value)]);
        seeds.insert(("catalog", format!("fact-{at:02}")), mended(&alone));
    }
    let sound: Vec<_> = facts().into_iter().take(4).collect();
    let sound: Vec<_> = sound.iter().map(|(key, value)| (&key[..], value.clone())).collect();
    seeds.insert(("catalog", "several".to_owned()), mended(&table(&sound)));
    seeds.insert(("catalog", "nothing".to_owned()), mended(&table(&[])));
    seeds.insert(("catalog", "no-header".to_owned()), vec![0; 64]);
    let mut late = table(&sound);
    late.header.base_offset = 5;
    seeds.insert(("catalog", "foreign".to_owned()), [vec![2], late.encode()].concat());

    let id = topic_id();
    let commits: [(&str, Vec<u8>); 6] = [
        ("behind", commit(id, 1, "")),
        ("beyond", commit(id, 9, "more than there is")),
        ("highest", commit(id, u64::MAX, "")),
        ("other-topic", commit(id + 1, 1, "")),
        ("trailing", [commit(id, 1, ""), vec![0]].concat()),
        ("cut", commit(id, 1, "")[..20].to_vec()),
    ];
    for (name, value) in commits {
        let again = (&b"orders/0"[..], Some(value.clone()));
        seeds.insert(("group", name.to_owned()), mended(&table(&[again, (b"orders/7", Some(value))])));
    }
    let removed = [(&b"orders/0"[..], Some(commit(id, 1, ""))), (b"orders/0", None)];
    seeds.insert(("group", "removed".to_owned()), mended(&table(&removed)));
    let strange: [(&[u8], Option<Vec<u8>>); 4] =
        [(b"orders", Some(vec![])), (b"/", Some(vec![])), (&[255], Some(vec![])), (b"", Some(vec![9; 8]))];
    seeds.insert(("group", "strange-keys".to_owned()), mended(&table(&strange)));
    let mut hurt = mended(&table(&removed));
    hurt[140] ^= 1;
    hurt[132..136].fill(0xff);
    seeds.insert(("group", "damaged".to_owned()), hurt);
}

/// Drawn from seeds, as everybody can draw them.
/// The directories drawn at random that run no line which another seed does not: what `-merge=1 -use_counters=0` left out.
const REACHES_NOTHING_MORE: [u32; 8] = [5, 6, 7, 10, 15, 20, 21, 23];

fn put_directories(seeds: &mut Seeds) {
    let mut chance = Chance(20);
    for number in 0..24 {
        let drawn = chance.bytes(600);
        if REACHES_NOTHING_MORE.contains(&number) {
            continue;
        }
        let Ok(directory) = Directory::arbitrary(&mut Unstructured::new(&drawn)) else { continue };
        let files: Files = directory.files;
        let input = [vec![0], pack(&files)].concat();
        seeds.insert(("directory", format!("drawn-{number:02}")), input);
    }
    let one = |path: &str, bytes: &[u8]| [vec![0], pack(&Files::from([(path.to_owned(), bytes.to_vec())]))].concat();
    let long = format!("topics/{}/0/x", "n".repeat(200));
    let paths = [
        ("catalog-is-a-file", "catalog"),
        ("topics-is-a-file", "topics"),
        ("groups-is-a-file", "groups"),
        ("lock-is-a-directory", "LOCK/x"),
        ("segment-is-a-directory", "catalog/00000000000000000000.log/x"),
        ("unborn", "catalog/00000000000000000000.log.new"),
        ("highest-name", "topics/orders/0/18446744073709551615.log"),
        ("past-the-highest-name", "topics/orders/0/18446744073709551616.log"),
        ("long-name", long.as_str()),
        ("strange-partition", "topics/orders/00/00000000000000000000.log"),
        ("strange-group", "groups/%zz/00000000000000000000.log"),
    ];
    for (name, path) in paths {
        let bytes = table(&[(b"epoch", Some(vec![1, 0, 0, 0]))]).encode();
        seeds.insert(("directory", name.to_owned()), one(path, &bytes));
    }
    put_neighbours(seeds);
    put_doubles(seeds);
    put_beginnings(seeds);
    put_cuts(seeds);
    put_compacted(seeds);
    put_commits(seeds);
    let many = Files::from([
        ("catalog/00000000000000000000.log".to_owned(), table(&[(b"topic/t", Some(topic(5, u32::MAX, &[])))]).encode()),
        (
            "topics/t/0/00000000000000000000.log".to_owned(),
            Segment { header: header(0), ..Segment::default() }.encode(),
        ),
    ]);
    seeds.insert(("directory", "too-many-partitions".to_owned()), [vec![3], pack(&many)].concat());
}

/// Two records.
fn two(base: u64) -> Batch {
    Batch::dense(base, 1, [record(Some(b"k"), Some(b"one"), 0), record(None, Some(b"two"), 0)])
}

/// A segment of the partition `orders-0`, with two records and the rolled marker, which stands where the next one says that
/// this one ended. `at`: how many come before it; `promised`: whether it says that those are durable.
fn nth(at: u64, promised: bool) -> Segment {
    let before = (at > 0).then(|| (2 * at - 2, 128 + two(0).encode(0).len() as u64));
    let durable_end = if promised { 2 * at } else { 0 };
    let header = SegmentHeader { predecessor: before, durable_end, ..header(2 * at) };
    let batches = vec![two(2 * at), Batch::marker(2 * at + 2, 1, 3)];
    Segment { header, batches, free_bytes: 64, damage: Vec::new() }
}

/// The same with a bit turned over in its batch.
fn torn(at: u64, promised: bool) -> Segment {
    Segment { damage: vec![Damage::Flip { at: 150, bits: 1 }], ..nth(at, promised) }
}

/// The same without the marker.
fn last(at: u64, promised: bool) -> Segment {
    let mut segment = nth(at, promised);
    segment.batches.truncate(1);
    segment
}

/// The same, of another topic.
fn foreign(segment: Segment) -> Segment {
    Segment { header: SegmentHeader { topic_id: 77, ..segment.header }, ..segment }
}

/// A catalog that knows `orders`, and these facts; and segments of `orders-0` under these names.
fn orders(facts: &[(&[u8], Option<Vec<u8>>)], segments: impl IntoIterator<Item = (u64, Segment)>) -> Files {
    let topic: (&[u8], _) = (b"topic/orders", Some(topic(2, 1, &[("segment.bytes", "4096")])));
    let facts = table(&[&[topic][..], facts].concat());
    let catalog = Segment { header: SegmentHeader { topic_id: 0, ..header(0) }, ..facts };
    let mut files = Files::from([("catalog/00000000000000000000.log".to_owned(), catalog.encode())]);
    let named = |(base, segment): (u64, Segment)| (format!("topics/orders/0/{base:020}.log"), segment.encode());
    files.extend(segments.into_iter().map(named));
    files
}

fn put_files(seeds: &mut Seeds, name: &str, files: &Files) {
    seeds.insert(("directory", name.to_owned()), [vec![0], pack(files)].concat());
}

/// Segments of a partition that follow one another, and what can become of them.
fn put_neighbours(seeds: &mut Seeds) {
    let cases: [(&str, Vec<Segment>); 9] = [
        ("three", vec![nth(0, true), nth(1, true), last(2, true)]),
        ("rolled-unproven", vec![nth(0, false), nth(1, false), last(2, false)]),
        ("successor-gone", vec![nth(0, true), nth(1, true)]),
        ("middle-gone", vec![nth(0, true), last(2, true)]),
        ("middle-gone-unproven", vec![nth(0, false), last(2, false)]),
        ("middle-gone-unrolled", vec![last(0, false), last(2, false)]),
        ("first-gone", vec![nth(1, true), last(2, true)]),
        ("torn-before-others", vec![torn(0, false), last(1, false), last(2, false)]),
        ("damaged-before-others", vec![torn(0, true), torn(1, true), last(2, true)]),
    ];
    for (name, segments) in cases {
        let named = segments.into_iter().map(|segment| (segment.header.base_offset, segment));
        put_files(seeds, name, &orders(&[], named));
    }
    for (name, path) in [("unborn-beside", "4.log.new"), ("directory-beside", "4.log/x"), ("stray-beside", "4.txt")] {
        let mut files = orders(&[], [(0, last(0, false))]);
        files.insert(format!("topics/orders/0/0000000000000000000{path}"), vec![7; 9]);
        put_files(seeds, name, &files);
    }
    // Files of somebody else, and a segment that says of the one before that it ended where no gap fits.
    let mut cramped = last(2, true);
    cramped.header.predecessor = Some((2, 130));
    for (name, others) in [
        ("foreign-behind", vec![(3, foreign(nth(1, false))), (9, foreign(last(2, false)))]),
        ("foreign-between", vec![(2, foreign(nth(1, true))), (4, last(2, true))]),
        ("stray", vec![(1, foreign(nth(1, true)))]),
        ("cramped", vec![(4, cramped)]),
    ] {
        put_files(seeds, name, &orders(&[], [vec![(0, last(0, false))], others].concat()));
    }
}

/// Directories of the same topic id: the catalog knows one of them, both, or neither.
fn put_doubles(seeds: &mut Seeds) {
    let second: (&[u8], _) = (b"topic/copied", Some(topic(2, 1, &[])));
    for (name, facts) in [("copy-of-a-topic", &[][..]), ("two-topics-of-one-id", &[second][..])] {
        let mut files = orders(facts, [(0, last(0, false))]);
        files.insert("topics/copied/0/00000000000000000000.log".to_owned(), torn(0, false).encode());
        put_files(seeds, name, &files);
        if facts.is_empty() {
            files.remove("catalog/00000000000000000000.log");
            put_files(seeds, "copy-without-a-catalog", &files);
        }
    }
}

/// What was deleted on purpose, in the middle of a segment, up to a boundary, and further than there is: its files may still
/// be there.
fn put_beginnings(seeds: &mut Seeds) {
    let key = format!("start/{:032x}/0", 2);
    for (start, first) in [(1u64, 0), (2, 0), (2, 1), (3, 0), (4, 2), (5, 0), (9, 0), (9, 2)] {
        let segments = [(0, nth(0, true)), (2, torn(1, true)), (4, last(2, true))];
        let fact = (key.as_bytes(), Some(start.to_le_bytes().to_vec()));
        let files = orders(&[fact], segments.into_iter().skip(first));
        put_files(seeds, &format!("begins-at-{start}-from-{first}"), &files);
    }
    let fact = (key.as_bytes(), Some(1u64.to_le_bytes().to_vec()));
    let stray = orders(&[fact], [(0, nth(0, true)), (1, foreign(nth(1, true))), (2, last(1, true))]);
    put_files(seeds, "stray-at-the-beginning", &stray);
}

/// The end of the bytes of two records at the front of a segment.
fn behind_two() -> u64 {
    128 + two(0).encode(0).len() as u64
}

/// The same, of a later epoch: it came behind a cut. `before`: the segment in front of it, and where that one ended.
fn later(segment: Segment, before: Option<(u64, u64)>) -> Segment {
    let batches = segment.batches.into_iter().map(|batch| Batch { epoch: 2, ..batch }).collect();
    let header = SegmentHeader { epoch: 2, predecessor: before, ..segment.header };
    Segment { header, batches, ..segment }
}

fn cut_at(end: u64) -> (String, Option<Vec<u8>>) {
    (format!("cut/{:032x}/0", 2), Some([&end.to_le_bytes()[..], &2u32.to_le_bytes()].concat()))
}

fn put_cut(seeds: &mut Seeds, name: &str, end: u64, more: &[(String, u64)], segments: Vec<Segment>) {
    let (cut, value) = cut_at(end);
    let more = more.iter().map(|(key, offset)| (key.as_bytes(), Some(offset.to_le_bytes().to_vec())));
    let facts: Vec<(&[u8], _)> = [(cut.as_bytes(), value)].into_iter().chain(more).collect();
    let named = segments.into_iter().map(|segment| (segment.header.base_offset, segment));
    put_files(seeds, name, &orders(&facts, named));
}

/// Tails that were cut off, as far as it got: between segments, within one, all of it, more than there is; what came
/// behind, what is lost of it, and what has come back.
fn put_cuts(seeds: &mut Seeds) {
    let old = || vec![nth(0, true), nth(1, true), last(2, true)];
    let whole = || {
        let mut segment = last(0, true);
        segment.batches.push(two(2));
        segment
    };
    let (end, start) = (|at: u64| (format!("end/{:032x}/0", 2), at), |at: u64| (format!("start/{:032x}/0", 2), at));
    for at in [0, 1, 2, 3, 4, 6, 9] {
        put_cut(seeds, &format!("cut-recorded-at-{at}"), at, &[end(at)], old());
    }
    let behind = || Some((0, behind_two()));
    let new = || later(last(1, true), behind());
    let cases = [
        ("cut-between", 2, vec![nth(0, true), new()]),
        ("cut-within", 2, vec![whole(), new()]),
        ("cut-within-recorded", 2, vec![whole()]),
        ("cut-and-removed", 2, vec![nth(0, true)]),
        ("cut-and-half-removed", 2, vec![nth(0, true), nth(1, true)]),
        ("cut-and-one-came-back", 2, vec![nth(0, true), new(), last(2, true)]),
        ("cut-to-nothing", 0, vec![]),
        ("cut-to-nothing-and-begun", 0, vec![later(last(0, true), None)]),
        ("cut-before-what-is-torn", 2, vec![whole(), later(torn(1, false), behind())]),
        ("cut-into-damage", 2, vec![torn(0, true), new()]),
        ("cut-into-damage-recorded", 2, vec![torn(0, true), nth(1, true)]),
        ("cut-before-a-foreign-one", 2, vec![whole(), foreign(new())]),
        ("cut-twice", 2, vec![whole(), new(), later(last(2, true), Some((2, behind_two())))]),
    ];
    for (name, at, segments) in cases {
        put_cut(seeds, name, at, &[], segments.clone());
        put_cut(seeds, &format!("{name}-closed"), at, &[end(at)], segments);
    }
    put_cut(seeds, "cut-and-lost-what-came", 2, &[end(4)], vec![whole()]);
    put_cut(seeds, "cut-to-nothing-and-lost-what-came", 0, &[end(4)], vec![]);
    for at in [1, 2, 4] {
        put_cut(seeds, &format!("cut-at-2-begins-at-{at}"), 2, &[start(at)], vec![whole(), new()]);
        put_cut(seeds, &format!("cut-at-2-recorded-begins-at-{at}"), 2, &[start(at)], old());
    }
    put_cut(seeds, "cut-to-the-beginning", 2, &[start(2)], vec![]);
}

/// One compacted segment in the place of so many: a record of each batch is left, and of the last none.
fn compacted(at: u64, count: u64) -> Segment {
    let left = |batch: u64| {
        let (base_offset, span) = (2 * batch, 2);
        let kept = placed([(1, record(Some(b"k"), Some(b"kept"), 0))]);
        let content = if batch + 1 == at + count { Content::default() } else { kept };
        let attributes = if content == Content::default() { 0 } else { 1024 };
        Batch { base_offset, span, epoch: 1, attributes, content, ..Batch::default() }
    };
    let (end, durable_end) = (2 * (at + count), 2 * at);
    let header = SegmentHeader { compacted: Some((end, end + 2)), durable_end, ..nth(at, true).header };
    Segment { header, batches: (at..at + count).map(left).collect(), free_bytes: 64, damage: Vec::new() }
}

/// Compactions that were finished, and such as were not; what is compacted and damaged, foreign, alone, or cut since.
fn put_compacted(seeds: &mut Seeds) {
    let hurt = |segment: Segment, at| Segment { damage: vec![Damage::Flip { at, bits: 1 }], ..segment };
    let epoch = |segment: Segment, epoch| {
        let batches = segment.batches.into_iter().map(|batch| Batch { epoch, ..batch }).collect();
        Segment { header: SegmentHeader { epoch, ..segment.header }, batches, ..segment }
    };
    let begins_at = |at| later(last(at, true), Some((0, behind_two())));
    let cases = [
        ("compacted", vec![compacted(0, 2), last(2, true)]),
        ("compacted-one", vec![nth(0, true), compacted(1, 1), last(2, true)]),
        ("compacted-later", vec![epoch(compacted(0, 2), 2), last(2, true)]),
        ("compacted-interrupted", vec![compacted(0, 2), nth(1, true), last(2, true)]),
        ("compacted-later-interrupted", vec![epoch(compacted(0, 2), 2), nth(1, true), last(2, true)]),
        ("compacted-again-interrupted", vec![compacted(0, 3), compacted(1, 2), last(3, true)]),
        ("compacted-alone", vec![compacted(0, 2)]),
        ("compacted-and-successor-gone", vec![compacted(0, 2), last(3, true)]),
        ("compacted-damaged", vec![hurt(compacted(0, 2), 150), last(2, true)]),
        ("compacted-damaged-interrupted", vec![hurt(compacted(0, 2), 150), nth(1, true), last(2, true)]),
        ("compacted-header-damaged", vec![hurt(compacted(0, 2), 40), nth(1, true), last(2, true)]),
        ("compacted-before-a-damaged-header", vec![compacted(0, 2), hurt(nth(1, true), 40), last(2, true)]),
        ("compacted-before-a-foreign-one", vec![compacted(0, 2), foreign(nth(1, true)), last(2, true)]),
        ("compacted-cut-short", vec![compacted(0, 2), begins_at(1)]),
        ("compacted-behind-a-torn-one", vec![torn(0, false), compacted(1, 1), last(2, true)]),
        ("compacted-in-disorder", vec![compacted(0, 2), epoch(nth(1, true), 2), last(2, true)]),
    ];
    for (name, segments) in cases {
        let named = segments.iter().map(|segment| (segment.header.base_offset, segment.clone()));
        put_files(seeds, name, &orders(&[], named));
        for at in [1, 2, 4] {
            if name.starts_with("compacted-cut") || at == 2 {
                put_cut(seeds, &format!("{name}-and-cut-at-{at}"), at, &[], segments.clone());
            }
        }
    }
    let begun = vec![compacted(0, 2), last(2, true)];
    let named = begun.into_iter().map(|segment| (segment.header.base_offset, segment));
    let mut files = orders(&[], named);
    files.insert("topics/orders/0/00000000000000000000.copy.log.new".to_owned(), compacted(0, 1).encode());
    put_files(seeds, "compacted-and-being-copied", &files);
}

/// What a group has committed: past the end, what makes no sense, and what it has taken back; with a catalog and without.
fn put_commits(seeds: &mut Seeds) {
    let entries: [(&[u8], _); 5] = [
        (b"orders/0", Some(commit(2, 9, ""))),
        (b"orders", Some(vec![1])),
        (b"audit/0", Some(commit(3, 1, ""))),
        (b"audit/0", None),
        (b"", Some(vec![0; 8])),
    ];
    let home = SegmentHeader { topic_id: reference::group_id("billing"), ..header(0) };
    let group = Segment { header: home, ..table(&entries) };
    let mut files = orders(&[], [(0, last(0, false))]);
    files.insert("groups/billing/00000000000000000000.log".to_owned(), group.encode());
    put_files(seeds, "commits", &files);
    files.remove("catalog/00000000000000000000.log");
    put_files(seeds, "commits-without-a-catalog", &files);
}

fn put_entries(seeds: &mut Seeds) {
    let mut put = |name: String, key: &[u8], value: Option<&[u8]>| {
        let length = key.len() as u8 | if value.is_none() { 128 } else { 0 };
        seeds.insert(("entries", name), [&[length][..], key, value.unwrap_or_default()].concat());
    };
    for (at, (key, value)) in facts().iter().enumerate() {
        put(format!("fact-{at:02}"), key, value.as_deref());
    }
    put("commit".to_owned(), b"a/b/12", Some(&commit(7, 5, "häl")));
    put("commit-that-goes-on".to_owned(), b"orders/0", Some(&[commit(7, 5, ""), vec![0]].concat()));
    put("many-settings".to_owned(), b"topic/t", Some(&[&topic(1, 1, &[])[..20], &[255; 4]].concat()));
    put("group-directory".to_owned(), b"a%2fb", Some(b""));
    put("no-group-directory".to_owned(), b"a%41", Some(b""));
}

fn put_codecs(seeds: &mut Seeds) {
    // Ten bytes that announce a text longer than any memory: what made limits a rule.
    let bomb = [0, 253, 255, 255, 255, 255, 255, 255, 255, 127];
    let json = |kind: u8, text: &str| [&[kind][..], text.as_bytes()].concat();
    let entries: [(&str, Vec<u8>); 12] = [
        ("bomb", bomb.to_vec()),
        ("bomb-of-bytes", [&[1][..], &bomb[1..]].concat()),
        ("bomb-of-lists", [&[5][..], &bomb[1..]].concat()),
        ("text", vec![0, 3, b'a', b'b', b'c']),
        ("not-text", vec![0, 2, 0xc3, 0x28]),
        ("paid", vec![2, 7, 20, 1, 2, b'h', b'i', 1, 251, 0, 1]),
        ("lists", vec![5, 2, 2, 0, 1, 0]),
        ("map", vec![4, 1, 1, b'k', 2, 1, 2]),
        ("json-text", json(0, "\"a\\u00e4\"")),
        ("json-paid", json(2, r#"{"user":7,"cents":-5,"note":null,"state":{"Settled":{"at":9}}}"#)),
        ("json-deep", json(5, &"[".repeat(200))),
        ("json-numbers", json(3, "[[340282366920938463463374607431768211455,-1]]")),
    ];
    seeds.extend(entries.map(|(name, bytes)| (("codecs", name.to_owned()), bytes)));
}

fn put_operations(seeds: &mut Seeds) {
    let script = |world: [u8; 3], steps: &[Step]| {
        let mut input = world.to_vec();
        steps.iter().for_each(|step| step.write(&mut input));
        input
    };
    let send = || Step::Send { partition: 0, bytes: 460 };
    for (how, cut) in PowerCut::ALL.iter().enumerate() {
        for level in 0..3u8 {
            let steps = [
                send(),
                send(),
                Step::Flush,
                send(),
                send(),
                Step::Poll,
                Step::Commit,
                send(),
                Step::PowerCut(how),
                send(),
                Step::Wait,
                Step::Poll,
                Step::Commit,
                Step::PowerCut(how),
                Step::Poll,
            ];
            seeds.insert(
                ("operations", format!("{cut:?}-{level}").to_lowercase()),
                script([how as u8, level, 0], &steps),
            );
        }
    }
    let rolls =
        [vec![Step::Send { partition: 0, bytes: 3000 }; 6], vec![Step::Kill, Step::Poll, Step::Reopen]].concat();
    seeds.insert(("operations", "rolls".to_owned()), script([1, 0, 0], &rolls));
    let others = [
        Step::SendBatch { partition: 1, count: 5 },
        Step::AddPartition,
        Step::CommitAt { partition: 1, back: 2 },
        Step::Maintain { millis: 100 },
        Step::Maintain { millis: 100 },
        Step::NewConsumer,
        Step::Poll,
        Step::Commit,
        Step::Reopen,
    ];
    seeds.insert(("operations", "everything-else".to_owned()), script([2, 1, 1], &others));
    put_trouble(seeds, script);
    put_upkeep(seeds, script);
}

/// Truncations, compactions and copies, whole, cut short by deaths, and with what fails.
fn put_upkeep(seeds: &mut Seeds, script: impl Fn([u8; 3], &[Step]) -> Vec<u8>) {
    let send = |bytes| Step::Send { partition: 0, bytes };
    let work = [vec![send(460); 12], vec![Step::Flush, Step::Poll, Step::Commit]].concat();
    let upkeep = [
        (
            "truncates",
            vec![Step::Truncate { partition: 0, back: 5 }, send(460), Step::Truncate { partition: 0, back: 9 }],
        ),
        ("compacts", vec![Step::Compact { partition: 0 }]),
        ("forks", vec![Step::Copy { fork: true }]),
        ("backs-up", vec![Step::Copy { fork: false }]),
        ("compacts-and-truncates", vec![Step::Compact { partition: 0 }, Step::Truncate { partition: 0, back: 8 }]),
        (
            "truncates-and-compacts",
            vec![Step::Truncate { partition: 0, back: 8 }, send(3000), Step::Compact { partition: 0 }],
        ),
        ("forks-and-truncates", vec![Step::Copy { fork: true }, Step::Truncate { partition: 0, back: 8 }]),
        ("forks-and-compacts", vec![Step::Copy { fork: true }, Step::Compact { partition: 0 }]),
    ];
    for (at, (name, steps)) in upkeep.into_iter().enumerate() {
        let (level, how) = (at as u8 % 3, at % PowerCut::ALL.len());
        let whole = [&work[..], &steps, &[Step::PowerCut(how)], &work, &steps, &[Step::Kill]].concat();
        seeds.insert(("operations", name.to_owned()), script([at as u8, level, 3], &whole));
        for (number, die) in [3, 9, 17, 28].into_iter().enumerate() {
            let how = (at + number) % (PowerCut::ALL.len() + 1);
            let dies = [&work[..], &[Step::Die { at: die, how }], &steps, &work, &steps].concat();
            seeds.insert(("operations", format!("{name}-dies-{number}")), script([at as u8, level, 3], &dies));
        }
        let kind = at as u8 % 8;
        let fails = [&work[..], &[Step::Fail { kind, at: 2 }], &steps, &work, &steps].concat();
        seeds.insert(("operations", format!("{name}-fails")), script([at as u8, level, 3], &fails));
    }
}

/// Calls that fail, machines that die within one, pages that are lost.
fn put_trouble(seeds: &mut Seeds, script: impl Fn([u8; 3], &[Step]) -> Vec<u8>) {
    let send = |bytes| Step::Send { partition: 0, bytes };
    let work = [send(460), send(3000), Step::Wait, Step::Poll, Step::Commit, send(3000), send(3000), Step::Flush];
    let after = [Step::Poll, Step::Commit, Step::PowerCut(0), Step::Poll];
    let mut put = |name: String, level: u8, trouble: &[Step]| {
        let steps = [&work[..3], trouble, &work, trouble, &work, &after].concat();
        seeds.insert(("operations", name), script([0, level, 0], &steps));
    };
    for kind in 0..8 {
        put(format!("fails-{kind}"), kind % 3, &[Step::Fail { kind, at: 1 }]);
    }
    for (how, at) in (0..7).zip([2, 5, 7, 11, 13, 3, 17]) {
        put(format!("dies-{how}"), how as u8 % 3, &[Step::Die { at, how }]);
    }
    for level in 0..3 {
        put(format!("page-lost-{level}"), level, &[send(460), Step::LosePage { partition: 0 }]);
        put(format!("sync-loses-pages-{level}"), level, &[Step::Fail { kind: 16, at: 0 }]);
        put(format!("full-{level}"), level, &[Step::Fail { kind: 8 + 2, at: 0 }]);
    }
}

/// For each scenario a run in which nothing happens, and some in which something does, here and there.
fn put_consumers(seeds: &mut Seeds) {
    let mut chance = Chance(11);
    for (scenario, name) in ["one-member", "two-members", "handler", "async"].into_iter().enumerate() {
        seeds.insert(("consumer", format!("{name}-calm")), vec![scenario as u8]);
        for (number, one_in) in [6, 6, 10, 10, 20, 20, 40, 40, 80, 80].into_iter().enumerate() {
            let mut choice = || if chance.below(one_in) == 0 { 1 + chance.below(8) as u8 } else { 0 };
            let tape: Vec<u8> = (0..400).map(|_| choice()).collect();
            seeds.insert(("consumer", format!("{name}-{number}")), [&[scenario as u8][..], &tape].concat());
        }
    }
}

/// What is made of bytes by `arbitrary` is best drawn.
fn put_drawn(seeds: &mut Seeds) {
    let mut chance = Chance(7);
    for target in ["structured", "round_trip"] {
        for number in 0..16 {
            let length = 40 + chance.below(300);
            seeds.insert((target, format!("drawn-{number:02}")), chance.bytes(length));
        }
    }
    debug_assert_eq!(reference::crc32(0, b"123456789"), 0xcbf4_3926);
}
