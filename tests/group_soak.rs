//! A group under stress: eight members over sixteen partitions join, stall, are put out, crash and return at random,
//! while records are sent.
//!
//! What must hold, whatever happens:
//!
//! - no record is missed: what is committed has been processed;
//! - a partition has one owner: whoever is assigned it finds its owner before gone, or out of its time;
//! - order: within an ownership, the offsets of a partition follow one another, beginning with what is committed;
//! - a commit of somebody who is out is refused, and leaves what is committed as it was;
//! - every duplicate is explained: nothing is processed twice by the same ownership.
//!
//! Twice: in steps of a simulation, where what happens is known exactly (`TIDELOG_STEPS`), and with threads on a real
//! directory (`TIDELOG_SOAK` seconds).
#![cfg(all(feature = "sim", feature = "tempfile"))]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, ConsumerRecords, CooperativeStickyAssignor, Durability, Error, EventLog, LogConfig,
    Offset, OffsetAndMetadata, OffsetReset, ProducerRecord, RangeAssignor, RebalanceListener, Result, TopicConfig,
    TopicPartition,
};

const MEMBERS: usize = 8;
const PARTITIONS: u32 = 16;
const TOPIC: &str = "orders";

fn from_env(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// A sequence of random numbers: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// How often what has happened.
#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    processed: u64,
    duplicates: u64,
    commits: u64,
    refused: u64,
    assigned: u64,
    /// Told of an assignment that was another's by then.
    late: u64,
    revoked: u64,
    lost: u64,
    crashes: u64,
    stalls: u64,
    restarts: u64,
}

/// Whoever reads a partition, from when it is assigned to when it is revoked or lost.
#[derive(Clone, Copy, Debug)]
struct Ownership {
    number: u32,
    member: u64,
    /// The next offset that it gets.
    next: u64,
    /// What is committed as far as the owner knows: only the owner can have changed it.
    committed: u64,
}

/// What is known of a partition.
#[derive(Debug, Default)]
struct Known {
    owner: Option<Ownership>,
    /// By which ownership each record was processed last; it grows without gaps, so nothing was missed.
    processed: Vec<u32>,
}

/// What is known of everything.
#[derive(Debug, Default)]
struct Model {
    partitions: BTreeMap<TopicPartition, Known>,
    counts: Counts,
    ownerships: u32,
    /// Since when each member may not have polled any more, in a time of the test; those that are gone are missing.
    quiet: BTreeMap<u64, Duration>,
    interval: Duration,
}

impl Model {
    fn is_out(&self, member: u64, now: Duration) -> bool {
        self.quiet.get(&member).is_none_or(|since| now >= *since + self.interval)
    }

    fn assigned(&mut self, member: u64, now: Duration, partition: &TopicPartition, committed: u64) {
        self.counts.assigned += 1;
        self.ownerships += 1;
        let before = self.partitions.entry(partition.clone()).or_default().owner;
        if let Some(before) = before.filter(|before| before.member != member) {
            assert!(self.is_out(before.member, now), "{partition} is assigned to {member}, and {before:?} has it");
        }
        let known = self.partitions.entry(partition.clone()).or_default();
        let done = known.processed.len() as u64;
        assert!(
            committed <= done,
            "{committed} of {partition} is committed, and {done} are processed: some are missed"
        );
        known.owner = Some(Ownership { number: self.ownerships, member, next: committed, committed });
    }

    fn gone(&mut self, member: u64, partition: &TopicPartition) {
        let known = self.partitions.entry(partition.clone()).or_default();
        // Of somebody who was put out, the partition may be another's already.
        known.owner.take_if(|owner| owner.member == member);
    }

    /// A member processes a record; one that was put out may do so beside the new owner.
    fn process(&mut self, member: u64, partition: &TopicPartition, offset: u64) {
        self.counts.processed += 1;
        let known = self.partitions.entry(partition.clone()).or_default();
        let Some(owner) = known.owner.as_mut().filter(|owner| owner.member == member) else { return };
        assert_eq!(offset, owner.next, "{partition} out of order for {owner:?}");
        owner.next += 1;
        let at = usize::try_from(offset).unwrap();
        match known.processed.get_mut(at) {
            None => {
                assert_eq!(at, known.processed.len(), "records of {partition} were stepped over");
                known.processed.push(owner.number);
            }
            Some(before) => {
                assert_ne!(*before, owner.number, "{offset} of {partition} came twice to {owner:?}");
                self.counts.duplicates += 1;
                *before = owner.number;
            }
        }
    }

    fn owned(&self, member: u64) -> Vec<(TopicPartition, Ownership)> {
        let owned = |(name, known): (&TopicPartition, &Known)| {
            known.owner.filter(|owner| owner.member == member).map(|owner| (name.clone(), owner))
        };
        self.partitions.iter().filter_map(owned).collect()
    }
}

type Shared = Arc<Mutex<Model>>;

fn locked(model: &Shared) -> MutexGuard<'_, Model> {
    // A member that fails must not make all others fail for another reason.
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the model what a member is told.
struct Witness {
    member: u64,
    model: Shared,
    now: Box<dyn Fn() -> Duration + Send>,
}

impl RebalanceListener for Witness {
    fn assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        for partition in partitions {
            // Nobody else is assigned anything between what is asked here and what is written down.
            let mut model = locked(&self.model);
            let committed = consumer.committed(partition)?.map_or(0, |committed| committed.offset.get());
            // A thread can be kept from running for so long that its member is put out before it comes here. Then the
            // group knows, and this is a tale of old times; otherwise it is the owner, whatever the time.
            match consumer.commit_offsets_async([(partition.clone(), Offset::new(committed))], drop) {
                Ok(()) => model.assigned(self.member, (self.now)(), partition, committed),
                Err(Error::CommitFailed { .. }) => model.counts.late += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        // Half of the members commit when they must go, the others leave it to be processed again.
        if self.member.is_multiple_of(2) {
            commit(consumer, self.member, &self.model, &*self.now);
        }
        let mut model = locked(&self.model);
        model.counts.revoked += partitions.len() as u64;
        partitions.iter().for_each(|partition| model.gone(self.member, partition));
        Ok(())
    }

    fn lost(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        let mut model = locked(&self.model);
        model.counts.lost += partitions.len() as u64;
        partitions.iter().for_each(|partition| model.gone(self.member, partition));
        Ok(())
    }
}

/// Commits what the member has processed, as far as the model knows. Who is out by then is refused.
fn commit(consumer: &mut Consumer, member: u64, model: &Shared, now: &dyn Fn() -> Duration) {
    let owned = locked(model).owned(member);
    for (name, owner) in &owned {
        let committed = consumer.committed(name).unwrap().map_or(0, |committed| committed.offset.get());
        // It may have lost the partition since; then the new owner has begun a new ownership.
        let still = locked(model).partitions[name].owner.is_some_and(|still| still.number == owner.number);
        assert!(!still || committed == owner.committed, "somebody else committed {committed} of {name}: {owner:?}");
    }
    let offsets = owned.iter().map(|(name, owner)| {
        (name.clone(), OffsetAndMetadata::new(Offset::new(owner.next), format!("{}", owner.number)))
    });
    let result = consumer.commit_offsets(offsets.collect::<Vec<_>>());
    let mut model = locked(model);
    model.counts.commits += 1;
    match result {
        Ok(()) => {
            for (name, before) in owned {
                let owner = model.partitions.get_mut(&name).and_then(|known| known.owner.as_mut());
                if let Some(owner) = owner.filter(|owner| owner.number == before.number) {
                    owner.committed = before.next;
                }
            }
        }
        Err(Error::CommitFailed { .. } | Error::RebalanceInProgress { .. }) => {
            model.counts.refused += 1;
            let late = model.is_out(member, now());
            assert!(late || owned.is_empty(), "member {member} was refused in time");
        }
        Err(error) => panic!("member {member}: {error}"),
    }
}

fn config(cooperative: bool, interval: Duration) -> ConsumerConfig {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    let config = config.max_poll_interval(interval).max_poll_records(7);
    if cooperative { config.assignor(CooperativeStickyAssignor) } else { config.assignor(RangeAssignor) }
}

fn create_topic(log: &EventLog) {
    log.create_topic(
        TOPIC,
        TopicConfig::new().partitions(PARTITIONS).durability(Durability::Os).segment_bytes(1 << 20),
    )
    .unwrap();
}

/// Sends a record of a random key; the value is how many there were of that key.
fn send(log: &EventLog, keys: &mut BTreeMap<u64, u64>, key: u64) {
    let count = keys.entry(key).or_default();
    *count += 1;
    let (key, value) = (key.to_string(), count.to_string());
    log.producer().send(ProducerRecord::new(TOPIC, value.as_bytes()).key(key.as_bytes())).unwrap();
}

/// A consumer of its own group finds each key in one partition, in order: so order within partitions is order by key.
fn check_keys(log: &EventLog, sent: u64) {
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe([TOPIC]).unwrap();
    let (mut last, mut read) = (BTreeMap::new(), 0);
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            break;
        }
        for record in &records {
            let number = |bytes: Option<&[u8]>| std::str::from_utf8(bytes.unwrap()).unwrap().parse::<u64>().unwrap();
            let (place, count) = last.entry(number(record.key())).or_insert((record.partition(), 0));
            assert_eq!((record.partition(), number(record.value())), (*place, *count + 1));
            *count += 1;
            read += 1;
        }
    }
    assert_eq!(read, sent);
}

/// Drops a consumer as a panic would that nobody has seen coming, without a message.
fn crash(consumer: Consumer) {
    let crashed = catch_unwind(AssertUnwindSafe(move || {
        let _consumer = consumer;
        resume_unwind(Box::new("crash"));
    }));
    assert!(crashed.is_err());
}

/// In the simulation: one thread, so everything that is said is exact.
struct Simulation {
    machine: Arc<Machine>,
    log: Option<EventLog>,
    model: Shared,
    members: Vec<Option<(u64, Consumer)>>,
    /// Handles that somebody has lost, and that never poll again.
    leaked: Vec<Consumer>,
    keys: BTreeMap<u64, u64>,
    random: Random,
    cooperative: bool,
    next_member: u64,
}

const SIMULATED_INTERVAL: Duration = Duration::from_secs(5);

fn simulated_now(machine: &Machine) -> Duration {
    Duration::from_millis(u64::try_from(machine.now().as_millis()).unwrap())
}

fn simulated_config() -> LogConfig {
    LogConfig::new().background(false).commit_durability(Durability::Os)
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let machine = Machine::new(seed);
        let log = machine.open(simulated_config()).unwrap();
        create_topic(&log);
        let model = Model { interval: SIMULATED_INTERVAL, ..Model::default() };
        Simulation {
            machine: Arc::new(machine),
            log: Some(log),
            model: Arc::new(Mutex::new(model)),
            members: (0..MEMBERS).map(|_| None).collect(),
            leaked: Vec::new(),
            keys: BTreeMap::new(),
            random: Random(seed),
            cooperative: seed.is_multiple_of(2),
            next_member: 1,
        }
    }

    fn log(&self) -> &EventLog {
        self.log.as_ref().unwrap()
    }

    fn now(&self) -> Duration {
        simulated_now(&self.machine)
    }

    fn start(&mut self, place: usize) {
        let number = self.next_member;
        self.next_member += 1;
        let mut consumer = self.log().consumer(config(self.cooperative, SIMULATED_INTERVAL)).unwrap();
        let machine = Arc::clone(&self.machine);
        let now = Box::new(move || simulated_now(&machine));
        consumer.set_rebalance_listener(Witness { member: number, model: Arc::clone(&self.model), now });
        consumer.subscribe([TOPIC]).unwrap();
        self.members[place] = Some((number, consumer));
    }

    fn poll(&mut self, place: usize) {
        let Some((number, consumer)) = &mut self.members[place] else { return self.start(place) };
        let records = consumer.poll(Duration::ZERO).unwrap();
        let mut model = locked(&self.model);
        model.quiet.insert(*number, simulated_now(&self.machine));
        for record in &records {
            model.process(*number, record.topic_partition(), record.offset().get());
        }
        drop(model);
        // In one thread it is known exactly who owns what.
        let owned: Vec<_> = locked(&self.model).owned(*number).into_iter().map(|(name, _)| name).collect();
        assert_eq!(consumer.assignment(), owned);
    }

    fn commit(&mut self, place: usize) {
        let now = self.now();
        let Some((number, consumer)) = &mut self.members[place] else { return };
        let refused = locked(&self.model).counts.refused;
        commit(consumer, *number, &self.model, &|| now);
        let model = locked(&self.model);
        let late = model.is_out(*number, now) && !model.owned(*number).is_empty();
        assert_eq!(model.counts.refused > refused, late, "who is late is refused, and nobody else");
    }

    /// A panic in the middle of processing; or a handle that is lost and never polls again.
    fn crash(&mut self, place: usize) {
        let Some((number, consumer)) = self.members[place].take() else { return };
        locked(&self.model).counts.crashes += 1;
        if self.random.chance(20) {
            locked(&self.model).counts.stalls += 1;
            self.leaked.push(consumer);
            return;
        }
        locked(&self.model).quiet.remove(&number);
        crash(consumer);
    }

    fn restart(&mut self) {
        locked(&self.model).counts.restarts += 1;
        let gone = self.members.iter_mut().filter_map(|member| Some(member.take()?.1));
        gone.chain(self.leaked.drain(..)).for_each(crash);
        locked(&self.model).quiet.clear();
        self.machine = Arc::new(self.machine.kill());
        self.log = Some(self.machine.open(simulated_config()).unwrap());
        assert!(self.log().recovery_report().is_clean());
    }

    fn step(&mut self) {
        let place = usize::try_from(self.random.below(MEMBERS as u64)).unwrap();
        match self.random.below(1000) {
            0..250 => {
                let key = self.random.below(100);
                send(self.log.as_ref().unwrap(), &mut self.keys, key);
                locked(&self.model).counts.sent += 1;
            }
            250..750 => self.poll(place),
            750..880 => self.commit(place),
            880..980 => self.machine.advance(Duration::from_millis(self.random.below(2000))),
            980..985 => self.crash(place),
            985..990 => {
                if let Some((_, consumer)) = self.members[place].take() {
                    consumer.close().unwrap();
                }
            }
            990..995 => {
                if let Some((_, consumer)) = &mut self.members[place] {
                    consumer.enforce_rebalance().unwrap();
                }
            }
            995..999 => drop(self.log().maintain()),
            _ if self.random.chance(20) => self.restart(),
            _ => {}
        }
    }

    /// Everybody polls until everything is processed.
    fn finish(&mut self) {
        self.members.iter_mut().for_each(|member| *member = None);
        self.machine.advance(SIMULATED_INTERVAL);
        let sent = locked(&self.model).counts.sent;
        for _ in 0..sent + 100 {
            (0..MEMBERS).for_each(|place| self.poll(place));
            let done: usize = locked(&self.model).partitions.values().map(|known| known.processed.len()).sum();
            if done as u64 == sent {
                break;
            }
        }
        let model = locked(&self.model);
        for (name, known) in &model.partitions {
            let end = self.log().describe_topic(TOPIC).unwrap().partitions[name.partition() as usize].log_end;
            assert_eq!(known.processed.len() as u64, end.get(), "{name}");
        }
        check_keys(self.log(), sent);
    }
}

#[test]
fn whatever_the_members_of_a_simulated_group_do_no_record_is_missed_and_none_has_two_owners() {
    let steps = from_env("TIDELOG_STEPS", 10_000);
    for seed in [1, 2] {
        let mut simulation = Simulation::new(seed);
        for _ in 0..steps / 2 {
            simulation.step();
        }
        simulation.finish();
        let counts = &locked(&simulation.model).counts;
        println!("seed {seed}, {} steps, cooperative {}: {counts:?}", steps / 2, simulation.cooperative);
        let enough = [counts.processed, counts.duplicates, counts.refused, counts.revoked, counts.lost, counts.crashes];
        assert!(enough.iter().all(|count| *count > 0), "something never happened: {counts:?}");
    }
}

/// So long may a member of the threads not poll.
const REAL_INTERVAL: Duration = Duration::from_millis(150);

/// With threads: what is said of a moment is said a little later, so it is said only where that makes no difference.
struct Real {
    log: EventLog,
    model: Shared,
    start: Instant,
    cooperative: bool,
}

impl Real {
    fn member(&self, number: u64) -> Consumer {
        let mut consumer = self.log.consumer(config(self.cooperative, REAL_INTERVAL)).unwrap();
        let start = self.start;
        let now = Box::new(move || start.elapsed());
        consumer.set_rebalance_listener(Witness { member: number, model: Arc::clone(&self.model), now });
        consumer.subscribe([TOPIC]).unwrap();
        consumer
    }

    fn poll(&self, consumer: &mut Consumer, number: u64, timeout: Duration) -> ConsumerRecords {
        let began = self.start.elapsed();
        let records = consumer.poll(timeout).unwrap();
        // Its time did not begin before the poll did; and until the poll has ended, the last one counts.
        locked(&self.model).quiet.insert(number, began);
        records
    }

    /// One life of a member. Returns whether the run is over.
    fn live(&self, number: u64, random: &mut Random, over: &Receiver<()>) -> bool {
        let mut consumer = self.member(number);
        loop {
            let records = self.poll(&mut consumer, number, Duration::from_millis(5));
            for record in &records {
                // A lock for each, so that others come in between.
                locked(&self.model).process(number, record.topic_partition(), record.offset().get());
            }
            match random.below(1000) {
                0..400 => commit(&mut consumer, number, &self.model, &|| self.start.elapsed()),
                400..405 => {
                    locked(&self.model).counts.stalls += 1;
                    let pause = REAL_INTERVAL + Duration::from_millis(random.below(100));
                    if over.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                        return true;
                    }
                    // Too late, as a rule.
                    commit(&mut consumer, number, &self.model, &|| self.start.elapsed());
                }
                405..410 => {
                    let mut model = locked(&self.model);
                    model.counts.crashes += 1;
                    // Gone as soon as it is dropped, which is later.
                    model.quiet.remove(&number);
                    drop(model);
                    resume_unwind(Box::new("crash"));
                }
                410..420 => {
                    consumer.close().unwrap();
                    return false;
                }
                420..425 => consumer.enforce_rebalance().unwrap(),
                _ => {}
            }
            if over.try_recv() != Err(TryRecvError::Empty) {
                return true;
            }
        }
    }

    fn processed(&self) -> u64 {
        locked(&self.model).partitions.values().map(|known| known.processed.len() as u64).sum()
    }

    /// Members that come and go, and a producer, until the time is over.
    fn run(&self, time: Duration, seed: u64) {
        let mut keys = BTreeMap::new();
        thread::scope(|scope| {
            let mut ends = Vec::new();
            let mut lives = Vec::new();
            for place in 0..MEMBERS as u64 {
                let (end, over) = channel::<()>();
                ends.push(end);
                lives.push(scope.spawn(move || {
                    let mut random = Random(seed ^ place.rotate_left(32));
                    for life in 0.. {
                        let number = life * MEMBERS as u64 + place + 1;
                        let ended = catch_unwind(AssertUnwindSafe(|| self.live(number, &mut random, &over)));
                        match ended {
                            Ok(true) => return,
                            Ok(false) => {}
                            // Any other panic is a failure.
                            Err(panic) if panic.downcast_ref::<&str>() == Some(&"crash") => {}
                            Err(panic) => resume_unwind(panic),
                        }
                    }
                }));
            }
            let mut random = Random(seed);
            let (_never, pause) = channel::<()>();
            while self.start.elapsed() < time && !lives.iter().any(thread::ScopedJoinHandle::is_finished) {
                for _ in 0..20 {
                    send(&self.log, &mut keys, random.below(200));
                    locked(&self.model).counts.sent += 1;
                }
                assert_eq!(pause.recv_timeout(Duration::from_millis(2)), Err(RecvTimeoutError::Timeout));
            }
            drop(ends);
        });
        let mut last = self.member(0);
        let sent = locked(&self.model).counts.sent;
        let waited = Instant::now();
        while self.processed() < sent {
            for record in &self.poll(&mut last, 0, Duration::from_millis(50)) {
                locked(&self.model).process(0, record.topic_partition(), record.offset().get());
            }
            assert!(waited.elapsed() < Duration::from_secs(60), "{} of {sent} were processed", self.processed());
        }
        check_keys(&self.log, sent);
    }
}

#[test]
fn whatever_members_in_threads_do_no_record_is_missed_and_none_has_two_owners() {
    let time = Duration::from_secs(from_env("TIDELOG_SOAK", 2));
    for cooperative in [false, true] {
        let log = EventLog::temporary().unwrap();
        create_topic(&log);
        let model = Model { interval: REAL_INTERVAL, ..Model::default() };
        let real = Real { log, model: Arc::new(Mutex::new(model)), start: Instant::now(), cooperative };
        real.run(time / 2, 1);
        let counts = &locked(&real.model).counts;
        println!("threads, {:?}, cooperative {cooperative}: {counts:?}", time / 2);
        assert!(counts.processed > 0 && counts.revoked > 0, "{counts:?}");
    }
}
