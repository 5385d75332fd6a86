//! kafko: topics and partitions in process, on tokio.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafko::{Consumer, Kafko, LogConfig, Producer, Record, Topic};
use tokio::runtime::{Builder, Runtime};

use crate::peer::{About, Failure, Mode, Peer, Reader, Result, Setup, Syncs, Writer};

const TOPIC: &str = "bench";

pub(crate) struct Peered {
    runtime: Arc<Runtime>,
    broker: Kafko,
    setup: Setup,
}

impl Peered {
    fn topic(&self) -> Result<Arc<Topic>> {
        self.runtime.block_on(self.broker.topic(TOPIC)).ok_or_else(|| "the topic is gone".into())
    }
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "kafko",
        mode: "`send().await`, which writes before it returns",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "`send().await`, then `Partition::sync().await`: nothing, but a directory is never synced",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Reading;

    fn open(setup: &Setup) -> Result<Self> {
        let runtime = Arc::new(Builder::new_multi_thread().enable_all().build()?);
        // A read of one record reads its segment to the end, so that a segment of the default 1 GiB cannot be read.
        let config = LogConfig { segment_size_threshold: 8 << 20, ..LogConfig::default() };
        let partitions = u32::try_from(setup.topics.max(1))?;
        let broker = runtime.block_on(async {
            let broker = Kafko::open_with_config(&setup.directory, config).await?;
            if !broker.has_topic(TOPIC).await {
                broker.create_topic_with_partitions(TOPIC, partitions).await?;
            }
            Ok::<_, kafko::KafkoError>(broker)
        })?;
        Ok(Peered { runtime, broker, setup: setup.clone() })
    }

    fn writer(&mut self) -> Result<Appender> {
        let producer = self.runtime.block_on(self.broker.producer_for(TOPIC))?;
        Ok(Appender { runtime: Arc::clone(&self.runtime), producer, topic: self.topic()?, mode: self.setup.mode })
    }

    fn reader(&mut self) -> Result<Reading> {
        let consumer = self.runtime.block_on(self.broker.consumer_for(TOPIC))?;
        Ok(Reading { runtime: Arc::clone(&self.runtime), consumer, topic: self.topic()? })
    }

    /// With kafko's own decoder over the segment files: its consumer would need hours.
    fn read_back(&mut self, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut segments = segments(&self.setup.directory)?;
        segments.sort();
        for segment in segments {
            let bytes = fs::read(segment)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                see(Record::decode(&mut rest)?.value());
            }
        }
        Ok(())
    }
}

/// Every segment file below `directory`.
fn segments(directory: &PathBuf) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(segments(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    Ok(found)
}

pub(crate) struct Appender {
    runtime: Arc<Runtime>,
    producer: Producer,
    topic: Arc<Topic>,
    mode: Mode,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.runtime.block_on(async {
            let position = self.producer.send(None, Bytes::copy_from_slice(record)).await?;
            if self.mode == Mode::PowerCut {
                let partition = self.topic.partition(position.partition()).ok_or("the partition is gone")?;
                partition.sync().await?;
            }
            Ok(())
        })
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let records = records.iter().map(|record| (None, Bytes::copy_from_slice(record))).collect();
        self.runtime.block_on(self.producer.send_batch(records))?;
        Ok(())
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        let partition = self.topic.partition(u32::try_from(topic)?).ok_or("there is no such partition")?;
        self.runtime.block_on(partition.append(Record::new(0, None, Bytes::copy_from_slice(record))))?;
        Ok(())
    }
}

pub(crate) struct Reading {
    runtime: Arc<Runtime>,
    consumer: Consumer,
    topic: Arc<Topic>,
}

impl Reading {
    fn read_at(&self, partition: usize, offset: u64) -> Result<Option<Record>> {
        let partition = self.topic.partition(u32::try_from(partition)?).ok_or("there is no such partition")?;
        Ok(self.runtime.block_on(partition.read_record_at(offset))?)
    }
}

impl Reader for Reading {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let end = self.topic.partition(0).ok_or("there is no such partition")?.high_water_mark();
        if self.consumer.position(0) >= end {
            return Ok(0);
        }
        see(self.runtime.block_on(self.consumer.next_record())?.value());
        Ok(1)
    }

    fn next_or_wait(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let record = self.runtime.block_on(async {
            match tokio::time::timeout(Duration::from_millis(100), self.consumer.next_record()).await {
                Ok(record) => record.map(Some).map_err(Failure::from),
                Err(_) => Ok(None),
            }
        })?;
        Ok(record.map_or(0, |record| {
            see(record.value());
            1
        }))
    }

    fn rewind(&mut self) -> Result<()> {
        self.consumer.seek_all(0);
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let record = self.read_at(0, number)?.ok_or("there is no such record")?;
        see(record.value());
        Ok(())
    }

    fn topic(&mut self, topic: usize, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut offset = 0;
        while let Some(record) = self.read_at(topic, offset)? {
            see(record.value());
            offset += 1;
        }
        Ok(())
    }
}
