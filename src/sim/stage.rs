//! The stage: one member runs at a time, and every choice is drawn from the tape.
//!
//! A member does something only while it has the baton. It may lose it at every point of [`env::point`](crate::env::point), and
//! gives it up where it waits. Whoever gives the baton up chooses who is next.
//!
//! A member is a future, of which whoever is free polls one *step* after the other. So one that waits between two steps, as
//! a handler does, waits without a thread, and a group of such members runs on one. Only who waits in the middle of a
//! step, as a blocking function does, or loses the baton there, keeps its thread, and somebody else's step is on another.
//! A run of one member needs no second thread.
//!
//! | who can go on                | what happens                                                            |
//! |------------------------------|-------------------------------------------------------------------------|
//! | one or more                  | one of them goes on, drawn from the tape                                |
//! | nobody                       | the log does what is due ([`EventLog::maintain`]); then the clock jumps |
//! | nobody, and nothing is left  | the run is over                                                         |
//!
//! A crash is decided at a point or in an operation of the disk. From that moment the disk takes nothing more, and every
//! member is unwound as soon as it has the baton and is about to return from the library, or waits in it: so user code sees nothing
//! of what came after. Where the kit itself calls the library, for a handler, it looks whether the life is over and returns:
//! to be unwound takes longer than much of a short run. The next life begins with what the disk held at that moment.
//!
//! Locks: whoever holds the lock of the stage calls neither disk nor log; the disk calls the stage under its own.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::env::clock::Clock;
#[cfg(test)]
use crate::env::point::{Mistake, is_planted, plant};
use crate::env::point::{Onlooker, What, look_on};
use crate::env::scheduling::{Bell, Parking, Scheduler, Worker};
use crate::env::sim::SimClock;
use crate::env::storage::sim::{Director, Failure, Operation, PowerCut, SimDisk, SyncFailure, Verdict};
use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::sim::executor::{Alarm, Sleep};
use crate::sim::faults::Budget;
use crate::sim::players::{Player, dismiss, hire};
use crate::sim::story::{Event, Happening, Place, Who, print_of};
use crate::sim::tape::Tape;
use crate::types::{Offset, TopicPartition};

/// Who has the baton when no member has: the thread that started the run.
const DRIVER: usize = usize::MAX;

/// After how long a member or a process is started again that has failed.
pub(crate) const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How long nothing must happen before a run is over that has not done everything: longer than an automatic commit takes.
const QUIET: Duration = Duration::from_secs(10);

/// How often somebody looks who spins: often enough to see what comes soon, seldom enough to be simulated.
const LOOKS_EVERY: Duration = Duration::from_micros(50);

/// So many events are a short run.
const SHORT_STORY: usize = 64;

/// A run that has come by so many points does not come to rest.
const MOST_POINTS: u64 = 100_000;

/// How often the driver looks whether the members still go on, in real time, and how often in vain.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_IDLE_LOOKS: u64 = 6;

/// What unwinds a member whose life is over.
struct Curtain;

/// Unwinds the caller, whose life is over.
pub(crate) fn unwind() -> ! {
    resume_unwind(Box::new(Curtain))
}

/// What a member does from when it is started until it returns.
pub(crate) type Act = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The code of one member: it gets the log as it is open in this life.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) act: Arc<dyn Fn(Arc<Stage>, EventLog) -> Act + Send + Sync>,
    /// Whether it waits in the middle of a step: then a thread looks on that finds out whether it still goes on.
    pub(crate) blocks: bool,
}

impl Body {
    pub(crate) fn blocking(code: impl Fn(&Stage, EventLog) -> Result<()> + Send + Sync + 'static) -> Self {
        let code = Arc::new(code);
        let act = move |stage: Arc<Stage>, log| -> Act {
            let code = Arc::clone(&code);
            Box::pin(async move { code(&stage, log) })
        };
        Body { act: Arc::new(act), blocks: true }
    }
}

/// How the process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Death {
    /// The process alone.
    Crash,
    /// The machine. The number decides what is left.
    PowerCut(PowerCut, u64),
}

/// Why the run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Everything that was sent is committed, or nothing goes on.
    Idle,
    /// The code of a member panicked.
    Panicked(String),
    /// It never came to rest, or everybody waited for ever.
    Stuck(String),
}

/// One run: its members, its choices, its story.
pub(crate) struct Stage {
    clock: Arc<SimClock>,
    /// Who has the baton.
    running: AtomicUsize,
    state: Mutex<State>,
    /// The disk and the log of this life.
    disk: Mutex<Option<Arc<SimDisk>>>,
    log: Mutex<Option<EventLog>>,
    next_bell: AtomicU64,
    /// How often the driver has looked and nobody had come by a point since it last did.
    idle_looks: AtomicU64,
    driver: Thread,
    #[cfg(test)]
    mistake: Option<Mistake>,
}

struct State {
    tape: Tape,
    left: Budget,
    story: Vec<Event>,
    members: Vec<Member>,
    /// Threads for steps, besides the driver's, and whether each has one.
    players: Vec<(Player, bool)>,
    /// Before the members start nothing is written down and nothing goes wrong.
    started: bool,
    dead: Option<Death>,
    over: Option<Over>,
    points: u64,
    progress: Duration,
    /// What was taken, by whom: to take it again is no progress.
    taken: BTreeSet<(Who, Place)>,
    /// What is sent and committed, as far as the stage has seen.
    ends: BTreeMap<TopicPartition, u64>,
    committed: BTreeMap<(Arc<str>, TopicPartition), u64>,
    groups: Vec<Followed>,
    stall: Duration,
}

/// A group that has everything when it has committed the ends of these topics.
pub(crate) struct Followed {
    pub(crate) group: Arc<str>,
    pub(crate) topics: Vec<String>,
}

struct Member {
    waits: Waits,
    /// Whether it polls, or has polled and found nothing: then waiting is being idle.
    polling: bool,
    /// Whether it has failed, and not polled since: who does nothing but fail is not done.
    failing: bool,
    /// Whether its function has returned for good.
    ended: bool,
    /// Whether whoever calls the library looks for itself whether its life is over, and need not be unwound.
    looks: bool,
    /// What it is to do, between two steps. In the middle of one that is on a thread.
    life: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    alarm: Arc<Alarm>,
    /// The thread on which it waits in the middle of a step.
    thread: Option<Thread>,
}

/// What a member waits for, besides the baton.
#[derive(Clone, Copy, Debug)]
enum Waits {
    No,
    ForBell { bell: u64, until: Option<Duration>, rang: bool },
    Until(Duration),
}

/// What becomes of a member at a point.
#[derive(Clone, Copy)]
enum Fate {
    GoesOn,
    Dies(Death),
    Panics,
    Stalls(Duration),
    LetsGoOn(usize),
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

/// What the run is told by whoever drives it.
impl Stage {
    pub(crate) fn new(clock: Arc<SimClock>, tape: Tape, left: Budget, stall: Duration) -> Self {
        let state = State {
            tape,
            left,
            story: Vec::with_capacity(SHORT_STORY),
            members: Vec::new(),
            players: Vec::new(),
            started: false,
            dead: None,
            over: None,
            points: 0,
            progress: Duration::ZERO,
            taken: BTreeSet::new(),
            ends: BTreeMap::new(),
            committed: BTreeMap::new(),
            groups: Vec::new(),
            stall,
        };
        Stage {
            clock,
            running: AtomicUsize::new(DRIVER),
            state: Mutex::new(state),
            disk: Mutex::new(None),
            log: Mutex::new(None),
            next_bell: AtomicU64::new(0),
            idle_looks: AtomicU64::new(0),
            driver: thread::current(),
            #[cfg(test)]
            mistake: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn with_mistake(mut self, mistake: Option<Mistake>) -> Self {
        self.mistake = mistake;
        self
    }

    /// Faults may happen from now on.
    pub(crate) fn start(&self, groups: Vec<Followed>, ends: BTreeMap<TopicPartition, u64>) {
        let mut state = self.state.lock();
        state.groups = groups;
        state.ends = ends;
        state.started = true;
    }

    pub(crate) fn note_event(&self, who: Who, what: Happening) {
        let mut state = self.state.lock();
        self.write(&mut state, who, what);
    }

    fn write(&self, state: &mut State, who: Who, what: Happening) {
        let at = self.clock.monotonic();
        if state.is_progress(who, &what) {
            state.progress = at;
        }
        state.story.push(Event { at, who, what });
    }

    /// Whether a bit may be turned over.
    pub(crate) fn may_flip_a_bit(&self) -> bool {
        let state = self.state.lock();
        state.left.faults.bit_flips > 0 && state.left.in_all > 0
    }

    /// Whether one is turned over that may be; then it counts as done.
    pub(crate) fn take_bit_flip(&self) -> bool {
        let mut state = self.state.lock();
        if state.tape.seldom(2) == 0 {
            return false;
        }
        state.left.faults.bit_flips -= 1;
        state.left.in_all -= 1;
        true
    }

    /// One number of many, for what is flipped.
    pub(crate) fn draw_evenly(&self, limit: u32) -> u32 {
        self.state.lock().tape.evenly(limit)
    }

    /// Groups have committed this, as a restarted process finds it.
    pub(crate) fn restarted(&self, committed: Vec<(Arc<str>, TopicPartition, Offset)>) {
        let mut state = self.state.lock();
        state.committed =
            committed.iter().map(|(group, name, offset)| ((Arc::clone(group), name.clone()), offset.get())).collect();
        self.write(&mut state, Who::Machine, Happening::Restart { committed });
    }

    /// How this life has ended, if it has; the next one begins.
    pub(crate) fn take_death(&self) -> Option<Death> {
        self.state.lock().dead.take()
    }

    pub(crate) fn over(&self) -> Option<Over> {
        self.state.lock().over.clone()
    }

    /// Ends the run from outside of it.
    pub(crate) fn give_up(&self, reason: Over) {
        self.state.lock().over.get_or_insert(reason);
    }

    /// The story and the tape, once the run is over.
    pub(crate) fn finish(&self) -> (Vec<Event>, Tape) {
        // The disk knows the stage: otherwise they would keep one another for ever.
        drop(self.disk.lock().take());
        let mut state = self.state.lock();
        let empty = Tape::replay(&[]);
        (mem::take(&mut state.story), mem::replace(&mut state.tape, empty))
    }

    /// The disk of this life, and the log once it is open.
    pub(crate) fn set_disk(self: &Arc<Self>, disk: &Arc<SimDisk>) {
        disk.direct(Arc::clone(self) as _);
        *self.disk.lock() = Some(Arc::clone(disk));
    }

    pub(crate) fn set_log(&self, log: Option<EventLog>) -> Option<EventLog> {
        mem::replace(&mut *self.log.lock(), log)
    }

    /// Runs the members until the process dies or the run is over.
    pub(crate) fn play(self: &Arc<Self>, bodies: &[Body], log: &EventLog) {
        let member = |(number, body): (usize, &Body)| Member {
            waits: Waits::No,
            polling: false,
            failing: false,
            ended: false,
            looks: false,
            life: Some(Box::pin(Arc::clone(self).live(number, body.clone(), log.clone()))),
            alarm: Alarm::new(self),
            thread: None,
        };
        let mut state = self.state.lock();
        state.members = bodies.iter().enumerate().map(member).collect();
        if !bodies.is_empty() {
            let first = state.tape.evenly(bodies.len() as u32) as usize;
            if bodies.len() > 1 && bodies.iter().any(|body| body.blocks) {
                self.hand_to(state, first);
            } else {
                drop(state);
                self.running.store(first, Ordering::SeqCst);
                self.take_steps(first, None);
            }
            self.await_baton(DRIVER);
            state = self.state.lock();
        }
        dismiss(mem::take(&mut state.players).into_iter().map(|(player, _)| player));
        let members = mem::take(&mut state.members);
        if state.dead.is_none() && state.over.is_none() {
            state.over = Some(Over::Idle);
            let drained = state.has_everything();
            self.write(&mut state, Who::Machine, Happening::Idle { drained });
        }
        drop(state);
        drop(members);
    }

    /// Takes one step after the other, of whoever is next and has the baton, until that is somebody who waits on a thread of
    /// its own. `player`: the thread that this is, if it is not the driver's.
    fn take_steps(self: &Arc<Self>, mut next: usize, player: Option<usize>) {
        let before = look_on(Some(Arc::clone(self) as _));
        #[cfg(test)]
        plant(self.mistake);
        loop {
            self.take_step(next);
            let (mut state, chosen) = self.choose(next);
            if state.members.get(chosen).is_none_or(|member| member.life.is_none()) {
                look_on(before);
                if let Some(player) = player {
                    state.players[player].1 = false;
                }
                return self.hand_to(state, chosen);
            }
            self.running.store(chosen, Ordering::SeqCst);
            next = chosen;
        }
    }

    fn take_step(&self, me: usize) {
        let mut state = self.state.lock();
        let member = &mut state.members[me];
        member.waits = Waits::No;
        let (mut life, alarm) = (member.life.take().expect("it is between two steps"), Arc::clone(&member.alarm));
        drop(state);
        let waits = if self.curtain_has_fallen() { None } else { alarm.poll(life.as_mut()).err() };
        if waits.is_none() || self.curtain_has_fallen() {
            self.look(true);
            // What it holds may call the library when it is dropped, which does nothing then.
            drop(catch_unwind(AssertUnwindSafe(|| drop(life))));
            self.state.lock().members[me].ended = true;
        } else if let Some((bell, until)) = waits {
            let mut state = self.state.lock();
            state.members[me].life = Some(life);
            state.members[me].waits = Waits::ForBell { bell, until, rang: false };
        }
    }
}

/// What a member does.
impl Stage {
    /// The life of a member: its function, again and again until it returns.
    async fn live(self: Arc<Self>, me: usize, body: Body, log: EventLog) {
        loop {
            self.look(false);
            self.note_event(Who::Member(me), Happening::Starts);
            let mut act = (body.act)(Arc::clone(&self), log.clone());
            let mut step = |context: &mut Context<'_>| catch_unwind(AssertUnwindSafe(|| act.as_mut().poll(context)));
            let outcome = poll_fn(|context| match step(context) {
                Ok(step) => step.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            });
            let outcome = outcome.await;
            if self.curtain_has_fallen() {
                return;
            }
            match outcome {
                Ok(Ok(())) => return self.note_event(Who::Member(me), Happening::Ends),
                Ok(Err(error)) => {
                    self.note_event(Who::Member(me), Happening::Fails(error.to_string()));
                    self.state.lock().members[me].failing = true;
                    if matches!(error, Error::SyncFailed { .. } | Error::Closed) {
                        // The log is of no use any more: whoever runs this restarts it.
                        return self.die(Death::Crash);
                    }
                }
                Err(payload) if payload.is::<Curtain>() => {}
                Err(payload) => {
                    let message = message_of(&*payload);
                    self.note_event(Who::Member(me), Happening::Panics(message.clone()));
                    return self.give_up(Over::Panicked(message));
                }
            }
            // Until it is started again, which is nothing that a run waits for.
            self.set_polling(&mut self.state.lock(), me, true);
            Sleep::new(RESTART_AFTER).await;
            self.set_polling(&mut self.state.lock(), me, false);
        }
    }

    fn curtain_has_fallen(&self) -> bool {
        let state = self.state.lock();
        state.dead.is_some() || state.over.is_some()
    }

    /// Unwinds the caller if its life is over. If it looks for that itself, it is only told so.
    fn unwind_the_dead(&self) -> bool {
        let is_over = self.curtain_has_fallen();
        if is_over && self.is_to_be_unwound() {
            unwind();
        }
        is_over
    }

    /// Whether the caller's life is over and it does not look for that itself.
    fn is_to_be_unwound(&self) -> bool {
        let me = self.me();
        let state = self.state.lock();
        let is_over = state.dead.is_some() || state.over.is_some();
        is_over && !state.members.get(me).is_some_and(|member| member.looks) && !thread::panicking()
    }

    /// Unwinds the caller if its life is over, also one that looks for itself: it would wait for ever.
    fn unwind_who_waits(&self) {
        if self.curtain_has_fallen() {
            self.look(false);
            self.unwind_the_dead();
        }
    }

    /// Calls code of the user from code of the kit, which looks for itself whether its life is over. `None`: it is.
    pub(crate) fn unless_over<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        if self.curtain_has_fallen() {
            return None;
        }
        self.look(false);
        // The dead are unwound no further than need be.
        let called = catch_unwind(AssertUnwindSafe(call));
        self.look(true);
        match called {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Curtain>() && self.curtain_has_fallen() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// From now on the caller looks for itself whether its life is over, or is unwound again.
    pub(crate) fn look(&self, looks: bool) {
        let me = self.me();
        if let Some(member) = self.state.lock().members.get_mut(me) {
            member.looks = looks;
        }
    }

    fn me(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn who(&self) -> Who {
        match self.me() {
            DRIVER => Who::Machine,
            member => Who::Member(member),
        }
    }

    /// The process or the machine dies here.
    fn die(&self, death: Death) {
        let mut state = self.state.lock();
        if state.dead.is_none() && state.over.is_none() {
            state.dead = Some(death);
        }
        drop(state);
        self.kill_disk();
    }

    fn kill_disk(&self) {
        let disk = self.disk.lock().clone();
        if let Some(disk) = disk {
            disk.die();
        }
    }

    pub(crate) fn sleep_for(&self, time: Duration) {
        let until = self.clock.monotonic().saturating_add(time);
        self.wait(Waits::Until(until));
    }

    pub(crate) fn next_bell(&self) -> u64 {
        self.next_bell.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn wait_for_bell(&self, bell: u64, until: Option<Duration>) {
        self.wait(Waits::ForBell { bell, until, rang: false });
    }

    /// [`wait_for_bell`](Self::wait_for_bell) for who can return: false if the caller's life is over.
    pub(crate) fn rest(&self, bell: u64, until: Option<Duration>) -> bool {
        self.give_up_the_baton(Waits::ForBell { bell, until, rang: false });
        !self.curtain_has_fallen()
    }

    /// Whoever waits for the bell may go on.
    pub(crate) fn ring(&self, rung: u64) {
        for member in &mut self.state.lock().members {
            if let Waits::ForBell { bell, rang, .. } = &mut member.waits
                && *bell == rung
            {
                *rang = true;
            }
        }
    }

    /// Gives the baton up until what is waited for has come; whoever is dead by then is unwound.
    fn wait(&self, waits: Waits) {
        self.give_up_the_baton(waits);
        if self.me() != DRIVER {
            self.unwind_who_waits();
        }
    }

    fn give_up_the_baton(&self, waits: Waits) {
        let me = self.me();
        if me == DRIVER {
            return self.wait_alone(waits);
        }
        self.state.lock().members[me].waits = waits;
        self.switch(me);
    }

    /// The driver waits for nobody but the clock.
    fn wait_alone(&self, waits: Waits) {
        match waits {
            Waits::ForBell { until: Some(until), .. } | Waits::Until(until) => self.clock.reach(until),
            _ => {}
        }
    }

    /// Lets somebody else go on, or the same one; returns when it is this one's turn.
    fn switch(&self, me: usize) {
        let (mut state, next) = self.choose(me);
        if next != me {
            self.let_go_on(state, me, next);
            state = self.state.lock();
        }
        state.members[me].waits = Waits::No;
    }

    /// Gives the baton to `next` in the middle of a step; returns when it is back.
    fn let_go_on(&self, mut state: MutexGuard<'_, State>, me: usize, next: usize) {
        state.members[me].thread = Some(thread::current());
        self.hand_to(state, next);
        self.await_baton(me);
    }

    fn hand_to(&self, mut state: MutexGuard<'_, State>, next: usize) {
        self.running.store(next, Ordering::SeqCst);
        if next == DRIVER {
            drop(state);
            return self.driver.unpark();
        }
        match state.members[next].thread.take() {
            Some(thread) => thread.unpark(),
            None => state.find_thread(next),
        }
    }

    fn await_baton(&self, me: usize) {
        let mut points = 0;
        while self.running.load(Ordering::SeqCst) != me {
            if me != DRIVER {
                thread::park();
                continue;
            }
            thread::park_timeout(PATIENCE);
            let running = self.me();
            let seen = mem::replace(&mut points, self.state.lock().points);
            // Time also goes by without anything to see where the machine is busy with others.
            if running != DRIVER && seen == points && points != 0 {
                self.idle_looks.fetch_add(1, Ordering::Relaxed);
                assert!(
                    self.idle_looks.load(Ordering::Relaxed) < MOST_IDLE_LOOKS,
                    "member {running} has not called the library for a minute: it loops, or waits for something that only \
                     another member can do, and only one of them runs at a time"
                );
            } else {
                self.idle_looks.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Who is next; if need be after some time. `from` has just given up the baton.
    fn choose(&self, from: usize) -> (MutexGuard<'_, State>, usize) {
        loop {
            let mut state = self.state.lock();
            if state.dead.is_some() || state.over.is_some() {
                let next = state.next_to_end(from);
                return (state, next);
            }
            let now = self.clock.monotonic();
            let ready: Vec<usize> = state.ready(now, from);
            if !ready.is_empty() {
                let chosen = state.tape.evenly(ready.len() as u32) as usize;
                return (state, ready[chosen]);
            }
            if state.members.iter().all(|member| member.ended) {
                return (state, DRIVER);
            }
            let idle = state.members.iter().all(|member| member.ended || member.polling);
            let drained = idle && state.has_everything() && !state.members.iter().any(|member| member.failing);
            if drained && self.strike_at_rest(&mut state) {
                drop(state);
                self.kill_disk();
                continue;
            }
            if drained || idle && now > state.progress.saturating_add(QUIET) {
                state.over = Some(Over::Idle);
                self.write(&mut state, Who::Machine, Happening::Idle { drained });
                continue;
            }
            drop(state);
            self.let_time_go_by(now);
        }
    }

    /// Does what the log has to do, or lets the clock jump to the next moment at which anything is due.
    fn let_time_go_by(&self, now: Duration) {
        let log = self.log.lock().clone();
        // What the log does by itself is nobody's step.
        let due = log.and_then(|log| log.maintain()).map(|after| self.clock.monotonic().saturating_add(after));
        let mut state = self.state.lock();
        if state.dead.is_some() || !state.ready(now, 0).is_empty() {
            return;
        }
        let untils = state.members.iter().filter(|member| !member.ended).filter_map(|member| match member.waits {
            Waits::ForBell { until, .. } => until,
            Waits::Until(until) => Some(until),
            Waits::No => None,
        });
        match untils.chain(due).min() {
            Some(moment) => self.clock.reach(moment),
            None => state.over = Some(Over::Stuck("everybody waits for ever".to_owned())),
        }
    }

    /// What happens to who comes by a point.
    fn decide(&self, state: &mut State, me: usize) -> Fate {
        state.points += 1;
        if state.points > MOST_POINTS {
            let reason = format!("it does not come to rest: after {MOST_POINTS} calls of the library it still goes on");
            state.over = Some(Over::Stuck(reason));
            return Fate::GoesOn;
        }
        let others: Vec<usize> = if state.left.preemptions > 0 && state.members.len() > 1 {
            let now = self.clock.monotonic();
            state.ready(now, me).into_iter().filter(|other| *other != me).collect()
        } else {
            Vec::new()
        };
        let faults = state.left.in_all > 0;
        let counts = &state.left.faults;
        let [crash, cut, panic, stall] =
            [counts.crashes, counts.power_cuts, counts.panics, counts.stalls].map(|left| u32::from(faults && left > 0));
        let limit = 1 + crash + cut + panic + stall + others.len() as u32;
        let mut drawn = state.tape.seldom(limit);
        if drawn == 0 {
            return Fate::GoesOn;
        }
        drawn -= 1;
        for (kind, there) in [crash, cut, panic, stall].into_iter().enumerate() {
            if drawn < there {
                return self.strike(state, kind);
            }
            drawn -= there;
        }
        state.left.preemptions -= 1;
        Fate::LetsGoOn(others[drawn as usize])
    }

    fn strike(&self, state: &mut State, kind: usize) -> Fate {
        let who = self.who();
        match kind {
            0 => Fate::Dies(self.crash(state)),
            1 => Fate::Dies(self.cut_power(state)),
            2 => {
                state.left.in_all -= 1;
                state.left.faults.panics -= 1;
                self.write(state, who, Happening::Panic);
                Fate::Panics
            }
            _ => {
                state.left.in_all -= 1;
                state.left.faults.stalls -= 1;
                let time = state.stall;
                self.write(state, who, Happening::Stall(time));
                Fate::Stalls(time)
            }
        }
    }

    /// When everything is done, the process or the machine may still die.
    fn strike_at_rest(&self, state: &mut State) -> bool {
        if state.left.in_all == 0 {
            return false;
        }
        let [crash, cut] = [state.left.faults.crashes, state.left.faults.power_cuts].map(|left| u32::from(left > 0));
        state.dead = match state.tape.seldom(1 + crash + cut) {
            0 => None,
            n if n <= crash => Some(self.crash(state)),
            _ => Some(self.cut_power(state)),
        };
        state.dead.is_some()
    }

    fn crash(&self, state: &mut State) -> Death {
        state.left.in_all -= 1;
        state.left.faults.crashes -= 1;
        let who = self.who();
        self.write(state, who, Happening::Crash);
        Death::Crash
    }

    fn cut_power(&self, state: &mut State) -> Death {
        state.left.in_all -= 1;
        state.left.faults.power_cuts -= 1;
        /// What all runs of a scope are made with: the two extremes, and what lies between them a few times.
        const FEW: [PowerCut; 4] = [PowerCut::LoseUnsynced, PowerCut::KeepAll, PowerCut::Sectors, PowerCut::Garbled];
        let (kinds, seeds): (&[PowerCut], u32) =
            if state.left.few_outcomes { (&FEW, 2) } else { (&PowerCut::ALL, 1 << 16) };
        let how = kinds[state.tape.evenly(kinds.len() as u32) as usize];
        let seed = match how {
            PowerCut::LoseUnsynced | PowerCut::KeepAll => 0,
            _ => state.tape.evenly(seeds),
        };
        let who = self.who();
        self.write(state, who, Happening::PowerCut(how));
        Death::PowerCut(how, u64::from(seed))
    }

    /// Writes down what was seen, and what it means for being done.
    fn see(&self, state: &mut State, what: What<'_>) {
        let me = self.me();
        let who = self.who();
        let happening = match what {
            What::Poll => {
                self.set_polling(state, me, true);
                Happening::Polls
            }
            What::Polled(count) => {
                // Who has found nothing is idle, however it waits before it looks again.
                self.set_polling(state, me, count == 0);
                if let Some(member) = state.members.get_mut(me) {
                    member.failing = false;
                }
                Happening::Polled(count)
            }
            What::Take { partition, offset, key, value } => Happening::Takes {
                place: Place { partition: partition.clone(), offset: offset.get() },
                print: print_of(key, value),
            },
            What::TookAll => Happening::TakesNoMore,
            What::Commit => Happening::Commits,
            What::Committed { group, offsets } => {
                let group: Arc<str> = match state.groups.iter().find(|known| *known.group == *group) {
                    Some(known) => Arc::clone(&known.group),
                    None => group.into(),
                };
                for (name, offset) in offsets {
                    let before = state.committed.insert((Arc::clone(&group), name.clone()), offset.offset.get());
                    if before != Some(offset.offset.get()) {
                        state.progress = self.clock.monotonic();
                    }
                }
                let offsets = offsets.iter().map(|(name, offset)| (name.clone(), offset.offset)).collect();
                Happening::Committed { group, offsets }
            }
            What::CommitReturned => Happening::CommitReturned,
            What::Assigned { generation, partitions } => Happening::Assigned { generation, partitions },
            What::Send | What::Wait | What::Step => return,
            What::Sent { partition, offset, key, value } => {
                let end = state.ends.entry(partition.clone()).or_insert(0);
                *end = (*end).max(offset.get() + 1);
                let place = Place { partition: partition.clone(), offset: offset.get() };
                Happening::Sends { place, print: print_of(key, value) }
            }
            What::Named(name) => Happening::Passes(name),
        };
        self.write(state, who, happening);
    }

    /// Returns whether it was polling before.
    fn set_polling(&self, state: &mut State, me: usize, polling: bool) -> bool {
        state.members.get_mut(me).is_some_and(|member| mem::replace(&mut member.polling, polling))
    }

    /// Comes by a point where everything may happen. `what`: to be written down.
    fn come_by(&self, what: What<'_>) {
        if thread::panicking() || self.me() == DRIVER {
            return;
        }
        // A record that is taken is in the story even if its taker dies with it in hand; all else is decided first.
        if let What::Take { .. } = what {
            if !self.unwind_the_dead() {
                self.see(&mut self.state.lock(), what);
                self.come_by_unseen();
            }
        } else {
            self.come_by_unseen();
            self.note(what);
        }
    }

    fn meet(&self, me: usize, fate: Fate) {
        match fate {
            Fate::GoesOn => {}
            Fate::Dies(death) => self.die(death),
            Fate::Panics => unwind(),
            Fate::Stalls(time) => {
                // A run waits for who stalls, also in the middle of a poll.
                let polled = self.set_polling(&mut self.state.lock(), me, false);
                self.sleep_for(time);
                self.set_polling(&mut self.state.lock(), me, polled);
            }
            Fate::LetsGoOn(other) => {
                let state = self.state.lock();
                self.let_go_on(state, me, other);
            }
        }
    }

    fn come_by_unseen(&self) {
        if !self.pass_by() {
            unwind();
        }
    }

    /// Comes by a point of which nothing is written down; false: the caller is to be unwound.
    fn pass_by(&self) -> bool {
        if thread::panicking() {
            return true;
        }
        let me = self.me();
        let mut state = self.state.lock();
        if state.dead.is_none() && state.over.is_none() {
            if me == DRIVER {
                return true;
            }
            let fate = self.decide(&mut state, me);
            if matches!(fate, Fate::GoesOn) && state.over.is_none() {
                return true;
            }
            drop(state);
            self.meet(me, fate);
        } else {
            drop(state);
        }
        !self.is_to_be_unwound()
    }
}

impl State {
    /// Whether the run is getting somewhere: not if something is only done again.
    fn is_progress(&mut self, who: Who, what: &Happening) -> bool {
        match what {
            Happening::Takes { place, .. } => self.taken.insert((who, place.clone())),
            Happening::Sends { .. } | Happening::Restart { .. } | Happening::Panic | Happening::Stall(_) => true,
            _ => false,
        }
    }

    /// Who could go on at this moment, beginning behind `from`.
    fn ready(&self, now: Duration, from: usize) -> Vec<usize> {
        let is_ready = |member: &Member| match member.waits {
            _ if member.ended => false,
            Waits::No => true,
            Waits::ForBell { until, rang, .. } => rang || until.is_some_and(|until| until <= now),
            Waits::Until(until) => until <= now,
        };
        let count = self.members.len();
        (1..=count).map(|step| (from + step) % count).filter(|number| is_ready(&self.members[*number])).collect()
    }

    /// Who is to end next, now that its life is over: the one that asks, if it has not ended, or another.
    fn next_to_end(&self, from: usize) -> usize {
        if self.members.get(from).is_some_and(|member| !member.ended) {
            return from;
        }
        self.members.iter().position(|member| !member.ended).unwrap_or(DRIVER)
    }

    /// Has the steps from that of `next` on taken on a thread that takes none.
    fn find_thread(&mut self, next: usize) {
        let idle = self.players.iter().position(|(_, busy)| !busy);
        let at = idle.unwrap_or_else(|| {
            self.players.push((hire(), false));
            self.players.len() - 1
        });
        let stage = self.members[next].alarm.stage();
        let (player, busy) = &mut self.players[at];
        *busy = true;
        player.give(Box::new(move || stage.take_steps(next, Some(at))));
    }

    /// Whether every group has committed everything that was sent.
    fn has_everything(&self) -> bool {
        self.groups.iter().all(|followed| {
            let mut mine =
                self.ends.iter().filter(|(name, _)| followed.topics.iter().any(|topic| topic == name.topic()));
            mine.all(|(name, end)| {
                *end == 0 || self.committed.get(&(Arc::clone(&followed.group), name.clone())) == Some(end)
            })
        })
    }
}

impl Onlooker for Stage {
    fn note(&self, what: What<'_>) {
        let mut state = self.state.lock();
        if state.started && state.dead.is_none() && state.over.is_none() {
            self.see(&mut state, what);
        }
    }

    fn reach(&self, what: What<'_>) {
        self.come_by(what);
    }

    fn pass(&self) {
        self.unwind_the_dead();
    }

    fn is_dead(&self) -> bool {
        self.curtain_has_fallen()
    }

    fn before_effect(&self) -> bool {
        self.pass_by()
    }

    fn after_effect(&self, store: usize) {
        if self.me() != DRIVER {
            self.note_event(self.who(), Happening::Effect { store });
        }
    }

    fn sleep(&self, time: Duration) {
        self.come_by_unseen();
        self.sleep_for(time);
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

impl Director for Stage {
    fn decide(&self, operation: Operation, _path: &Path) -> Verdict {
        let mut state = self.state.lock();
        if !state.started || state.over.is_some() || state.left.in_all == 0 {
            return Verdict::Done;
        }
        let counts = &state.left.faults;
        let grows = matches!(operation, Operation::Allocate | Operation::Create | Operation::CreateDir);
        let [crash, cut, error, full] =
            [counts.crashes, counts.power_cuts, counts.disk_errors, if grows { counts.disk_full } else { 0 }]
                .map(|left| u32::from(left > 0));
        let drawn = state.tape.seldom(1 + crash + cut + error + full);
        let who = self.who();
        match drawn {
            0 => Verdict::Done,
            n if n <= crash => {
                state.dead = Some(self.crash(&mut state));
                Verdict::Dies
            }
            n if n <= crash + cut => {
                state.dead = Some(self.cut_power(&mut state));
                Verdict::Dies
            }
            n if n <= crash + cut + error => {
                state.left.in_all -= 1;
                state.left.faults.disk_errors -= 1;
                let loses = operation == Operation::Sync && state.tape.evenly(2) == 1;
                self.write(&mut state, who, Happening::DiskFails(operation));
                let pages = if loses { SyncFailure::Lost } else { SyncFailure::StayDirty };
                Verdict::Fails(Failure::Errno(rustix::io::Errno::IO.raw_os_error()), pages)
            }
            _ => {
                state.left.in_all -= 1;
                state.left.faults.disk_full -= 1;
                self.write(&mut state, who, Happening::DiskFull);
                Verdict::Fails(Failure::Kind(io::ErrorKind::StorageFull), SyncFailure::StayDirty)
            }
        }
    }
}

/// The bells of a run.
#[derive(Debug)]
pub(crate) struct StageScheduler(pub(crate) Arc<Stage>);

impl Scheduler for StageScheduler {
    fn bell(&self) -> Bell {
        let bell = self.0.next_bell();
        Bell::new(Arc::new(StageParking { stage: Arc::clone(&self.0), bell }))
    }

    /// Looks once in a while of simulated time, in which the others go on.
    fn spin(&self, ready: &dyn Fn() -> bool, at_most: Duration) {
        let end = self.0.clock.monotonic().saturating_add(at_most);
        while !ready() && self.0.clock.monotonic() < end {
            self.0.unwind_who_waits();
            self.0.sleep_for(LOOKS_EVERY);
        }
    }

    fn give_way(&self, _ready: &dyn Fn() -> bool, _at_most: Duration) {}

    fn spawn(&self, _name: &str, _work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Worker>> {
        // What the worker does is done while everybody waits: the log is opened without one.
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Debug)]
struct StageParking {
    stage: Arc<Stage>,
    bell: u64,
}

impl Parking for StageParking {
    fn park(&self, rung: &AtomicU64, seen: u64, timeout: Option<Duration>) {
        // Only one thread runs, so nobody rings between this look and the waiting.
        if rung.load(Ordering::SeqCst) != seen {
            return;
        }
        self.stage.unwind_who_waits();
        let until = timeout.and_then(|timeout| self.stage.clock.monotonic().checked_add(timeout));
        self.stage.wait_for_bell(self.bell, until);
    }

    fn unpark(&self) {
        #[cfg(test)]
        if is_planted(Mistake::WakeUpLost) {
            return;
        }
        self.stage.ring(self.bell);
    }
}

/// What a panic says.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::env::conformance::{ALONE, World};
    use crate::sim::EPOCH;
    use crate::sim::faults::Faults;
    use crate::sim::tape::Tape;

    /// Runs this as the code of so many members, each of which is told its number.
    fn play(members: usize, code: impl Fn(&World, usize) + Send + Sync + 'static) {
        let clock = SimClock::new(EPOCH);
        let budget = Budget::drawn(&Faults::none());
        let stage = Arc::new(Stage::new(Arc::clone(&clock), Tape::random(7), budget, Duration::ZERO));
        let world = World { clock, scheduler: Arc::new(StageScheduler(Arc::clone(&stage))) };
        let code = Arc::new(code);
        let body = |member| {
            let (world, code) = (world.clone(), Arc::clone(&code));
            Body::blocking(move |_, _| {
                code(&world, member);
                Ok(())
            })
        };

        let (log, _controls) = EventLog::in_memory().unwrap();
        stage.play(&(0..members).map(body).collect::<Vec<_>>(), &log);

        assert_eq!(stage.over(), Some(Over::Idle));
    }

    #[test]
    fn a_ring_wakes_the_members_that_wait_for_that_bell_and_no_others() {
        let bells: Arc<OnceLock<[Bell; 2]>> = Arc::default();
        let woken: Arc<Mutex<BTreeMap<usize, Duration>>> = Arc::default();
        let theirs = Arc::clone(&woken);

        play(4, move |world, member| {
            let bells = bells.get_or_init(|| [world.scheduler.bell(), world.scheduler.bell()]);
            let ms = Duration::from_millis;
            let (bell, time) = match member {
                // Rings at 5 ms, for members 1 and 2.
                0 => (&bells[1], ms(5)),
                1 | 2 => (&bells[0], ms(1_000)),
                _ => (&bells[1], ms(20)),
            };
            bell.wait(bell.rung(), Some(time));
            if member == 0 {
                bells[0].ring();
            }
            theirs.lock().insert(member, world.clock.monotonic());
        });

        let times = [5, 5, 5, 20].map(Duration::from_millis);
        assert_eq!(*woken.lock(), (0..).zip(times).collect());
    }

    #[test]
    fn the_stage_keeps_the_rules_of_clocks_and_schedulers() {
        for (rule, members) in ALONE.iter().flat_map(|rule| [(*rule, 1), (*rule, 3)]) {
            play(members, move |world, _| rule(world));
        }
    }
}
