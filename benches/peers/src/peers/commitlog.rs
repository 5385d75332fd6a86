//! commitlog: segments and an index of every record, in the style of early Kafka.

use std::sync::Arc;

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};
use parking_lot::RwLock;

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer, unsupported};

/// Bytes that one read may bring.
const READ_BYTES: usize = 1 << 20;

pub(crate) struct Peered {
    log: Arc<RwLock<CommitLog>>,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "commitlog",
        mode: "`append`, which writes before it returns",
        kill_takes: "nothing, but a tail that was half written stays, and to read it is an error",
        power_cut_takes: "what the kernel had not written back, and the log may not open again",
        synced: "has no sync: `flush` does not reach the disk",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        if setup.mode == Mode::PowerCut {
            return unsupported("has no sync: `flush` does not reach the disk");
        }
        let mut options = LogOptions::new(&setup.directory);
        // An index holds every record of its segment, and a full one is doubled and mapped anew.
        options.index_max_items(10_000_000);
        Ok(Peered { log: Arc::new(RwLock::new(CommitLog::new(options)?)) })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { log: Arc::clone(&self.log), buffer: MessageBuf::default() })
    }

    fn reader(&mut self) -> Result<Reading> {
        Ok(Reading { log: Arc::clone(&self.log), next: 0 })
    }
}

pub(crate) struct Appender {
    log: Arc<RwLock<CommitLog>>,
    buffer: MessageBuf,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_batch(&[record])
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.buffer.clear();
        for record in records {
            self.buffer.push(record).map_err(|error| format!("{error:?}"))?;
        }
        self.log.write().append(&mut self.buffer)?;
        Ok(())
    }
}

pub(crate) struct Reading {
    log: Arc<RwLock<CommitLog>>,
    next: u64,
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let messages = self.log.read().read(self.next, ReadLimit::max_bytes(READ_BYTES))?;
        let mut count = 0;
        for message in messages.iter() {
            see(message.payload());
            self.next = message.offset() + 1;
            count += 1;
        }
        Ok(count)
    }

    fn rewind(&mut self) -> Result<()> {
        self.next = 0;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        // The least that surely holds one record of a hundred bytes.
        let messages = self.log.read().read(number, ReadLimit::max_bytes(256))?;
        see(messages.iter().next().ok_or("there is no such record")?.payload());
        Ok(())
    }
}
