//! walrus: a write-ahead log with topics.

use std::sync::Arc;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus, disable_fd_backend};

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer};

const TOPIC: &str = "bench";

/// Bytes that one read may bring; so many that records of 100 bytes end it by their number.
const READ_BYTES: usize = 1 << 20;

pub(crate) struct Peered {
    walrus: Arc<Walrus>,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "walrus-rust",
        mode: "mapped files, `NoFsync`; read by `read_next` where `batch_read_for_topic` skips records",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back; a batch is always synced",
        synced: "files (`O_SYNC`), `SyncEach`: nothing",
        syncs: Syncs::Batches,
    };

    const FILL_BATCH: usize = 1;

    type Writer = Appender;
    type Reader = Reading;

    /// Where the files lie is told by `WALRUS_DATA_DIR`, which the process is started with.
    fn open(setup: &Setup) -> Result<Self> {
        let schedule = match setup.mode {
            Mode::Kill => {
                disable_fd_backend();
                FsyncSchedule::NoFsync
            }
            Mode::PowerCut => FsyncSchedule::SyncEach,
        };
        std::fs::create_dir_all(&setup.directory)?;
        let consistency = ReadConsistency::AtLeastOnce { persist_every: 1000 };
        Ok(Peered { walrus: Arc::new(Walrus::with_consistency_and_schedule(consistency, schedule)?) })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { walrus: Arc::clone(&self.walrus), names: topic_names() })
    }

    fn reader(&mut self) -> Result<Reading> {
        Ok(Reading { walrus: Arc::clone(&self.walrus), names: topic_names() })
    }

    /// One by one: a batch whose bytes end within the last sealed block goes on in the active one, and skips the rest.
    fn read_back(&mut self, see: &mut impl FnMut(&[u8])) -> Result<()> {
        while let Some(entry) = self.walrus.read_next(TOPIC, true)? {
            see(&entry.data);
        }
        Ok(())
    }
}

fn topic_names() -> Vec<String> {
    (0..crate::work::TOPICS).map(|topic| format!("topic-{topic}")).collect()
}

pub(crate) struct Appender {
    walrus: Arc<Walrus>,
    names: Vec<String>,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        Ok(self.walrus.append_for_topic(TOPIC, record)?)
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        Ok(self.walrus.batch_append_for_topic(TOPIC, records)?)
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        Ok(self.walrus.append_for_topic(&self.names[topic], record)?)
    }
}

pub(crate) struct Reading {
    walrus: Arc<Walrus>,
    names: Vec<String>,
}

impl Reading {
    fn read(&self, topic: &str, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let entries = self.walrus.batch_read_for_topic(topic, READ_BYTES, true)?;
        entries.iter().for_each(|entry| see(&entry.data));
        Ok(entries.len())
    }
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        self.read(TOPIC, see)
    }

    fn topic(&mut self, topic: usize, see: &mut impl FnMut(&[u8])) -> Result<()> {
        while self.read(&self.names[topic], see)? > 0 {}
        Ok(())
    }
}
