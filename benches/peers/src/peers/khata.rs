//! khata-rs: a queue in mapped files, after Chronicle Queue.

use khata_rs::{Queue, Reader as QueueReader, Writer as QueueWriter};

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer, unsupported};

/// Bytes in front of each record, and some for the file's own header.
const HEADER_BYTES: usize = 16;

pub(crate) struct Peered {
    /// Lives as long as the process: writers and readers borrow it.
    queue: &'static Queue,
    mode: Mode,
    /// Opened with the queue: without one, a reader does not find the file of the day, whose name it cannot parse.
    writer: Option<QueueWriter<'static>>,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "khata-rs",
        mode: "mapped files, a CRC-16",
        kill_takes: "nothing, but a reader finds what is there only beside a writer",
        power_cut_takes: "what the kernel had not written back",
        synced: "`write`, then `flush`: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        // A file does not grow: it must have room for a day.
        let room = setup.records * (setup.record_bytes + HEADER_BYTES) + (1 << 20);
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(&setup.directory).block_size(room).build()?));
        Ok(Peered { queue, mode: setup.mode, writer: Some(queue.writer()?) })
    }

    fn writer(&mut self) -> Result<Appender> {
        match self.writer.take() {
            Some(writer) => Ok(Appender { writer, mode: self.mode }),
            None => unsupported("one writer"),
        }
    }

    fn reader(&mut self) -> Result<Reading> {
        Ok(Reading { queue: self.queue, reader: self.queue.reader()? })
    }
}

pub(crate) struct Appender {
    writer: QueueWriter<'static>,
    mode: Mode,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.writer.write(record)?;
        if self.mode == Mode::PowerCut {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// It has no batches.
    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        for record in records {
            self.writer.write(record)?;
        }
        if self.mode == Mode::PowerCut {
            self.writer.flush()?;
        }
        Ok(())
    }
}

pub(crate) struct Reading {
    queue: &'static Queue,
    reader: QueueReader<'static>,
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let mut count = 0;
        while count < crate::peers::CHUNK {
            let Some(record) = self.reader.read()? else { break };
            see(record);
            count += 1;
        }
        Ok(count)
    }

    fn rewind(&mut self) -> Result<()> {
        self.reader.rewind()?;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let cycle = self.queue.first_cycle().ok_or("the queue is empty")?;
        self.reader.seek(self.queue.roll_cycle().to_index(cycle, number))?;
        see(self.reader.read()?.ok_or("there is no such record")?);
        Ok(())
    }
}
