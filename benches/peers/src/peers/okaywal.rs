//! okaywal: a write-ahead log with entries of chunks. Where a chunk lies is for the caller to remember, as it is here.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::sync::Arc;

use okaywal::{Configuration, Entry, EntryId, LogManager, LogPosition, SegmentReader, WriteAheadLog};
use parking_lot::Mutex;

use crate::peer::{About, Peer, Reader, Result, Setup, Syncs, Writer, unsupported};

/// Records that one call hands on.
const BATCH: usize = 500;

type Places = Arc<Mutex<Vec<LogPosition>>>;
type Recovered = Arc<Mutex<VecDeque<Vec<u8>>>>;

pub(crate) struct Peered {
    wal: WriteAheadLog,
    places: Places,
    recovered: Recovered,
}

/// Takes what a log hands over when it is opened, and gives nothing up.
#[derive(Debug)]
struct Recovering {
    recovered: Recovered,
}

impl LogManager for Recovering {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        // None: the entry was not written to its end.
        if let Some(records) = entry.read_all_chunks()? {
            self.recovered.lock().extend(records);
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "okaywal",
        mode: "`commit`, which syncs, one sync for all who write",
        kill_takes: "nothing; what is found when it is opened is handed over once",
        power_cut_takes: "nothing: it syncs each entry",
        synced: "the same: nothing",
        syncs: Syncs::Always,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        let recovered = Recovered::default();
        // A checkpoint gives the records up.
        let config = Configuration::default_for(&setup.directory).checkpoint_after_bytes(u64::MAX);
        let wal = config.open(Recovering { recovered: Arc::clone(&recovered) })?;
        Ok(Peered { wal, places: Places::default(), recovered })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { wal: self.wal.clone(), places: Arc::clone(&self.places) })
    }

    fn reader(&mut self) -> Result<Reading> {
        let (places, recovered) = (Arc::clone(&self.places), Arc::clone(&self.recovered));
        Ok(Reading { wal: self.wal.clone(), places, recovered, at: 0, record: Vec::new() })
    }
}

pub(crate) struct Appender {
    wal: WriteAheadLog,
    places: Places,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_batch(&[record])
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut entry = self.wal.begin_entry()?;
        let written: io::Result<Vec<_>> =
            records.iter().map(|record| Ok(entry.write_chunk(record)?.position)).collect();
        let written = written?;
        entry.commit()?;
        self.places.lock().extend(written);
        Ok(())
    }
}

pub(crate) struct Reading {
    wal: WriteAheadLog,
    places: Places,
    recovered: Recovered,
    at: usize,
    record: Vec<u8>,
}

impl Reading {
    fn read(&mut self, place: LogPosition, see: &mut impl FnMut(&[u8])) -> Result<()> {
        self.record.clear();
        self.wal.read_at(place)?.read_to_end(&mut self.record)?;
        see(&self.record);
        Ok(())
    }
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let recovered: Vec<_> = {
            let mut all = self.recovered.lock();
            let count = all.len().min(BATCH);
            all.drain(..count).collect()
        };
        if !recovered.is_empty() {
            recovered.iter().for_each(|record| see(record));
            return Ok(recovered.len());
        }
        let places: Vec<_> = self.places.lock().iter().skip(self.at).take(BATCH).copied().collect();
        for place in &places {
            self.read(*place, see)?;
        }
        self.at += places.len();
        Ok(places.len())
    }

    fn rewind(&mut self) -> Result<()> {
        if self.places.lock().is_empty() {
            return unsupported("what was recovered is handed over once");
        }
        self.at = 0;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let place = self.places.lock().get(usize::try_from(number)?).copied();
        self.read(place.ok_or("there is no such record")?, see)
    }
}
