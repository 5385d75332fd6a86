//! mrecordlog: many queues in one log, all of them in memory too; on tokio.

use std::sync::Arc;

use mrecordlog::error::MissingQueue;
use mrecordlog::{MultiRecordLog, SyncPolicy};
use parking_lot::RwLock;
use tokio::runtime::{Builder, Runtime};

use crate::peer::{About, Mode, Peer, Result, Setup, Syncs, Writer, unsupported};
use crate::peers::{CHUNK, InOrder, Numbered};

pub(crate) struct Peered {
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    runtime: Arc<Runtime>,
    log: Arc<RwLock<MultiRecordLog>>,
    queues: Arc<Vec<String>>,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "mrecordlog",
        mode: "`SyncPolicy::OnAppend`, which writes before it returns; all records in memory too",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "has no sync: its own does not reach the disk",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = InOrder<Reading>;

    fn open(setup: &Setup) -> Result<Self> {
        if setup.mode == Mode::PowerCut {
            return unsupported("has no sync: its own does not reach the disk");
        }
        std::fs::create_dir_all(&setup.directory)?;
        let runtime = Arc::new(Builder::new_multi_thread().enable_all().build()?);
        let queues: Vec<String> = (0..setup.topics.max(1)).map(|topic| format!("queue-{topic}")).collect();
        let log = runtime.block_on(async {
            let mut log = MultiRecordLog::open_with_prefs(&setup.directory, SyncPolicy::OnAppend).await?;
            for queue in &queues {
                if !log.queue_exists(queue) {
                    log.create_queue(queue).await?;
                }
            }
            Result::Ok(log)
        })?;
        Ok(Peered { shared: Shared { runtime, log: Arc::new(RwLock::new(log)), queues: Arc::new(queues) } })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { shared: self.shared.clone() })
    }

    fn reader(&mut self) -> Result<InOrder<Reading>> {
        Ok(InOrder::new(Reading { shared: self.shared.clone() }))
    }
}

pub(crate) struct Appender {
    shared: Shared,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_to(0, record)
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let Shared { runtime, log, queues } = &self.shared;
        runtime.block_on(log.write().append_records(&queues[0], None, records.iter().copied()))?;
        Ok(())
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        let Shared { runtime, log, queues } = &self.shared;
        runtime.block_on(log.write().append_record(&queues[topic], None, record))?;
        Ok(())
    }
}

pub(crate) struct Reading {
    shared: Shared,
}

/// An error of theirs that is none of the standard library's.
fn gone(queue: MissingQueue) -> String {
    format!("{queue:?}")
}

impl Numbered for Reading {
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let log = self.shared.log.read();
        let mut count = 0;
        let range = from..from + CHUNK as u64;
        for (_, record) in log.range(&self.shared.queues[topic], range).map_err(gone)? {
            see(&record);
            count += 1;
        }
        Ok(count)
    }

    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let log = self.shared.log.read();
        let mut records = log.range(&self.shared.queues[0], number..=number).map_err(gone)?;
        see(&records.next().ok_or("there is no such record")?.1);
        Ok(())
    }
}
