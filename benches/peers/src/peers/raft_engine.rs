//! raft-engine: the log of TiKV's Raft groups. A topic is a group, and the index of an entry is its number and one.
//!
//! A group is written by one thread at a time, in the order of its indexes; so each writer has a group of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use raft_proto::eraftpb::Entry;

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer};
use crate::peers::CHUNK;

/// The group that stands for the one topic of most rows.
const GROUP: u64 = 1;

/// Groups that are counted on from the start: as many as there are threads in any row.
const MOST_WRITERS: usize = 64;

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

pub(crate) struct Peered {
    engine: Arc<Engine>,
    next: Arc<Vec<AtomicU64>>,
    mode: Mode,
    writers: usize,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "raft-engine",
        mode: "`write(batch, false)`",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "`write(batch, true)`, one sync for all who write: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        let config = Config {
            dir: setup.directory.to_str().ok_or("the directory is not UTF-8")?.to_owned(),
            // The records do not compress.
            batch_compression_threshold: ReadableSize::kb(0),
            ..Config::default()
        };
        let engine = Arc::new(Engine::open(config)?);
        let next = |group| AtomicU64::new(engine.last_index(GROUP + group).map_or(1, |last| last + 1));
        let next = (0..setup.topics.max(MOST_WRITERS) as u64).map(next).collect();
        Ok(Peered { engine, next: Arc::new(next), mode: setup.mode, writers: 0 })
    }

    fn writer(&mut self) -> Result<Appender> {
        let own = self.writers;
        self.writers += 1;
        let batch = LogBatch::with_capacity(16);
        Ok(Appender { engine: Arc::clone(&self.engine), next: Arc::clone(&self.next), mode: self.mode, own, batch })
    }

    fn reader(&mut self) -> Result<Reading> {
        Ok(Reading { engine: Arc::clone(&self.engine), at: 1, entries: Vec::new() })
    }

    fn read_back(&mut self, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut reader = self.reader()?;
        (0..self.writers.max(1)).try_for_each(|own| reader.topic(own, see))
    }
}

pub(crate) struct Appender {
    engine: Arc<Engine>,
    next: Arc<Vec<AtomicU64>>,
    mode: Mode,
    /// The group of this writer.
    own: usize,
    batch: LogBatch,
}

impl Appender {
    fn write(&mut self, topic: usize, records: &[&[u8]]) -> Result<()> {
        let first = self.next[topic].fetch_add(records.len() as u64, Ordering::Relaxed);
        let entry = |(index, record): (u64, &&[u8])| {
            let mut entry = Entry::new();
            entry.index = index;
            entry.data = record.to_vec().into();
            entry
        };
        let entries: Vec<Entry> = (first..).zip(records).map(entry).collect();
        self.batch.add_entries::<Entries>(GROUP + topic as u64, &entries)?;
        self.engine.write(&mut self.batch, self.mode == Mode::PowerCut)?;
        Ok(())
    }
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.write(self.own, &[record])
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.write(self.own, records)
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        self.write(topic, &[record])
    }
}

pub(crate) struct Reading {
    engine: Arc<Engine>,
    at: u64,
    entries: Vec<Entry>,
}

impl Reading {
    fn read(&mut self, group: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let end = self.engine.last_index(group).map_or(0, |last| last + 1).min(self.at + CHUNK as u64);
        if self.at >= end {
            return Ok(0);
        }
        self.entries.clear();
        let count = self.engine.fetch_entries_to::<Entries>(group, self.at, end, None, &mut self.entries)?;
        self.entries.iter().for_each(|entry| see(&entry.data));
        self.at = end;
        Ok(count)
    }
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        self.read(GROUP, see)
    }

    fn rewind(&mut self) -> Result<()> {
        self.at = 1;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let entry = self.engine.get_entry::<Entries>(GROUP, number + 1)?.ok_or("there is no such record")?;
        see(&entry.data);
        Ok(())
    }

    fn topic(&mut self, topic: usize, see: &mut impl FnMut(&[u8])) -> Result<()> {
        self.at = 1;
        while self.read(GROUP + topic as u64, see)? > 0 {}
        Ok(())
    }
}
