//! yaque: a queue on disk.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use yaque::{Receiver, Sender, TryRecvError};

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer, unsupported};

/// Records that one call receives.
const BATCH: usize = 500;

pub(crate) struct Peered {
    sender: Arc<Mutex<Sender>>,
    directory: PathBuf,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "yaque",
        mode: "`try_send`, which writes before it returns",
        kill_takes: "nothing sent, after `recovery::recover`; what was received may come again",
        power_cut_takes: "what the kernel had not written back",
        synced: "has no sync",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        if setup.mode == Mode::PowerCut {
            return unsupported("has no sync");
        }
        // After kill -9 the lock files of the dead are still there.
        if setup.directory.exists() {
            yaque::recovery::recover(&setup.directory)?;
        }
        let sender = Arc::new(Mutex::new(Sender::open(&setup.directory)?));
        Ok(Peered { sender, directory: setup.directory.clone() })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { sender: Arc::clone(&self.sender) })
    }

    fn reader(&mut self) -> Result<Reading> {
        Ok(Reading { receiver: Receiver::open(&self.directory)? })
    }
}

pub(crate) struct Appender {
    sender: Arc<Mutex<Sender>>,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.sender.lock().try_send(record).map_err(|error| error.unwrap_io())?;
        Ok(())
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.sender.lock().try_send_batch(records).map_err(|error| error.unwrap_io())?;
        Ok(())
    }
}

pub(crate) struct Reading {
    receiver: Receiver,
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        match self.receiver.try_recv_batch_up_to(BATCH) {
            Ok(records) => {
                records.iter().for_each(|record| see(record));
                let count = records.len();
                records.commit()?;
                Ok(count)
            }
            Err(TryRecvError::QueueEmpty) => Ok(0),
            Err(TryRecvError::Io(error)) => Err(error.into()),
        }
    }
}
