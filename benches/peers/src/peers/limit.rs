//! The machine's own limit: the obvious loop of `benches/limit`, over the same records.
//!
//! It copies each record or batch with a small header and a CRC-32 into a mapped file whose space is allocated, and reads
//! by walking over it. No lock, no offset to hand out, no recovery, no second file. Synced, it writes the same bytes to
//! a file whose blocks were all written before, and calls `fdatasync`.

use std::fs::File;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::MmapMut;
use parking_lot::Mutex;

use crate::limit::{Shape, mapped_in, put, walk_over};
use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer, unsupported};

pub(crate) struct Limit {
    shape: Shape,
    mode: Mode,
    directory: PathBuf,
    room: usize,
    /// The file while nobody has it: the writer first, then the reader.
    written: Arc<Mutex<Written>>,
}

/// What was written, and where the next batch goes.
#[derive(Default)]
struct Written {
    map: Option<MmapMut>,
    file: Option<File>,
    position: usize,
    records: u64,
}

impl Peer for Limit {
    const ABOUT: About = About {
        package: "limit",
        mode: "a copy and a CRC-32 into a mapped file, no log",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "`write` and `fdatasync`, no log: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Walker;

    fn open(setup: &Setup) -> Result<Self> {
        if setup.topics > 0 {
            return unsupported("one file, no topics");
        }
        std::fs::create_dir_all(&setup.directory)?;
        let shape = Shape { record_bytes: setup.record_bytes, records_per_batch: setup.records_per_batch };
        let room = setup.records.div_ceil(setup.records_per_batch) * shape.batch_bytes();
        let mut written = Written::default();
        match setup.mode {
            Mode::Kill => written.map = Some(mapped_in(&setup.directory, room)),
            Mode::PowerCut => {
                let file = tempfile::tempfile_in(&setup.directory)?;
                file.write_all_at(&vec![0; room], 0)?;
                file.sync_all()?;
                written.file = Some(file);
            }
        }
        let written = Arc::new(Mutex::new(written));
        Ok(Limit { shape, mode: setup.mode, directory: setup.directory.clone(), room, written })
    }

    fn writer(&mut self) -> Result<Appender> {
        let written = mem::take(&mut *self.written.lock());
        if written.map.is_none() && written.file.is_none() {
            return unsupported("one writer");
        }
        let bytes = vec![0; self.shape.batch_bytes()];
        Ok(Appender { shape: self.shape, bytes, written, back: Arc::clone(&self.written) })
    }

    fn reader(&mut self) -> Result<Walker> {
        let mut written = mem::take(&mut *self.written.lock());
        if let (Mode::PowerCut, Some(file)) = (self.mode, &written.file) {
            let mut map = mapped_in(&self.directory, self.room);
            file.read_exact_at(&mut map, 0)?;
            written.map = Some(map);
        }
        match written.map {
            Some(_) if written.records == 0 => unsupported("its file has no name: it cannot be opened again"),
            Some(map) => Ok(Walker { shape: self.shape, map, done: false }),
            None => unsupported("written first, then read"),
        }
    }
}

pub(crate) struct Appender {
    shape: Shape,
    /// A batch on its way to a file that is not mapped.
    bytes: Vec<u8>,
    written: Written,
    back: Arc<Mutex<Written>>,
}

impl Writer for Appender {
    #[inline]
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_batch(&[record])
    }

    #[inline]
    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let Written { map, file, position, records: first } = &mut self.written;
        let end = *position + self.shape.batch_bytes();
        if let Some(map) = map {
            put(&mut map[*position..end], self.shape, *first, records.iter().copied());
        } else if let Some(file) = file {
            put(&mut self.bytes, self.shape, *first, records.iter().copied());
            file.write_all_at(&self.bytes, *position as u64)?;
            file.sync_data()?;
        }
        *position = end;
        *first += records.len() as u64;
        Ok(())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        *self.back.lock() = mem::take(&mut self.written);
    }
}

pub(crate) struct Walker {
    shape: Shape,
    map: MmapMut,
    done: bool,
}

impl Reader for Walker {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        if mem::replace(&mut self.done, true) {
            return Ok(0);
        }
        let (records, _) = walk_over(&self.map, self.shape, |record| {
            see(record);
            0
        });
        Ok(records)
    }

    fn rewind(&mut self) -> Result<()> {
        self.done = false;
        Ok(())
    }
}
