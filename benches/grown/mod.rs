//! What the tables of growth share beside what all benchmarks do: steps, and what a process takes of memory and disk.

pub(crate) mod readers;
pub(crate) mod reopening;
pub(crate) mod size;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidelog::{Consumer, ConsumerConfig, EventLog, OffsetReset, TopicPartition};

use crate::subject::TOPIC;

/// 1, 10, 100 and so on, up to `most`.
pub(crate) fn steps(most: usize) -> impl Iterator<Item = usize> {
    (0..).map(|power| 10usize.pow(power)).take_while(move |step| *step <= most)
}

/// A directory beside the build: on a disk, if the build is on one.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory beside the build")
}

/// A consumer of these partitions, from the beginning on.
pub(crate) fn consumer(log: &EventLog, partitions: u32, most: usize) -> Consumer {
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest).max_poll_records(most);
    let mut consumer = log.consumer(config).expect("a consumer");
    consumer.assign((0..partitions).map(|number| TopicPartition::new(TOPIC, number))).expect("they are there");
    consumer
}

/// Bytes on the disk of all files below `directory`.
pub(crate) fn room(directory: &Path) -> u64 {
    let of = |entry: fs::DirEntry| {
        let metadata = entry.metadata().expect("a file that is there");
        if metadata.is_dir() { room(&entry.path()) } else { metadata.blocks() * 512 }
    };
    fs::read_dir(directory).expect("a directory").map(|entry| of(entry.expect("a name"))).sum()
}

/// The files of the segments of partition 0, the oldest first.
pub(crate) fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("topics").join(TOPIC).join("0")).expect("the partition is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a name").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// So many bytes of memory this process has; 0 where nobody says so. `RssFile`: of files; `VmRSS`: of all kinds.
pub(crate) fn resident(kind: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
