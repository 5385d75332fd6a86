//! walrus: a write-ahead log with topics.

use std::sync::Arc;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus, disable_fd_backend};

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer};

const TOPIC: &str = "bench";

/// Records that one read brings at most, and bytes in front of each.
const READ_BATCH: usize = 2000;
const HEADER_BYTES: usize = 64;

pub(crate) struct Peered {
    walrus: Arc<Walrus>,
    /// Bytes that one read may bring: so many that its number of records ends it. One that its bytes end within the last
    /// sealed block goes on in the active one, and skips the rest. (`read_next`, at the end, writes a file each time.)
    read_bytes: usize,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "walrus-rust",
        mode: "mapped files, `NoFsync`; read with a limit of bytes at which `batch_read_for_topic` skips none",
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
        let walrus = Arc::new(Walrus::with_consistency_and_schedule(consistency, schedule)?);
        Ok(Peered { walrus, read_bytes: READ_BATCH * (HEADER_BYTES + setup.record_bytes) })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { walrus: Arc::clone(&self.walrus), names: topic_names() })
    }

    fn reader(&mut self) -> Result<Reading> {
        Ok(Reading { walrus: Arc::clone(&self.walrus), names: topic_names(), read_bytes: self.read_bytes })
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
    read_bytes: usize,
}

impl Reading {
    fn read(&self, topic: &str, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let entries = self.walrus.batch_read_for_topic(topic, self.read_bytes, true)?;
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
