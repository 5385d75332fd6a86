//! Real log files, line by line through the tool and back, byte for byte, and in order for each key.
//!
//! `TIDELOG_LOGHUB` names a directory of `*.log` files, for example those of Loghub; without it, files like them are
//! made up. The key is taken out of each line with the regular expression that fits the name of the file.

mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use regex::bytes::Regex;
use tool::{Chance, Place, kills};

/// Beginnings of file names, and where the key is in the lines of such a file.
const KEYS: [(&str, &str); 6] = [
    ("Apache", r"(?:child|client) ([^\s\]]+)"),
    ("HealthApp", r"^[^|]*\|([^|]*)\|"),
    ("Linux", r"combo ([^\s:\[(]+)"),
    ("OpenSSH", r"sshd\[(\d+)\]"),
    ("Spark", r"^\S+ \S+ \w+ ([\w.$]+):"),
    ("Zookeeper", r"\[([^/\]]*)"),
];

/// A log file.
struct Source {
    name: String,
    path: PathBuf,
    bytes: Vec<u8>,
    key: &'static str,
}

impl Source {
    fn lines(&self) -> Vec<&[u8]> {
        let bytes = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        bytes.split(|byte| *byte == b'\n').collect()
    }
}

/// The files, and the directory that keeps those that were made up.
fn sources() -> (Vec<Source>, Option<tempfile::TempDir>) {
    let (dir, made_up) = match std::env::var_os("TIDELOG_LOGHUB") {
        Some(dir) => (PathBuf::from(dir), None),
        None => {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in made_up_files() {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            (dir.path().to_owned(), Some(dir))
        }
    };
    let mut sources: Vec<Source> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let key = KEYS.iter().find(|(start, _)| name.starts_with(start)).map_or(r"^(\S+)", |(_, key)| key);
            Source { bytes: fs::read(&path).unwrap(), name, path, key }
        })
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!sources.is_empty(), "there is no log file in {}", dir.display());
    (sources, made_up)
}

/// Files that have what real ones have: carriage returns, empty lines, lines without a key, a last line without its
/// end, and bytes that are no text.
fn made_up_files() -> Vec<(&'static str, Vec<u8>)> {
    let mut chance = Chance::new();
    let mut apache = String::new();
    let mut sshd = Vec::new();
    let mut zookeeper = String::new();
    for line in 0..2000 {
        let level = chance.one_of(&["notice", "error", "warn"]);
        let child = chance.below(10_000);
        apache.push_str(&format!("[Sun Dec 04 04:47:44 2005] [{level}] mod_jk child {child} in state {line}\r\n"));
        if line % 97 == 0 {
            apache.push_str("\r\n\n  continued without a key\r\n");
        }
        let process = 24_200 + chance.below(40);
        sshd.extend(format!("Dec 10 06:55:{:02} LabSZ sshd[{process}]: Invalid user ", line % 60).bytes());
        sshd.extend((0..chance.below(12)).map(|_| b"ab\xff\x00\xc3\xa9"[chance.below(6) as usize]));
        sshd.push(b'\n');
        let thread = chance.one_of(&["QuorumPeer[myid=1]/0:0", "/10.10.34.11:3888", "SyncThread:3"]);
        zookeeper.push_str(&format!("2015-07-29 17:41:44,{:03} - INFO  [{thread}@774] - number {line}\n", line % 1000));
    }
    zookeeper.push_str("the end, without a line feed");
    vec![("Apache.log", apache.into()), ("OpenSSH.log", sshd), ("Zookeeper.log", zookeeper.into())]
}

fn key_of<'a>(regex: &Regex, line: &'a [u8]) -> Option<&'a [u8]> {
    regex.captures(line).map(|found| found.get(1).unwrap().as_bytes())
}

fn produce(place: &Place, source: &Source, topic: &str, partitions: &str) {
    let file = source.path.to_str().unwrap();
    let words =
        ["produce", topic, "--file", file, "--key-regex", source.key, "--create-topic", "--partitions", partitions];
    let told = place.run(&words).text();
    let lines = source.lines().len();
    let sent = told.replace(',', "");
    assert!(sent.starts_with(&format!("sent {lines} records to {topic}: ")), "{told}");
}

/// A record as it was written with `--format '%p %o\0%k\0%v'`: partition, offset, key, value.
fn parse(line: &[u8]) -> (u32, u64, &[u8], &[u8]) {
    let mut parts = line.splitn(3, |byte| *byte == 0);
    let place = std::str::from_utf8(parts.next().unwrap()).unwrap();
    let (partition, offset) = place.split_once(' ').unwrap();
    (partition.parse().unwrap(), offset.parse().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}

const FORMAT: &str = "%p %o\\0%k\\0%v";

/// The lines of each key, in order; those without a key under `null`, as the tool writes it.
fn by_key<'a>(regex: &Regex, lines: impl Iterator<Item = &'a [u8]>) -> BTreeMap<&'a [u8], Vec<&'a [u8]>> {
    let mut found: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for line in lines {
        found.entry(key_of(regex, line).unwrap_or(b"null")).or_default().push(line);
    }
    found
}

#[test]
fn each_file_comes_back_byte_for_byte_and_in_order_for_each_key() {
    let (sources, _made_up) = sources();
    for source in &sources {
        let regex = Regex::new(source.key).unwrap();
        for partitions in ["1", "3", "16"] {
            let message = format!("{} in {partitions} partitions", source.name);
            let place = Place::new();
            produce(&place, source, "lines", partitions);

            let out = place.run(&["consume", "lines", "--format", FORMAT]).out();
            let out = out.strip_suffix(b"\n").unwrap();
            let mut next: BTreeMap<u32, u64> = BTreeMap::new();
            let mut partition_of: BTreeMap<&[u8], u32> = BTreeMap::new();
            let mut found: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
            for line in out.split(|byte| *byte == b'\n') {
                let (partition, offset, key, value) = parse(line);
                let next = next.entry(partition).or_insert(0);
                assert_eq!(offset, *next, "{message}");
                *next += 1;
                if key != b"null" {
                    assert_eq!(*partition_of.entry(key).or_insert(partition), partition, "{message}");
                }
                found.entry(key).or_default().push(value);
            }
            let mut expected = by_key(&regex, source.lines().into_iter());
            assert!(expected.len() > 2, "{message}: there are hardly any keys");
            // Without a key, lines go anywhere; they are all there, and that is all.
            for lines in [&mut found, &mut expected].into_iter().filter_map(|lines| lines.get_mut(&b"null"[..])) {
                lines.sort_unstable();
            }
            assert_eq!(found, expected, "{message}");

            if partitions == "1" {
                let mut bytes = source.bytes.clone();
                if !bytes.ends_with(b"\n") {
                    bytes.push(b'\n');
                }
                assert!(place.run(&["consume", "lines"]).out() == bytes, "{message}: as a whole");
            }
            println!("{message}: {} lines, {} keys", source.lines().len(), expected.len());
        }
    }
}

#[test]
fn a_group_that_is_killed_while_it_reads_a_file_misses_no_line() {
    let (sources, _made_up) = sources();
    let mut chance = Chance::new();
    let kills = kills(3);
    for source in &sources {
        for partitions in ["1", "3", "16"] {
            let place = Place::new();
            // The file again and again, because a killed reader may be a pipe ahead of us.
            for _ in 0..kills {
                produce(&place, source, "lines", partitions);
            }
            let all = place.run(&["consume", "lines", "--format", FORMAT]).out();
            let mut times: BTreeMap<&[u8], u32> =
                all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| (line, 0)).collect();

            let mut twice = 0;
            let mut next: BTreeMap<u32, u64> = BTreeMap::new();
            for kill in 1..=kills + 1 {
                let is_last = kill == kills + 1;
                let poll = if is_last { "5000" } else { chance.one_of(&["1", "30", "1500", "1500"]) };
                let count = chance.below(800);
                let message = format!(
                    "{} in {partitions} partitions, kill {kill} after {count} lines, {poll} a poll, TIDELOG_SEED={}",
                    source.name,
                    chance.seed()
                );
                let words = ["consume", "lines", "--group", "readers", "--from-beginning", "--format", FORMAT];
                let words = [&words[..], &["--max-poll-records", poll]].concat();
                let lines: Vec<Vec<u8>> = if is_last {
                    let ended = place.run(&words);
                    assert_eq!(ended.code, Some(0), "{}; {message}", ended.err);
                    ended.out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
                } else {
                    let mut child = place.start(&words);
                    let mut lines: Vec<_> = (0..count).map_while(|_| child.line()).collect();
                    let (rest, was_killed) = child.kill();
                    assert!(was_killed, "it ended by itself; {message}");
                    lines.extend(rest);
                    lines
                };
                let committed = committed(&place);
                let mut resumed: BTreeMap<u32, u64> = next.clone();
                for line in &lines {
                    let (partition, offset, ..) = parse(line);
                    // From where the last one had committed, on without a gap.
                    let due = resumed.entry(partition).or_insert(0);
                    assert_eq!(offset, *due, "partition {partition}; {message}");
                    *due += 1;
                    let times = times.get_mut(&line[..]).unwrap_or_else(|| panic!("was never sent; {message}"));
                    *times += 1;
                    twice += u32::from(*times == 2);
                }
                for (partition, committed) in &committed {
                    let read = resumed.get(partition).copied().unwrap_or(0);
                    let before = next.get(partition).copied().unwrap_or(0);
                    assert!((before..=read).contains(committed), "{before} <= {committed} <= {read}; {message}");
                }
                next = committed;
            }
            let missing = times.values().filter(|times| **times == 0).count();
            assert_eq!(missing, 0, "{} in {partitions}; TIDELOG_SEED={}", source.name, chance.seed());
            println!("{} in {partitions}: {kills} kills, {} lines, {twice} read twice", source.name, times.len());
        }
    }
}

/// What the group has committed, as the next process finds it: opening for writing settles it.
fn committed(place: &Place) -> BTreeMap<u32, u64> {
    let log = tidelog::EventLog::open(place.path()).unwrap();
    if log.list_groups().is_empty() {
        return BTreeMap::new();
    }
    let group = log.describe_group("readers").unwrap();
    group.offsets.iter().map(|one| (one.partition.partition(), one.committed.map_or(0, tidelog::Offset::get))).collect()
}
