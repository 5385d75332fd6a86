//! seglog: one segment file of a fixed size. Where a record lies is for the caller to remember, as it is here.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use seglog::FlushedOffset;
use seglog::read::{ReadHint, Reader as SegmentReader};
use seglog::write::Writer as SegmentWriter;

use crate::peer::{About, Peer, Reader, Result, Setup, Syncs, Writer};
use crate::peers::CHUNK;

/// Bytes of a record's header, and of the marker behind a batch, with some room to spare.
const OVERHEAD_BYTES: usize = 32;

pub(crate) struct Peered {
    file: PathBuf,
    segment: Arc<Mutex<Segment>>,
    committed: FlushedOffset,
    places: Arc<Mutex<Vec<u64>>>,
}

struct Segment {
    writer: SegmentWriter<0>,
    next: u64,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "seglog",
        mode: "`append_batch`, whose commit marker is synced; without the marker the records are rolled back",
        kill_takes: "nothing",
        power_cut_takes: "nothing: it syncs each commit",
        synced: "the same: nothing",
        syncs: Syncs::Always,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        let room = setup.records * (setup.record_bytes + OVERHEAD_BYTES) + (1 << 20);
        let file = setup.directory.join("segment.log");
        let writer = if file.exists() {
            SegmentWriter::open(&file, room, 0)?
        } else {
            std::fs::create_dir_all(&setup.directory)?;
            SegmentWriter::create(&file, room, 0)?
        };
        let committed = writer.flushed_offset();
        let next = writer.last_committed_position().map_or(0, |last| last + 1);
        let segment = Arc::new(Mutex::new(Segment { writer, next }));
        Ok(Peered { file, segment, committed, places: Arc::default() })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { segment: Arc::clone(&self.segment), places: Arc::clone(&self.places) })
    }

    fn reader(&mut self) -> Result<Reading> {
        let reader = SegmentReader::open_read_only(&self.file, Some(self.committed.clone()))?;
        Ok(Reading { reader, at: 0, places: Arc::clone(&self.places) })
    }
}

pub(crate) struct Appender {
    segment: Arc<Mutex<Segment>>,
    places: Arc<Mutex<Vec<u64>>>,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_batch(&[record])
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut segment = self.segment.lock();
        let mut places = self.places.lock();
        for record in records {
            places.push(segment.writer.append_data(record)?.0);
        }
        segment.next += records.len() as u64;
        let last = segment.next - 1;
        segment.writer.commit(last)?;
        Ok(())
    }
}

pub(crate) struct Reading {
    reader: SegmentReader<0>,
    at: u64,
    places: Arc<Mutex<Vec<u64>>>,
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let mut records = self.reader.iter(self.at);
        let mut count = 0;
        let mut end = self.at;
        while count < CHUNK {
            let Some(record) = records.next_record()? else { break };
            see(&record.data);
            end = record.offset + record.len as u64;
            count += 1;
        }
        self.at = end;
        Ok(count)
    }

    fn rewind(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let place = self.places.lock().get(usize::try_from(number)?).copied();
        let place = place.ok_or("there is no such record")?;
        see(&self.reader.read_record(place, ReadHint::Random)?.data);
        Ok(())
    }
}
