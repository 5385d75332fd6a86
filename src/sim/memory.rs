//! A log in memory, and what a test does to it: the first step, before a whole simulation.
//!
//! Log, consumers and groups are the real ones. What Kafka's `MockConsumer` is told to pretend, really happens here.

use std::time::Duration;

use crate::config::{ConsumerConfig, LogConfig};
use crate::env::refusals::Call;
use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::sim::machine::Machine;
use crate::types::Timestamp;

/// What a test does to a log [in memory](EventLog::in_memory): time, and things that go wrong.
#[derive(Debug)]
pub struct Controls {
    machine: Machine,
    log: EventLog,
}

impl EventLog {
    /// Opens a new log in memory, for tests: nothing touches the disk, and the clock moves when it is told to or when
    /// everybody waits, so a `poll` that finds nothing returns at once. It is for one thread: a second one that waits panics.
    ///
    /// ```
    /// # fn main() -> tidelog::Result<()> {
    /// use std::time::Duration;
    /// use tidelog::{ConsumerConfig, Error, EventLog, OffsetReset, ProducerRecord, TopicConfig};
    ///
    /// let (log, controls) = EventLog::in_memory()?;
    /// log.create_topic("orders", TopicConfig::new())?;
    /// log.producer().send(ProducerRecord::new("orders", b"paid 12.50"))?;
    /// let mut consumer = log.consumer(ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest))?;
    /// consumer.subscribe(["orders"])?;
    /// assert_eq!(consumer.poll(Duration::from_secs(1))?.len(), 1);
    ///
    /// controls.fail_next_commit(Error::Timeout { waited: Duration::from_secs(60) });
    /// assert!(consumer.commit().is_err());
    /// assert!(consumer.commit().is_ok());
    ///
    /// controls.advance(Duration::from_secs(3600));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// None that a test could meet.
    pub fn in_memory() -> Result<(EventLog, Controls)> {
        let machine = Machine::new(0);
        let log = machine.open(LogConfig::new())?;
        Ok((log.clone(), Controls { machine, log }))
    }
}

impl Controls {
    /// Time goes by, and what the log has to do in time is done.
    pub fn advance(&self, time: Duration) {
        self.machine.sleep(time);
    }

    /// What the wall clock shows.
    pub fn now(&self) -> Timestamp {
        self.machine.now()
    }

    /// Sets the wall clock.
    pub fn set_wall_clock(&self, now: Timestamp) {
        self.machine.set_wall_clock(now);
    }

    /// The next commit fails with this, and commits nothing. Kafka's `MockConsumer`: `setCommitException`.
    pub fn fail_next_commit(&self, error: Error) {
        self.machine.refuse(Call::Commit, error);
    }

    /// The next poll fails with this, and moves no position. Kafka's `MockConsumer`: `setPollException`.
    pub fn fail_next_poll(&self, error: Error) {
        self.machine.refuse(Call::Poll, error);
    }

    /// The next send fails with this, and writes nothing. Kafka's `MockProducer`: `sendException`.
    pub fn fail_next_send(&self, error: Error) {
        self.machine.refuse(Call::Send, error);
    }

    /// Another member joins the group and leaves it again, so that the group gives its partitions out anew: what the others
    /// find out in their next poll. Kafka's `MockConsumer`: `rebalance`.
    ///
    /// # Errors
    ///
    /// As [`EventLog::consumer`], [`subscribe`](crate::Consumer::subscribe) and [`poll`](crate::Consumer::poll).
    pub fn rebalance(&self, group: &str, topic: &str) -> Result<()> {
        let mut other = self.log.consumer(ConsumerConfig::group(group).auto_commit(false))?;
        other.subscribe([topic])?;
        other.poll(Duration::ZERO).map(drop)
    }

    /// The machine that the log lies on: for power cuts, and faults of the disk.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}
