//! nano-wal: a file to append to. Where a record lies is for the caller to remember, as it is here.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nano_wal::{ReadDescriptor, Wal, WalOptions, WriteEntry, read_batch};
use parking_lot::Mutex;

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer, unsupported};

/// Records that one read brings.
const READ_BATCH: usize = 500;

#[derive(Clone)]
struct Place {
    file: Arc<OwnedFd>,
    position: u64,
    bytes: usize,
}

impl Place {
    fn descriptor(&self) -> ReadDescriptor {
        ReadDescriptor { read_fd: Arc::clone(&self.file), file_offset: self.position, byte_size: self.bytes }
    }
}

pub(crate) struct Peered {
    wal: Arc<Wal>,
    mode: Mode,
    now: i64,
    places: Arc<Mutex<Vec<Place>>>,
    reopened: bool,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "nano-wal",
        mode: "`append`, which writes before it returns",
        kill_takes: "no byte, but nothing says where the records are",
        power_cut_takes: "what the kernel had not written back",
        synced: "`append` with `durable`: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        let reopened = setup.directory.exists();
        let day = Duration::from_secs(24 * 3600);
        let wal = Wal::new(&setup.directory, "bench", WalOptions { retention: day, segment_duration: day })?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        Ok(Peered { wal: Arc::new(wal), mode: setup.mode, now, places: Arc::default(), reopened })
    }

    fn writer(&mut self) -> Result<Appender> {
        let file = Arc::clone(self.wal.ensure_segment(self.now)?.read_fd());
        let durable = self.mode == Mode::PowerCut;
        Ok(Appender { wal: Arc::clone(&self.wal), durable, now: self.now, file, places: Arc::clone(&self.places) })
    }

    fn reader(&mut self) -> Result<Reading> {
        if self.reopened {
            return unsupported("cannot find its records again: their places must be kept elsewhere");
        }
        Ok(Reading { places: Arc::clone(&self.places), at: 0 })
    }
}

pub(crate) struct Appender {
    wal: Arc<Wal>,
    durable: bool,
    now: i64,
    file: Arc<OwnedFd>,
    places: Arc<Mutex<Vec<Place>>>,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        let entry = self.wal.append(None, record, self.now, self.durable)?;
        let file = Arc::clone(&self.file);
        self.places.lock().push(Place { file, position: entry.file_offset, bytes: entry.byte_size });
        Ok(())
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let entries: Vec<_> = records.iter().map(|record| WriteEntry { header: None, content: record }).collect();
        let entries = self.wal.append_batch(&entries, self.now, self.durable)?;
        let place = |entry: nano_wal::EntryRef| Place {
            file: Arc::clone(&self.file),
            position: entry.file_offset,
            bytes: entry.byte_size,
        };
        self.places.lock().extend(entries.into_iter().map(place));
        Ok(())
    }
}

pub(crate) struct Reading {
    places: Arc<Mutex<Vec<Place>>>,
    at: usize,
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let descriptors: Vec<_> =
            self.places.lock().iter().skip(self.at).take(READ_BATCH).map(Place::descriptor).collect();
        let records = read_batch(&descriptors)?;
        records.iter().for_each(|record| see(&record.content));
        self.at += records.len();
        Ok(records.len())
    }

    fn rewind(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let descriptor =
            self.places.lock().get(usize::try_from(number)?).ok_or("there is no such record")?.descriptor();
        read_batch(&[descriptor])?.iter().for_each(|record| see(&record.content));
        Ok(())
    }
}
