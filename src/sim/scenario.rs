//! The scenario: topics, groups, what may go wrong. And one run of it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{ConsumerConfig, LogConfig, OffsetReset, TopicConfig};
use crate::consumer::{Consumer, ConsumerRecord};
use crate::dead_letters::{DeadLetterConfig, DeadLetterQueue, ProcessingError};
use crate::env::Env;
#[cfg(test)]
use crate::env::point::{Mistake, plant};
use crate::env::point::{look_on, onlooker};
use crate::env::sim::SimClock;
use crate::env::storage::sim::SimDisk;
use crate::error::Result;
use crate::event_log::EventLog;
use crate::record::ProducerRecord;
use crate::sim::EPOCH;
use crate::sim::executor::block_on;
use crate::sim::faults::{Budget, Faults, Scope};
use crate::sim::outcome::{Outcome, Sent};
use crate::sim::stage::{Act, Body, Death, Followed, Over, RESTART_AFTER, Stage, StageScheduler, unwind};
use crate::sim::story::{Happening, Place, Who, print_of};
use crate::sim::tape::Tape;
use crate::types::{Offset, TopicPartition};

/// How long a handler's consumer waits for records.
const HANDLER_POLL: Duration = Duration::from_millis(100);

/// When a visitor joins, and for how long it stays: at one of so many moments, so far apart.
const VISITS_EVERY: Duration = Duration::from_millis(60);
const VISITING_TIMES: u32 = 8;

/// By how much a member stalls longer than its group waits for it.
const STALLS_LONGER_BY: Duration = Duration::from_secs(1);

/// A scenario, and one run of it. What [`check`](crate::sim::check) is given is called with a new one for every run.
pub struct Sim {
    topics: Vec<Topic>,
    groups: Vec<Group>,
    others: Vec<Other>,
    faults: Faults,
    log_config: LogConfig,
    stall: Option<Duration>,
    stores: usize,
    /// What this run draws from, and within which limits.
    tape: Option<Tape>,
    scope: Option<Scope>,
    /// How many records each topic has at most: fewer, when a failure is made shorter.
    most_records: usize,
    pub(crate) ran: Option<Ran>,
    #[cfg(test)]
    pub(crate) mistake: Option<Mistake>,
}

/// What a run has left behind.
pub(crate) struct Ran {
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) tape: Tape,
}

/// Code that is neither of a group nor a handler.
struct Other {
    name: String,
    body: Body,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim({} topics, {} groups)", self.topics.len(), self.groups.len())
    }
}

/// A topic of a scenario, and what is in it from the beginning.
pub struct Topic {
    name: String,
    config: TopicConfig,
    records: Vec<(Option<Vec<u8>>, Vec<u8>)>,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({}, {} records)", self.name, self.records.len())
    }
}

impl Topic {
    /// How many partitions there are. Default: 1.
    pub fn partitions(&mut self, partitions: u32) -> &mut Self {
        self.config.partitions = partitions;
        self
    }

    /// All settings of the topic. Default: those of [`TopicConfig::new`], with segments of 64 KiB, which are quicker
    /// to simulate than the usual ones.
    pub fn config(&mut self, config: TopicConfig) -> &mut Self {
        self.config = config;
        self
    }

    /// Records without keys.
    pub fn records<V: Into<Vec<u8>>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        self.records.extend(values.into_iter().map(|value| (None, value.into())));
        self
    }

    /// Records with keys, as pairs.
    pub fn keyed<K: Into<Vec<u8>>, V: Into<Vec<u8>>>(
        &mut self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        self.records.extend(records.into_iter().map(|(key, value)| (Some(key.into()), value.into())));
        self
    }
}

/// A group of a scenario: its members, and the function that they run.
pub struct Group {
    name: Arc<str>,
    members: usize,
    config: ConsumerConfig,
    topics: Vec<String>,
    assigned: Vec<TopicPartition>,
    code: Option<Code>,
    /// Whether the code waits as blocking code does.
    blocks: bool,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({}, {} members)", self.name, self.members)
    }
}

/// What is done with a consumer.
type Code = Arc<dyn Fn(Arc<Stage>, Consumer, EventLog) -> Act + Send + Sync>;

impl Group {
    /// How many members there are. Default: 1.
    pub fn members(&mut self, members: usize) -> &mut Self {
        self.members = members;
        self
    }

    /// The settings of the members' consumers, with the group's name in them. Default:
    /// [`ConsumerConfig::group`] and [`OffsetReset::Earliest`].
    pub fn config(&mut self, config: ConsumerConfig) -> &mut Self {
        self.config = config;
        self
    }

    /// The topics that the members subscribe to. Default: all topics of the scenario.
    pub fn topics<S: Into<String>>(&mut self, topics: impl IntoIterator<Item = S>) -> &mut Self {
        self.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// The members are [assigned](Consumer::assign) these partitions instead of subscribing.
    pub fn assign<P: Into<TopicPartition>>(&mut self, partitions: impl IntoIterator<Item = P>) -> &mut Self {
        self.assigned = partitions.into_iter().map(Into::into).collect();
        self
    }

    /// What a member does: an ordinary, blocking function, as in production. If it returns an error or panics by a fault, it
    /// is started again after a second; if it returns `Ok`, the member is done.
    pub fn run<F>(&mut self, member: F)
    where
        F: Fn(Consumer) -> Result<()> + Send + Sync + 'static,
    {
        self.run_blocking(move |_, consumer, _| member(consumer));
    }

    /// [`run`](Self::run) for code that also needs the log: to send, for instance.
    pub fn run_with_log<F>(&mut self, member: F)
    where
        F: Fn(Consumer, EventLog) -> Result<()> + Send + Sync + 'static,
    {
        self.run_blocking(move |_, consumer, log| member(consumer, log));
    }

    /// What a member does, as an async function. It needs no runtime: await
    /// [records](Consumer::poll_async), deliveries, and [`sleep_async`](crate::sim::sleep_async). A crash drops the future
    /// where it waits.
    pub fn run_async<F, W>(&mut self, member: F)
    where
        F: Fn(Consumer) -> W + Send + Sync + 'static,
        W: Future<Output = Result<()>>,
    {
        // Its future need not be fit for another thread than the one that it began on.
        self.run_blocking(move |stage, consumer, _| block_on(stage, member(consumer)).unwrap_or(Ok(())));
    }

    fn run_blocking<F>(&mut self, member: F)
    where
        F: Fn(&Arc<Stage>, Consumer, EventLog) -> Result<()> + Send + Sync + 'static,
    {
        let member = Arc::new(member);
        self.blocks = true;
        self.code = Some(Arc::new(move |stage, consumer, log| {
            let member = Arc::clone(&member);
            Box::pin(async move { member(&stage, consumer, log) })
        }));
    }

    /// What is done with a record. The library polls, calls the handler for each record, and commits when it has
    /// handled all that a poll returned. An error ends the member, which is started again after a second.
    pub fn run_handler<F>(&mut self, handler: F)
    where
        F: Fn(&ConsumerRecord<'_>) -> Result<()> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        self.blocks = false;
        self.code = Some(Arc::new(move |stage, mut consumer, _| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                // It returns from wherever its life ends, but for the handler: to be unwound takes as long as much of a run.
                stage.look(true);
                loop {
                    let records = consumer.poll_async(HANDLER_POLL).await?;
                    for record in &records {
                        let Some(handled) = stage.unless_over(|| handler(&record)) else { return Ok(()) };
                        handled?;
                    }
                    if !records.is_empty() {
                        consumer.commit()?;
                    }
                }
            })
        }));
    }

    /// [`run_handler`](Self::run_handler) with a [`DeadLetterQueue`]: what fails is tried again, and in the end put into
    /// this topic, which the scenario must have.
    pub fn run_handler_with_dead_letters<F>(&mut self, topic: &str, config: DeadLetterConfig, handler: F)
    where
        F: Fn(&ConsumerRecord<'_>) -> Result<(), ProcessingError> + Send + Sync + 'static,
    {
        let used = Arc::new((topic.to_owned(), config, handler));
        self.blocks = false;
        self.code = Some(Arc::new(move |_, mut consumer, log| {
            let used = Arc::clone(&used);
            Box::pin(async move {
                let (topic, config, handler) = &*used;
                let mut dead_letters = DeadLetterQueue::new(log.producer(), topic.as_str(), config.clone())?;
                loop {
                    let records = consumer.poll_async(HANDLER_POLL).await?;
                    dead_letters.process(&mut consumer, &records, handler)?;
                    if !records.is_empty() {
                        consumer.commit()?;
                    }
                }
            })
        }));
    }

    fn body(&self, topics: &[String]) -> Body {
        let code = self.code.clone().unwrap_or_else(|| panic!("group {} has nothing to run", self.name));
        let used = Arc::new((self.config.clone(), self.assigned.clone(), self.topics_of(topics)));
        let act = move |stage, log: EventLog| -> Act {
            let (code, used) = (Arc::clone(&code), Arc::clone(&used));
            Box::pin(async move {
                let (config, assigned, topics) = &*used;
                let mut consumer = log.consumer(config.clone())?;
                if assigned.is_empty() {
                    consumer.subscribe(topics.iter().cloned())?;
                } else {
                    consumer.assign(assigned.iter().cloned())?;
                }
                code(stage, consumer, log).await
            })
        };
        Body { act: Arc::new(act), blocks: self.blocks }
    }

    /// A member that joins at some moment, and leaves without having taken a record.
    fn visitor(&self, topics: &[String]) -> Body {
        let (config, topics) = (self.config.clone().auto_commit(false), self.topics_of(topics));
        Body::blocking(move |stage, log| {
            stage.sleep_for(VISITS_EVERY * stage.draw_evenly(VISITING_TIMES));
            let mut consumer = log.consumer(config.clone())?;
            consumer.subscribe(topics.iter().cloned())?;
            consumer.poll(VISITS_EVERY).map(drop)
        })
    }

    fn topics_of(&self, all: &[String]) -> Vec<String> {
        match (self.topics.is_empty(), self.assigned.is_empty()) {
            (_, false) => self.assigned.iter().map(|name| name.topic().to_owned()).collect(),
            (true, true) => all.to_vec(),
            (false, true) => self.topics.clone(),
        }
    }
}

/// Something outside of the log that your code changes, and that survives every crash: a database, an account, a mail that
/// went out. Cheap to clone; clones are the same store.
///
/// To change it is one step: a crash comes before or behind, not in the middle.
pub struct Outside<T> {
    state: Arc<Mutex<T>>,
    store: usize,
}

impl<T> Clone for Outside<T> {
    fn clone(&self) -> Self {
        Outside { state: Arc::clone(&self.state), store: self.store }
    }
}

impl<T: fmt::Debug> fmt::Debug for Outside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outside").field(&*self.state.lock()).finish()
    }
}

impl<T> Outside<T> {
    /// Changes the store, or looks into it. Do not call the log from inside of `change`.
    pub fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let onlooker = onlooker();
        if onlooker.as_ref().is_some_and(|onlooker| !onlooker.before_effect()) {
            // With nothing in hand: a run that dies is unwound here more often than anywhere else, and that takes long.
            drop(onlooker);
            unwind();
        }
        let result = change(&mut self.state.lock());
        if let Some(onlooker) = &onlooker {
            onlooker.after_effect(self.store);
        }
        result
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.state.lock())
    }
}

/// Setting up.
impl Sim {
    pub(crate) fn new(tape: Tape, scope: Option<Scope>, most_records: usize) -> Self {
        Sim {
            // Mostly there is one, and room for four of that size is more than an allocator has at hand.
            topics: Vec::with_capacity(1),
            groups: Vec::with_capacity(1),
            others: Vec::new(),
            faults: Faults::none(),
            log_config: LogConfig::new(),
            stall: None,
            stores: 0,
            tape: Some(tape),
            scope,
            most_records,
            ran: None,
            #[cfg(test)]
            mistake: None,
        }
    }

    /// A topic.
    pub fn topic(&mut self, name: &str) -> &mut Topic {
        let config = TopicConfig::new().segment_bytes(64 << 10);
        self.topics.push(Topic { name: name.to_owned(), config, records: Vec::new() });
        self.topics.last_mut().expect("just pushed")
    }

    /// A group.
    pub fn group(&mut self, name: &str) -> &mut Group {
        let config = ConsumerConfig::group(name).auto_offset_reset(OffsetReset::Earliest);
        self.groups.push(Group {
            name: name.into(),
            members: 1,
            config,
            topics: Vec::new(),
            assigned: Vec::new(),
            code: None,
            blocks: false,
        });
        self.groups.last_mut().expect("just pushed")
    }

    /// Code that runs beside the groups: a producer, or whatever uses the log.
    pub fn run<F>(&mut self, name: &str, code: F)
    where
        F: Fn(EventLog) -> Result<()> + Send + Sync + 'static,
    {
        self.others.push(Other { name: name.to_owned(), body: Body::blocking(move |_, log| code(log)) });
    }

    /// Something outside of the log that survives every crash.
    pub fn outside<T: Default>(&mut self) -> Outside<T> {
        let store = self.stores;
        self.stores += 1;
        Outside { state: Arc::default(), store }
    }

    /// What may go wrong. Default: nothing.
    pub fn faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// How the log is opened. The background worker is always the simulation's.
    pub fn log_config(&mut self, config: LogConfig) {
        self.log_config = config;
    }

    /// For how long a member does nothing that [stalls](Faults::stalls). Default: a second longer than the longest
    /// [`max_poll_interval`](ConsumerConfig::max_poll_interval) of the groups.
    pub fn stall(&mut self, time: Duration) {
        self.stall = Some(time);
    }
}

/// Running.
impl Sim {
    /// A group whose topic nobody makes would read nothing, and every guarantee would hold.
    fn check_topics(&self) {
        let all: Vec<String> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let made_elsewhere = !self.others.is_empty() || self.log_config.auto_create_topics.is_some();
        for group in &self.groups {
            let missing = group.topics_of(&all).into_iter().find(|topic| !made_elsewhere && !all.contains(topic));
            if let Some(topic) = missing {
                panic!(
                    "group {} reads topic {topic}, which the scenario does not have; it has: {}",
                    group.name,
                    all.join(", ")
                );
            }
        }
    }

    /// How many members visit a group. Nobody visits partitions that are assigned.
    fn visitors_of(&self, group: &Group) -> usize {
        if group.assigned.is_empty() { self.faults.visitors as usize } else { 0 }
    }

    /// Runs the scenario until everything that was sent is committed by every group and all members wait for more, or
    /// until nothing happens any more.
    ///
    /// # Panics
    ///
    /// Panics if it has run already, or if the scenario cannot be set up: a topic's name is not valid, a group runs
    /// nothing, or reads a topic that nobody makes.
    pub fn run_until_idle(&mut self) -> Arc<Outcome> {
        self.check_topics();
        let tape = self.tape.take().expect("a simulation runs once; `check` makes a new one for every run");
        let budget = match &self.scope {
            Some(scope) => Budget::bounded(&self.faults, scope),
            None => Budget::drawn(&self.faults),
        };
        let longest = self.groups.iter().map(|group| group.config.max_poll_interval).max().unwrap_or_default();
        let stall = self.stall.unwrap_or(longest + STALLS_LONGER_BY);
        let clock = SimClock::new(EPOCH);
        let stage = Stage::new(Arc::clone(&clock), tape, budget, stall);
        #[cfg(test)]
        let stage = stage.with_mistake(self.mistake);
        #[cfg(test)]
        plant(self.mistake);
        let stage = Arc::new(stage);
        // The driver is on stage too: what is restarted after a crash is part of the run.
        let before = look_on(None);
        let mut run = Run { stage: Arc::clone(&stage), clock, lives: 0, sim: self };
        let sent = run.play();
        look_on(before);
        #[cfg(test)]
        plant(None);
        let (story, tape) = stage.finish();
        let mut names = Vec::new();
        for group in &self.groups {
            names.extend((1..=group.members).map(|number| match group.members {
                1 => group.name.to_string(),
                _ => format!("{}-{number}", group.name),
            }));
            names.extend((1..=self.visitors_of(group)).map(|number| format!("visitor-{number}")));
        }
        names.extend(self.others.iter().map(|other| other.name.clone()));
        let over = stage.over().unwrap_or(Over::Idle);
        let group_of = self.groups.iter().enumerate();
        let group_of = group_of.flat_map(|(at, group)| vec![at; group.members + self.visitors_of(group)]).collect();
        let all: Vec<String> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let groups = self.groups.iter().map(|group| (Arc::clone(&group.name), group.topics_of(&all))).collect();
        let outcome = Arc::new(Outcome::new(story, over, sent, names, group_of, groups, self.stores > 0));
        self.ran = Some(Ran { outcome: Arc::clone(&outcome), tape });
        outcome
    }
}

/// One run, life after life.
struct Run<'a> {
    stage: Arc<Stage>,
    clock: Arc<SimClock>,
    lives: u64,
    sim: &'a mut Sim,
}

impl Run<'_> {
    fn env(&self, disk: &Arc<SimDisk>) -> Env {
        let scheduler = Arc::new(StageScheduler(Arc::clone(&self.stage)));
        Env::simulated(Arc::clone(disk), Arc::clone(&self.clock), scheduler, self.lives)
    }

    fn open(&self, disk: &Arc<SimDisk>) -> Result<EventLog> {
        EventLog::open_in(self.env(disk), self.sim.log_config.clone().background(false))
    }

    fn play(&mut self) -> Vec<Sent> {
        let mut disk = SimDisk::new(1);
        disk.write_back(false);
        self.stage.set_disk(&disk);
        let mut log = self.open(&disk).expect("an empty directory can be opened");
        let sent = self.set_up(&log);
        let all: Vec<String> = self.sim.topics.iter().map(|topic| topic.name.clone()).collect();
        let follow = |group: &Group| Followed { group: Arc::clone(&group.name), topics: group.topics_of(&all) };
        let mut ends: BTreeMap<TopicPartition, u64> = BTreeMap::new();
        for record in &sent {
            *ends.entry(record.place.partition.clone()).or_default() += 1;
        }
        self.stage.start(self.sim.groups.iter().map(follow).collect(), ends);
        let mut bodies: Vec<Body> = Vec::new();
        for group in &self.sim.groups {
            bodies.extend(vec![group.body(&all); group.members]);
            bodies.extend((0..self.sim.visitors_of(group)).map(|_| group.visitor(&all)));
        }
        bodies.extend(self.sim.others.iter().map(|other| other.body.clone()));
        loop {
            self.stage.set_log(Some(log.clone()));
            self.stage.play(&bodies, &log);
            // The dead close nothing, and would find a dead disk; what is over is not worth closing.
            disk.end();
            drop(self.stage.set_log(None));
            log.abandon();
            if self.stage.over().is_some() {
                return sent;
            }
            match self.next_life(&mut disk) {
                Some(next) => log = next,
                None => return sent,
            }
        }
    }

    /// Makes the topics and sends what is in them. Nothing goes wrong meanwhile.
    fn set_up(&mut self, log: &EventLog) -> Vec<Sent> {
        let producer = log.producer();
        let mut sent = Vec::with_capacity(self.sim.topics.iter().map(|topic| topic.records.len()).sum());
        for topic in &mut self.sim.topics {
            let made = log.create_topic(&topic.name, topic.config.clone());
            made.unwrap_or_else(|error| panic!("topic {} cannot be made: {error}", topic.name));
            for (key, value) in mem::take(&mut topic.records).into_iter().take(self.sim.most_records) {
                let mut record = ProducerRecord::new(topic.name.as_str(), value.as_slice());
                if let Some(key) = &key {
                    record = record.key(key.as_slice());
                }
                let delivery = producer.send(record).unwrap_or_else(|error| panic!("a record cannot be sent: {error}"));
                sent.push(Sent {
                    place: Place { offset: delivery.offset().get(), partition: delivery.topic_partition().clone() },
                    print: print_of(key.as_deref(), Some(&value)),
                    key,
                    value,
                });
            }
        }
        producer.flush().expect("a disk without faults");
        sent
    }

    /// Starts the process again, however often it dies meanwhile. `None`: the run is over.
    fn next_life(&mut self, disk: &mut Arc<SimDisk>) -> Option<EventLog> {
        /// A process that dies so often while it starts has no faults left that could be its reason.
        const MOST_STARTS: usize = 100;
        for _ in 0..MOST_STARTS {
            let death = self.stage.take_death();
            self.lives += 1;
            *disk = match death {
                Some(Death::PowerCut(how, seed)) => disk.next_life(Some(how), seed),
                _ => disk.next_life(None, 0),
            };
            self.flip_a_bit(disk);
            self.stage.set_disk(disk);
            self.clock.advance(RESTART_AFTER);
            match self.open(disk) {
                Ok(log) => {
                    let committed = committed_in(&log);
                    self.stage.restarted(committed);
                    return Some(log);
                }
                Err(error) if !disk.has_crashed() => {
                    self.stage.note_event(Who::Machine, Happening::StartFails(error.to_string()));
                }
                Err(_) => {}
            }
        }
        self.stage.give_up(Over::Stuck(format!("the log could not be opened {MOST_STARTS} times in a row")));
        None
    }

    /// Turns a bit over in a segment that is not the last of its partition, if the tape says so.
    fn flip_a_bit(&self, disk: &SimDisk) {
        if !self.stage.may_flip_a_bit() {
            return;
        }
        let files = disk.files();
        let of_topics: Vec<_> = files.iter().filter(|file| file.starts_with("topics")).collect();
        let sealed: Vec<_> = of_topics.windows(2).filter(|pair| pair[0].parent() == pair[1].parent()).collect();
        if sealed.is_empty() || !self.stage.take_bit_flip() {
            return;
        }
        let chosen = sealed[self.stage.draw_evenly(sealed.len() as u32) as usize][0];
        let bytes = disk.read_file(chosen);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        let bit = self.stage.draw_evenly(u32::try_from(used * 8).unwrap_or(u32::MAX));
        disk.flip_bit(chosen, u64::from(bit));
        self.stage.note_event(Who::Machine, Happening::BitFlip(format!("{} bit {bit}", chosen.display())));
    }
}

fn committed_in(log: &EventLog) -> Vec<(Arc<str>, TopicPartition, Offset)> {
    let mut committed = Vec::new();
    for name in log.list_groups() {
        if let Ok(group) = log.describe_group(&name) {
            let name: Arc<str> = name.as_str().into();
            let known = group.offsets.into_iter().filter_map(|offset| Some((offset.partition, offset.committed?)));
            committed.extend(known.map(|(partition, offset)| (Arc::clone(&name), partition, offset)));
        }
    }
    committed
}
