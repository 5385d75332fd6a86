//! Polling without a thread that waits: the same poll, as a future.
//!
//! A poll that blocks sleeps until its bell rings or its time is over. A future has nobody who sleeps: the bell wakes its
//! task, and for the time there is an alarm, which the background worker rings. So no runtime and no timer is needed but
//! what polls futures.
//!
//! While it waits, the consumer counts as polling only if its task is alive: the group hears of it whenever the executor
//! looks at the future, and it is woken often enough for that. A task that is never looked at again does not keep
//! partitions for ever, as a thread that is blocked in a poll never does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::consumer::Consumer;
use crate::consumer::fetching::{Look, Patience};
use crate::consumer::records::ConsumerRecords;
use crate::env::point::{self, What};
use crate::env::refusals::Call;
use crate::error::{Error, Result};

/// How often a waiting member is looked at within the longest time that it may take between two polls.
const LOOKS_PER_INTERVAL: u32 = 3;

impl Consumer {
    /// [`poll`](Self::poll) for async code: waits for records, up to `timeout`, without blocking the thread. It needs no
    /// runtime, and works in any.
    ///
    /// ```
    /// # fn main() -> tidelog::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let log = tidelog::EventLog::open(directory.path())?;
    /// # log.create_topic("orders", tidelog::TopicConfig::new())?;
    /// # log.producer().send(tidelog::ProducerRecord::new("orders", b"paid 12.50"))?.wait()?;
    /// use std::time::Duration;
    /// use tidelog::{Consumer, ConsumerConfig, OffsetReset, Result};
    ///
    /// async fn bill(consumer: &mut Consumer) -> Result<usize> {
    ///     let records = consumer.poll_async(Duration::from_secs(1)).await?;
    ///     for record in &records { /* charge(record).await */ }
    ///     consumer.commit_async(|_| {})?;
    ///     Ok(records.len())
    /// }
    ///
    /// let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    /// let mut consumer = log.consumer(config)?;
    /// consumer.subscribe(["orders"])?;
    /// # fn block_on<T>(future: impl Future<Output = T>) -> T {
    /// #     struct Thread(std::thread::Thread);
    /// #     impl std::task::Wake for Thread {
    /// #         fn wake(self: std::sync::Arc<Self>) { self.0.unpark() }
    /// #     }
    /// #     let waker = std::sync::Arc::new(Thread(std::thread::current())).into();
    /// #     let mut future = std::pin::pin!(future);
    /// #     loop {
    /// #         match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
    /// #             std::task::Poll::Ready(value) => return value,
    /// #             std::task::Poll::Pending => std::thread::park(),
    /// #         }
    /// #     }
    /// # }
    /// assert_eq!(block_on(bill(&mut consumer))?, 1); // or by tokio, smol, ..
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The future ends when there are records, when the time is over, and with the errors of a poll; it is woken also when
    /// the group assigns partitions anew, and when the log is closed. Nothing happens before it is awaited. To drop it
    /// early, in a `select!`, loses nothing: the positions move when it returns records, and not before.
    ///
    /// A member of a group stays one while the future waits, for as long as somebody polls it: what is held and not
    /// polled for [`max_poll_interval`](crate::ConsumerConfig::max_poll_interval) is out of its group, as a thread
    /// that is busy for so long.
    ///
    /// What it does besides waiting it does at once, in the thread that polls the future: it reads, makes an automatic commit
    /// that is due, calls the rebalance listener. [`spin`](crate::ConsumerConfig::spin) is for threads and means nothing
    /// here.
    ///
    /// The time is told by the background worker. Without it ([`LogConfig::background`](crate::LogConfig::background))
    /// somebody must call [`maintain`](crate::EventLog::maintain).
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll). [`InvalidState`](Error::InvalidState) in a log that is open for reading only: what another
    /// process writes wakes nobody here, so call `poll` in a thread that may block.
    pub fn poll_async(&mut self, timeout: Duration) -> PollRecords<'_> {
        PollRecords { consumer: self, patience: Patience::new(timeout), alarm: None, began: false }
    }
}

/// A poll that waits for records without blocking: see [`Consumer::poll_async`].
#[must_use = "a future does nothing until it is awaited"]
pub struct PollRecords<'a> {
    consumer: &'a mut Consumer,
    patience: Patience,
    /// When it is to be woken at the latest.
    alarm: Option<Duration>,
    began: bool,
}

impl fmt::Debug for PollRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PollRecords({:?}, {:?})", self.consumer, self.patience.timeout)
    }
}

impl Future for PollRecords<'_> {
    type Output = Result<ConsumerRecords>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(records) = this.begin().and_then(|()| this.look(context.waker())).transpose() else {
            return Poll::Pending;
        };
        point::note(|| What::Polled(records.as_ref().map_or(0, ConsumerRecords::len)));
        point::pass();
        Poll::Ready(records)
    }
}

impl PollRecords<'_> {
    fn begin(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.began, true) {
            point::reach(|| What::Poll);
            self.consumer.catalog.env().refusals.check(Call::Poll)?;
        }
        Ok(())
    }

    /// What there is; `None`: nothing yet, and `task` is woken when it is worth looking again.
    fn look(&mut self, task: &Waker) -> Result<Option<ConsumerRecords>> {
        self.expect_nothing();
        let consumer = &mut *self.consumer;
        consumer.check_can_poll()?;
        if consumer.catalog.is_read_only() {
            let reason =
                "nobody wakes a task when another process writes to the log; call poll in a thread that may block";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let _polling = consumer.polling();
        loop {
            let (seen, waited) = match consumer.look(&mut self.patience)? {
                Look::Found(records) => return Ok(Some(records)),
                Look::Nothing { seen, waited } => (seen, waited),
            };
            if consumer.listen() || !consumer.bell.wake_at_ring(seen, task) {
                continue;
            }
            let sign_of_life = consumer.max_poll_interval().map_or(Duration::MAX, |most| most / LOOKS_PER_INTERVAL);
            let longest = consumer.longest_wait(self.patience.timeout - waited).min(sign_of_life);
            let alarm = consumer.now().saturating_add(longest);
            consumer.member.set_alarm(alarm);
            self.alarm = Some(alarm);
            return Ok(None);
        }
    }

    /// Is not to be woken any more.
    fn expect_nothing(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            self.consumer.member.cancel_alarm(alarm);
            self.consumer.bell.forget_task();
        }
    }
}

impl Drop for PollRecords<'_> {
    fn drop(&mut self) {
        self.expect_nothing();
    }
}
