//! tidelog itself.

use std::time::Duration;

use tidelog::{
    Consumer, ConsumerConfig, ConsumerRecords, Durability, EventLog, OffsetReset, Producer, ProducerRecord,
    TopicConfig, TopicPartition,
};

use crate::peer::{About, Mode, Peer, Reader, Result, Setup, Syncs, Writer};

const TOPIC: &str = "bench";

pub(crate) struct Tidelog {
    log: EventLog,
    mode: Mode,
}

impl Peer for Tidelog {
    const ABOUT: About = About {
        package: "tidelog",
        mode: "`Durability::Os`",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "`Durability::Sync`, `send` and `wait`: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = Poller;

    fn open(setup: &Setup) -> Result<Self> {
        let log = EventLog::open(&setup.directory)?;
        if log.list_topics().is_empty() {
            let durability = match setup.mode {
                Mode::Kill => Durability::Os,
                Mode::PowerCut => Durability::Sync,
            };
            let partitions = u32::try_from(setup.topics.max(1))?;
            log.create_topic(TOPIC, TopicConfig::new().partitions(partitions).durability(durability))?;
        }
        Ok(Tidelog { log, mode: setup.mode })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { producer: self.log.producer(), mode: self.mode })
    }

    fn reader(&mut self) -> Result<Poller> {
        let consumer = |config: ConsumerConfig| -> Result<Consumer> {
            let mut consumer = self.log.consumer(config.auto_offset_reset(OffsetReset::Earliest))?;
            consumer.assign([TopicPartition::new(TOPIC, 0)])?;
            Ok(consumer)
        };
        Ok(Poller { all: consumer(ConsumerConfig::new())?, one: consumer(ConsumerConfig::new().max_poll_records(1))? })
    }
}

pub(crate) struct Appender {
    producer: Producer,
    mode: Mode,
}

impl Writer for Appender {
    #[inline]
    fn append(&mut self, record: &[u8]) -> Result<()> {
        let delivery = self.producer.send(ProducerRecord::new(TOPIC, record))?;
        if self.mode == Mode::PowerCut {
            delivery.wait()?;
        }
        Ok(())
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let delivery = self.producer.send_batch(records.iter().map(|record| ProducerRecord::new(TOPIC, *record)))?;
        if self.mode == Mode::PowerCut {
            delivery.wait()?;
        }
        Ok(())
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        self.producer.send(ProducerRecord::new(TOPIC, record).partition(u32::try_from(topic)?))?;
        Ok(())
    }
}

pub(crate) struct Poller {
    /// Reads in order, as many records at a time as a consumer does unless told otherwise.
    all: Consumer,
    /// Reads single records.
    one: Consumer,
}

impl Poller {
    fn hand_on(records: &ConsumerRecords, see: &mut impl FnMut(&[u8])) -> usize {
        for record in records {
            see(record.value().unwrap_or_default());
        }
        records.len()
    }
}

impl Reader for Poller {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        Ok(Self::hand_on(&self.all.poll(Duration::ZERO)?, see))
    }

    fn next_or_wait(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        Ok(Self::hand_on(&self.all.poll(Duration::from_millis(100))?, see))
    }

    fn rewind(&mut self) -> Result<()> {
        Ok(self.all.seek_to_beginning(&[])?)
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        self.one.seek(&TopicPartition::new(TOPIC, 0), number)?;
        Self::hand_on(&self.one.poll(Duration::ZERO)?, see);
        Ok(())
    }

    fn topic(&mut self, topic: usize, see: &mut impl FnMut(&[u8])) -> Result<()> {
        self.all.assign([TopicPartition::new(TOPIC, u32::try_from(topic)?)])?;
        self.all.seek_to_beginning(&[])?;
        while self.next(see)? > 0 {}
        Ok(())
    }
}
