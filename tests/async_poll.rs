//! Polls that are awaited: what wakes their task, when they end, what dropping them costs. No runtime is there but what
//! each test makes of a waker that counts.
#![cfg(feature = "sim")]

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, ConsumerRecords, Error, EventLog, LogConfig, OffsetReset, PollRecords, ProducerRecord,
    Result, TopicConfig, TopicPartition,
};

const LONG: Duration = Duration::from_secs(3600);

/// Counts how often a task is woken.
#[derive(Default)]
struct Task {
    woken: AtomicUsize,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

impl Task {
    fn new() -> Arc<Task> {
        Arc::default()
    }

    fn woken(&self) -> usize {
        self.woken.load(Ordering::SeqCst)
    }

    fn poll(self: &Arc<Self>, future: Pin<&mut PollRecords<'_>>) -> Poll<Result<ConsumerRecords>> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A log with a topic of two partitions, and its background worker.
fn log() -> (Machine, EventLog) {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new()).unwrap();
    log.create_topic("topic", TopicConfig::new().partitions(2)).unwrap();
    (machine, log)
}

fn member(log: &EventLog) -> Consumer {
    let config = ConsumerConfig::group("group").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["topic"]).unwrap();
    consumer
}

fn send(log: &EventLog, partition: u32) {
    let record = ProducerRecord::new("topic", b"value").partition(partition);
    log.producer().send(record).unwrap().wait().unwrap();
}

fn length(polled: Poll<Result<ConsumerRecords>>) -> usize {
    match polled {
        Poll::Ready(records) => records.unwrap().len(),
        Poll::Pending => panic!("it still waits"),
    }
}

#[test]
fn a_record_wakes_who_awaits_one() {
    let (_machine, log) = log();
    let (mut consumer, task) = (member(&log), Task::new());
    let mut future = Box::pin(consumer.poll_async(LONG));
    assert!(task.poll(future.as_mut()).is_pending());
    assert_eq!(task.woken(), 0);

    send(&log, 1);

    assert_eq!(task.woken(), 1);
    assert_eq!(length(task.poll(future.as_mut())), 1);
    drop(future);
    assert_eq!(consumer.position(&TopicPartition::new("topic", 1)).unwrap().get(), 1);
}

#[test]
fn what_is_there_already_is_returned_at_once() {
    let (_machine, log) = log();
    send(&log, 0);
    let (mut consumer, task) = (member(&log), Task::new());

    assert_eq!(length(task.poll(pin!(consumer.poll_async(LONG)))), 1);
    assert_eq!(length(task.poll(pin!(consumer.poll_async(Duration::ZERO)))), 0);
    assert_eq!(task.woken(), 0);
}

#[test]
fn the_time_is_over_by_the_clock_of_the_log() {
    let (machine, log) = log();
    let (mut consumer, task) = (member(&log), Task::new());
    let mut future = pin!(consumer.poll_async(millis(100)));
    assert!(task.poll(future.as_mut()).is_pending());

    machine.sleep(millis(99));
    assert_eq!(task.woken(), 0);
    machine.sleep(millis(1));
    machine.settle();

    assert_eq!(task.woken(), 1);
    assert_eq!(length(task.poll(future)), 0);
}

#[test]
fn without_a_worker_the_time_is_told_by_who_maintains() {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    log.create_topic("topic", TopicConfig::new()).unwrap();
    let (mut consumer, task) = (member(&log), Task::new());
    let mut future = pin!(consumer.poll_async(millis(100)));
    let start = machine.now();
    assert!(task.poll(future.as_mut()).is_pending());

    while let Some(due) = log.maintain()
        && machine.now() < start.saturating_add(millis(100))
    {
        assert_eq!(task.woken(), 0);
        machine.advance(due);
    }

    assert_eq!((task.woken(), machine.now()), (1, start.saturating_add(millis(100))));
    assert_eq!(length(task.poll(future)), 0);
}

#[test]
fn a_rebalance_wakes_who_awaits_records() {
    let (machine, log) = log();
    let (mut first, mut second) = (member(&log), member(&log));
    let (a, b) = (Task::new(), Task::new());
    let mut one = Box::pin(first.poll_async(LONG));
    assert!(a.poll(one.as_mut()).is_pending());

    let mut other = Box::pin(second.poll_async(LONG));
    assert!(b.poll(other.as_mut()).is_pending());
    assert!(a.woken() > 0, "it must let go of a partition");
    for _ in 0..4 {
        assert!(a.poll(one.as_mut()).is_pending());
        assert!(b.poll(other.as_mut()).is_pending());
        machine.settle();
    }

    drop((one, other));
    assert_eq!((first.assignment().len(), second.assignment().len()), (1, 1));
}

#[test]
fn a_new_topic_wakes_who_reads_whatever_matches() {
    let (_machine, log) = log();
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.subscribe_matching(|topic| topic.starts_with("new")).unwrap();
    let task = Task::new();
    let mut future = Box::pin(consumer.poll_async(LONG));
    assert!(task.poll(future.as_mut()).is_pending());

    log.create_topic("news", TopicConfig::new()).unwrap();

    assert_eq!(task.woken(), 1);
    assert!(task.poll(future.as_mut()).is_pending());
    drop(future);
    assert_eq!(consumer.assignment(), [TopicPartition::new("news", 0)]);
}

#[test]
fn closing_the_log_ends_the_waiting() {
    let (_machine, log) = log();
    let (mut consumer, task) = (member(&log), Task::new());
    let mut future = pin!(consumer.poll_async(LONG));
    assert!(task.poll(future.as_mut()).is_pending());

    log.close().unwrap();

    assert!(task.woken() > 0);
    assert!(matches!(task.poll(future), Poll::Ready(Err(Error::Closed))));
}

#[test]
fn a_wakeup_ends_the_waiting() {
    let (_machine, log) = log();
    let (mut consumer, task) = (member(&log), Task::new());
    let waker = consumer.waker();
    let mut future = pin!(consumer.poll_async(LONG));
    assert!(task.poll(future.as_mut()).is_pending());

    waker.wake();

    assert_eq!(task.woken(), 1);
    assert!(matches!(task.poll(future), Poll::Ready(Err(Error::Wakeup))));
}

#[test]
fn a_future_that_is_dropped_loses_nothing_and_wakes_nobody() {
    let (machine, log) = log();
    let (mut consumer, task) = (member(&log), Task::new());
    let mut future = Box::pin(consumer.poll_async(millis(100)));
    assert!(task.poll(future.as_mut()).is_pending());
    assert!(Arc::strong_count(&task) > 1, "the log knows the task that waits");
    drop(future);
    assert_eq!(Arc::strong_count(&task), 1, "and nobody knows it any more");

    send(&log, 0);
    machine.sleep(millis(200));

    assert_eq!(task.woken(), 0);
    assert_eq!(length(task.poll(pin!(consumer.poll_async(LONG)))), 1);
}

#[test]
fn a_future_that_moves_to_another_task_wakes_that_one() {
    let (_machine, log) = log();
    let (mut consumer, first, second) = (member(&log), Task::new(), Task::new());
    let mut future = pin!(consumer.poll_async(LONG));
    assert!(first.poll(future.as_mut()).is_pending());
    assert!(second.poll(future.as_mut()).is_pending());

    send(&log, 0);

    assert_eq!((first.woken(), second.woken()), (0, 1));
    assert_eq!(length(second.poll(future)), 1);
}

#[test]
fn who_awaits_records_stays_a_member_for_as_long_as_its_task_lives() {
    let (machine, log) = log();
    let config = ConsumerConfig::group("group").auto_commit(false).max_poll_interval(Duration::from_secs(3));
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["topic"]).unwrap();
    let task = Task::new();
    let mut future = Box::pin(consumer.poll_async(LONG));
    assert!(task.poll(future.as_mut()).is_pending());

    for second in 1..=20 {
        machine.sleep(Duration::from_secs(1));
        machine.settle();
        assert_eq!(task.woken(), second, "to say that it is there");
        assert!(task.poll(future.as_mut()).is_pending());
    }
    assert_eq!(log.describe_group("group").unwrap().members.len(), 1);

    machine.sleep(Duration::from_secs(4));
    let gone = log.describe_group("group");
    assert!(matches!(gone, Err(Error::UnknownGroup { .. })), "nobody has polled it any more: {gone:?}");
}

#[test]
fn the_callback_of_a_commit_is_called_while_records_are_awaited() {
    let (machine, log) = log();
    send(&log, 0);
    let (mut consumer, task) = (member(&log), Task::new());
    assert_eq!(length(task.poll(pin!(consumer.poll_async(LONG)))), 1);
    let called = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&called);
    consumer.commit_async(move |result| theirs.store(result.unwrap().len(), Ordering::SeqCst)).unwrap();

    let mut future = pin!(consumer.poll_async(LONG));
    assert!(task.poll(future.as_mut()).is_pending());
    assert_eq!((task.woken(), called.load(Ordering::SeqCst)), (0, 0));
    machine.sleep(millis(10));
    assert_eq!(task.woken(), 1);
    assert!(task.poll(future).is_pending());
    assert_eq!(called.load(Ordering::SeqCst), 2, "partitions");
}

#[test]
fn a_log_that_another_process_writes_is_not_awaited() {
    let (machine, log) = log();
    let reading = machine.open_read_only().unwrap();
    let mut consumer = reading.consumer(ConsumerConfig::new()).unwrap();
    consumer.assign([("topic", 0)]).unwrap();

    let polled = Task::new().poll(pin!(consumer.poll_async(LONG)));

    assert!(matches!(polled, Poll::Ready(Err(Error::InvalidState { .. }))), "{polled:?}");
    drop(log);
}

/// A runtime of one thread and one task.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn on_real_threads_no_record_and_no_end_of_time_is_slept_through() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("topic", TopicConfig::new().partitions(2).durability(tidelog::Durability::Os)).unwrap();
    let records: usize = 20_000;
    let mut consumer = member(&log);
    let producer = log.producer();
    let sending = thread::spawn(move || {
        for n in 0..records {
            producer.send(ProducerRecord::new("topic", b"value").partition((n % 2) as u32)).unwrap();
            if n % 100 == 0 {
                thread::yield_now();
            }
        }
    });

    let mut taken = 0;
    while taken < records {
        taken += block_on(is_send(consumer.poll_async(Duration::from_secs(60)))).unwrap().len();
    }
    sending.join().unwrap();

    for _ in 0..20 {
        assert!(block_on(consumer.poll_async(millis(1))).unwrap().is_empty());
    }
}
