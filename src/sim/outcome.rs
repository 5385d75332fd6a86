//! What a run has come to, and what must hold of it.
//!
//! A record counts as *processed* by a group once a member has taken it and has gone on since: to the next record or the
//! end of them, the next poll, or its own end. Where the scenario has a store [outside](crate::sim::Outside), going on is not enough: the member
//! must have changed a store after it took the record and before its life was over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::sim::scenario::Outside;
use crate::sim::stage::Over;
use crate::sim::story::{Event, Happening, Place, Who};
use crate::types::{Offset, TopicPartition};

/// A record that was in a topic from the beginning.
#[derive(Clone, PartialEq, Eq)]
pub struct Sent {
    pub(crate) place: Place,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) print: u64,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sent({})", self.place)
    }
}

impl Sent {
    /// The topic and the partition.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.place.partition
    }

    /// The offset.
    pub fn offset(&self) -> Offset {
        Offset::new(self.place.offset)
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// A guarantee that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) guarantee: &'static str,
    pub(crate) says: String,
}

/// What a run has come to. Each of its methods checks a guarantee; the first that does not hold is the run's failure.
pub struct Outcome {
    pub(crate) story: Vec<Event>,
    over: Over,
    sent: Vec<Sent>,
    /// The members' names, and for those of groups which.
    pub(crate) names: Vec<String>,
    group_of: Vec<usize>,
    groups: Vec<(Arc<str>, Vec<String>)>,
    has_stores: bool,
    /// The place that each event speaks of, by its number among [`Places`]; [`NO_PLACE`] if it speaks of none.
    numbers: OnceLock<Vec<usize>>,
    broken: Mutex<Option<Broken>>,
    /// Behind which event something was broken, if that can be said.
    broken_behind: Mutex<Option<usize>>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome({} events, {:?})", self.story.len(), self.over)
    }
}

/// A group, and a partition that it commits.
type Of<'a> = (&'a str, &'a TopicPartition);

/// What one group has done with one record.
#[derive(Clone, Default)]
struct Handled {
    taken: u64,
    processed: bool,
}

const NO_PLACE: usize = usize::MAX;

/// The places that a story speaks of, as numbers: those of the records that were sent come first, in their order.
struct Places<'a> {
    known: Vec<&'a Place>,
    /// The number that was asked for last. The next is mostly one higher.
    last: usize,
}

impl<'a> Places<'a> {
    fn number(&mut self, place: &'a Place) -> usize {
        let (before, behind) = self.known.split_at(self.last);
        let found = behind.iter().position(|known| *known == place).map(|at| self.last + at);
        let found = found.or_else(|| before.iter().position(|known| *known == place));
        self.last = found.unwrap_or_else(|| {
            self.known.push(place);
            self.known.len() - 1
        });
        self.last
    }
}

impl Outcome {
    pub(crate) fn new(
        story: Vec<Event>,
        over: Over,
        sent: Vec<Sent>,
        names: Vec<String>,
        group_of: Vec<usize>,
        groups: Vec<(Arc<str>, Vec<String>)>,
        has_stores: bool,
    ) -> Self {
        let outcome = Outcome {
            story,
            over,
            sent,
            names,
            group_of,
            groups,
            has_stores,
            numbers: OnceLock::new(),
            broken: Mutex::new(None),
            broken_behind: Mutex::new(None),
        };
        match &outcome.over {
            Over::Idle => {}
            Over::Panicked(message) => outcome.fail("no panic", message.clone()),
            Over::Stuck(reason) => outcome.fail("the run comes to rest", reason.clone()),
        }
        outcome
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        self.broken.lock().clone()
    }

    pub(crate) fn fail(&self, guarantee: &'static str, says: String) {
        self.broken.lock().get_or_insert(Broken { guarantee, says });
    }

    /// What happened at this event breaks the guarantee.
    fn fail_at(&self, event: usize, guarantee: &'static str, says: String) {
        self.fail(guarantee, says);
        *self.broken_behind.lock() = Some(event);
    }

    /// The story up to the event that broke the guarantee, or all of it.
    pub(crate) fn shown(&self) -> &[Event] {
        let end = self.broken_behind.lock().map_or(self.story.len(), |at| at + 1);
        &self.story[..end]
    }

    /// Whether the last event that is [`shown`](Self::shown) is the one that broke the guarantee.
    pub(crate) fn is_broken_at_its_end(&self) -> bool {
        self.broken_behind.lock().is_some()
    }

    /// Whether nothing has failed so far: what follows from a failure is not worth checking.
    fn stands(&self) -> bool {
        self.broken.lock().is_none()
    }

    /// The records that were there from the beginning.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// How many crashes, power cuts and other faults there were.
    pub fn faults(&self) -> usize {
        let is_fault = |event: &&Event| {
            matches!(
                event.what,
                Happening::Crash
                    | Happening::PowerCut(_)
                    | Happening::Panic
                    | Happening::Stall(_)
                    | Happening::DiskFails(_)
                    | Happening::DiskFull
                    | Happening::BitFlip(_)
            )
        };
        self.story.iter().filter(is_fault).count()
    }

    /// How often a record was taken that its group had taken before.
    pub fn duplicates(&self) -> u64 {
        self.handled().iter().flatten().map(|handled| handled.taken.saturating_sub(1)).sum()
    }
}

/// What must hold.
impl Outcome {
    /// What a consumer with at-least-once delivery guarantees, all of it: [`no_record_lost`](Self::no_record_lost),
    /// [`no_offset_skipped`](Self::no_offset_skipped), [`key_order`](Self::key_order),
    /// [`single_owner`](Self::single_owner), [`commits_never_move_back`](Self::commits_never_move_back),
    /// [`true_records`](Self::true_records), [`drained`](Self::drained).
    pub fn at_least_once(&self) -> &Self {
        self.true_records()
            .no_offset_skipped()
            .no_record_lost()
            .key_order()
            .single_owner()
            .commits_never_move_back()
            .drained()
    }

    /// Every record was processed by every group that reads its topic.
    pub fn no_record_lost(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let handled = self.handled();
        for (group, (name, topics)) in self.groups.iter().enumerate() {
            let sent = self.sent.iter().zip(&handled[group]).filter(|(_, handled)| !handled.processed);
            let lost: Vec<&Place> = sent
                .map(|(sent, _)| &sent.place)
                .filter(|place| topics.iter().any(|topic| topic == place.partition.topic()))
                .collect();
            if !lost.is_empty() {
                let what = if self.has_stores { "taken and followed by an effect" } else { "processed" };
                self.fail("no record lost", format!("group {name} is done, and has never {what}: {}", list(&lost)));
                break;
            }
        }
        self
    }

    /// When a group commits an offset, its members have taken every record below it.
    pub fn no_offset_skipped(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let (numbers, mut taken) = (self.numbers(), self.for_each_sent(false));
        for (at, event) in self.story.iter().enumerate() {
            match (&event.what, self.group_of_event(event)) {
                (Happening::Takes { .. }, Some(group)) => *entry(&mut taken[group], numbers[at]) = true,
                (Happening::Committed { group: name, offsets }, _) => {
                    let Some(group) = self.groups.iter().position(|(known, _)| known == name) else { continue };
                    let below = |place: &&Place| {
                        offsets.iter().any(|(name, offset)| place.offset < offset.get() && *name == place.partition)
                    };
                    let not_taken = self.sent.iter().zip(&taken[group]).filter(|(_, taken)| !**taken);
                    let skipped: Vec<&Place> = not_taken.map(|(sent, _)| &sent.place).filter(below).collect();
                    if !skipped.is_empty() {
                        let says = format!(
                            "group {name} has committed behind what nobody had taken yet, and would lose it if it died \
                             now: {}",
                            list(&skipped)
                        );
                        self.fail_at(at, "no offset skipped", says);
                        break;
                    }
                }
                _ => {}
            }
        }
        self
    }

    /// Records of one key are taken in their order: whoever takes one for the first time, in its group, finds that all
    /// before it were taken.
    pub fn key_order(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let (numbers, mut taken) = (self.numbers(), self.for_each_sent(false));
        for (at, event) in self.story.iter().enumerate() {
            let Some(group) = self.group_of_event(event) else { continue };
            let Happening::Takes { place, .. } = &event.what else { continue };
            let number = numbers[at];
            if mem::replace(entry(&mut taken[group], number), true) {
                continue;
            }
            let Some(key) = self.sent.get(number).and_then(|sent| sent.key.as_ref()) else { continue };
            let not_taken = self.sent.iter().zip(&taken[group]).filter(|(_, taken)| !**taken).map(|(sent, _)| sent);
            let before = not_taken.filter(|sent| {
                let earlier = &sent.place;
                earlier.offset < place.offset && sent.key.as_ref() == Some(key) && earlier.partition == place.partition
            });
            let late: Vec<&Place> = before.map(|sent| &sent.place).collect();
            if !late.is_empty() {
                self.fail_at(at, "key order", format!("{place} was taken before {} of the same key", list(&late)));
                break;
            }
        }
        self
    }

    /// In one generation of a group no partition is assigned to two members.
    pub fn single_owner(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let mut owners: BTreeMap<(usize, u64, &TopicPartition), Who> = BTreeMap::new();
        for (at, event) in self.story.iter().enumerate() {
            match (&event.what, self.group_of_event(event)) {
                // A new process begins to count again.
                (Happening::Restart { .. }, _) => owners.clear(),
                (Happening::Assigned { generation, partitions }, Some(group)) if *generation > 0 => {
                    for partition in partitions {
                        let owner = *owners.entry((group, *generation, partition)).or_insert(event.who);
                        if owner != event.who {
                            let (one, other) = (self.name(owner), self.name(event.who));
                            let says = format!(
                                "{}-{} belongs to {one} and to {other} in generation {generation}",
                                partition.topic(),
                                partition.partition()
                            );
                            self.fail_at(at, "single owner", says);
                            return self;
                        }
                    }
                }
                _ => {}
            }
        }
        self
    }

    /// Once a partition was assigned to another member and that one has taken from it, the one before takes nothing
    /// from it and changes no store with it in hand.
    pub fn no_zombie_effects(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let mut newest: BTreeMap<(usize, &TopicPartition), (u64, Who)> = BTreeMap::new();
        let mut assigned: BTreeMap<(Who, &TopicPartition), u64> = BTreeMap::new();
        let mut in_hand: BTreeMap<Who, &Place> = BTreeMap::new();
        for (at, event) in self.story.iter().enumerate() {
            let Some(group) = self.group_of_event(event) else {
                if matches!(event.what, Happening::Restart { .. }) {
                    (newest, assigned, in_hand) = Default::default();
                }
                continue;
            };
            let place = match &event.what {
                Happening::Assigned { generation, partitions } => {
                    assigned.extend(partitions.iter().map(|partition| ((event.who, partition), *generation)));
                    continue;
                }
                Happening::Takes { place, .. } => {
                    in_hand.insert(event.who, place);
                    place
                }
                Happening::Effect { .. } => match in_hand.get(&event.who) {
                    Some(place) => *place,
                    None => continue,
                },
                _ => continue,
            };
            let mine = assigned.get(&(event.who, &place.partition)).copied().unwrap_or(0);
            let (owns, owner) = *newest.get(&(group, &place.partition)).unwrap_or(&(0, event.who));
            if owner != event.who && mine < owns {
                let (zombie, owner) = (self.name(event.who), self.name(owner));
                let says = format!(
                    "{zombie} ({} at {place}) works as of generation {mine}, after {owner} has begun as of generation {owns}",
                    event.what
                );
                self.fail_at(at, "no zombie effects", says);
                break;
            }
            if matches!(event.what, Happening::Takes { .. }) && mine >= owns {
                newest.insert((group, &place.partition), (mine, event.who));
            }
        }
        self
    }

    /// Within a life of the process, no commit of a group goes behind an earlier one; and no restart finds less than a
    /// commit that had returned.
    pub fn commits_never_move_back(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let mut committed: BTreeMap<Of<'_>, Offset> = BTreeMap::new();
        let mut pending: BTreeMap<Who, Vec<(Of<'_>, Offset)>> = BTreeMap::new();
        let mut returned: BTreeMap<Of<'_>, Offset> = BTreeMap::new();
        for (at, event) in self.story.iter().enumerate() {
            match &event.what {
                Happening::Committed { group, offsets } => {
                    for (name, offset) in offsets {
                        let before = committed.insert((group, name), *offset);
                        if before.is_some_and(|before| before > *offset) {
                            let says = format!(
                                "group {group}, {}-{}: {} was committed after {}",
                                name.topic(),
                                name.partition(),
                                offset.get(),
                                before.unwrap_or_default().get()
                            );
                            self.fail_at(at, "commits never move back", says);
                            return self;
                        }
                        pending.entry(event.who).or_default().push(((group, name), *offset));
                    }
                }
                Happening::CommitReturned => returned.extend(pending.remove(&event.who).unwrap_or_default()),
                Happening::Commits => drop(pending.remove(&event.who)),
                Happening::Restart { committed: found } => {
                    committed = found.iter().map(|(group, name, offset)| ((&**group, name), *offset)).collect();
                    for ((group, name), offset) in &returned {
                        let now = committed.get(&(*group, *name)).copied().unwrap_or_default();
                        if now < *offset {
                            let says = format!(
                                "group {group}, {}-{}: the commit of {} had returned, and after the restart it is {}",
                                name.topic(),
                                name.partition(),
                                offset.get(),
                                now.get()
                            );
                            self.fail_at(at, "commits never move back", says);
                            return self;
                        }
                    }
                    pending.clear();
                }
                _ => {}
            }
        }
        self
    }

    /// Those records, and no others, were put into this dead-letter topic.
    pub fn dead_letters(&self, topic: &str, is_poison: impl Fn(&Sent) -> bool) -> &Self {
        if !self.stands() {
            return self;
        }
        let letters: BTreeSet<u64> = self
            .story
            .iter()
            .filter_map(|event| match &event.what {
                Happening::Sends { place, print } if place.partition.topic() == topic => Some(*print),
                _ => None,
            })
            .collect();
        let wrong = self.sent.iter().find(|sent| is_poison(sent) != letters.contains(&sent.print));
        if let Some(sent) = wrong {
            let is = if is_poison(sent) { "was never put aside" } else { "was put aside, and is no poison" };
            self.fail("poison ends in the dead-letter topic", format!("{} {is} in {topic}", sent.place));
        }
        self
    }

    /// What is taken is what was sent, byte for byte.
    pub fn true_records(&self) -> &Self {
        if !self.stands() {
            return self;
        }
        let numbers = self.numbers();
        let mut prints: Vec<Option<u64>> = self.sent.iter().map(|sent| Some(sent.print)).collect();
        for (at, event) in self.story.iter().enumerate() {
            match &event.what {
                Happening::Sends { print, .. } => *entry(&mut prints, numbers[at]) = Some(*print),
                Happening::Takes { place, print } if *entry(&mut prints, numbers[at]) != Some(*print) => {
                    self.fail_at(at, "true records", format!("{place} is not what was sent there"));
                    break;
                }
                _ => {}
            }
        }
        self
    }

    /// No more than so many records were taken that their group had taken before.
    pub fn at_most_duplicates(&self, most: u64) -> &Self {
        let found = self.duplicates();
        if self.stands() && found > most {
            self.fail("duplicates within a bound", format!("{found} records were taken again, of at most {most}"));
        }
        self
    }

    /// At the end every group has committed everything.
    pub fn drained(&self) -> &Self {
        let drained = matches!(self.story.last(), Some(Event { what: Happening::Idle { drained: true }, .. }));
        if self.stands() && !drained {
            let last = self.story.iter().rev().find_map(|event| match &event.what {
                Happening::Fails(error) => Some(format!("; {} has failed at last: {error}", self.name(event.who))),
                _ => None,
            });
            let says = format!("nothing goes on, and not every record is committed{}", last.unwrap_or_default());
            self.fail("drained", says);
        }
        self
    }

    /// Every group has committed everything, at the latest so long after the last fault or restart.
    pub fn drained_within(&self, time: Duration) -> &Self {
        self.drained();
        let last_trouble = self.story.iter().rev().find(|event| {
            matches!(
                event.what,
                Happening::Restart { .. } | Happening::Panic | Happening::Stall(_) | Happening::DiskFails(_)
            )
        });
        let from = last_trouble.map_or(Duration::ZERO, |event| event.at);
        let until = self.story.last().map_or(Duration::ZERO, |event| event.at);
        if self.stands() && until.saturating_sub(from) > time {
            let says = format!("it took {:?} from the last fault on, of at most {time:?}", until.saturating_sub(from));
            self.fail("drained within a time", says);
        }
        self
    }

    /// Every record is in a store outside exactly once; `count` says how often it is.
    pub fn exactly_once<T>(&self, store: &Outside<T>, count: impl Fn(&T, &Sent) -> u64) -> &Self {
        self.counts("exactly once", store, count, |times| times == 1)
    }

    /// Every record is in a store outside once or more; `count` says how often it is.
    pub fn once_or_more<T>(&self, store: &Outside<T>, count: impl Fn(&T, &Sent) -> u64) -> &Self {
        self.counts("once or more", store, count, |times| times >= 1)
    }

    fn counts<T>(
        &self,
        guarantee: &'static str,
        store: &Outside<T>,
        count: impl Fn(&T, &Sent) -> u64,
        is_good: impl Fn(u64) -> bool,
    ) -> &Self {
        if self.stands() {
            let counted = self.sent.iter().map(|sent| (&sent.place, store.look(|state| count(state, sent))));
            let bad = counted.filter(|(_, times)| !is_good(*times));
            let list: Vec<String> = bad.map(|(place, times)| format!("{place} {times} times")).collect();
            if !list.is_empty() {
                self.fail(guarantee, list.join(", "));
            }
        }
        self
    }

    /// A guarantee of your own: `holds` looks at whatever it likes, and returns what is wrong.
    pub fn holds(&self, guarantee: &'static str, holds: impl FnOnce(&Self) -> Result<(), String>) -> &Self {
        if self.stands()
            && let Err(says) = holds(self)
        {
            self.fail(guarantee, says);
        }
        self
    }
}

impl Outcome {
    fn group_of_event(&self, event: &Event) -> Option<usize> {
        match event.who {
            Who::Member(member) => self.group_of.get(member).copied(),
            Who::Machine => None,
        }
    }

    /// Whether others are in the same group.
    pub(crate) fn has_peers(&self, who: Who) -> bool {
        let Who::Member(member) = who else { return false };
        let group = self.group_of.get(member);
        group.is_some() && self.group_of.iter().filter(|other| Some(*other) == group).count() > 1
    }

    pub(crate) fn name(&self, who: Who) -> &str {
        match who {
            Who::Member(member) => self.names.get(member).map_or("?", String::as_str),
            Who::Machine => "machine",
        }
    }

    /// The numbers of the places that the events speak of. Most guarantees ask for them.
    fn numbers(&self) -> &[usize] {
        self.numbers.get_or_init(|| {
            let mut places = Places { known: self.sent.iter().map(|sent| &sent.place).collect(), last: 0 };
            let mut numbers = Vec::with_capacity(self.story.len());
            for event in &self.story {
                numbers.push(match &event.what {
                    Happening::Takes { place, .. } | Happening::Sends { place, .. } => places.number(place),
                    _ => NO_PLACE,
                });
            }
            numbers
        })
    }

    /// For each group, something of each record that was sent; by the numbers of [`Places`].
    fn for_each_sent<T: Clone>(&self, something: T) -> Vec<Vec<T>> {
        vec![vec![something; self.sent.len()]; self.groups.len()]
    }

    /// What each group has done with each record, by the numbers of [`Places`].
    fn handled(&self) -> Vec<Vec<Handled>> {
        let mut handled = self.for_each_sent(Handled::default());
        // What each member has taken in this life and not yet processed.
        let mut open: Vec<Vec<usize>> = vec![Vec::new(); self.group_of.len()];
        for (event, number) in self.story.iter().zip(self.numbers()) {
            let (Who::Member(member), Some(group)) = (event.who, self.group_of_event(event)) else {
                if matches!(event.what, Happening::Restart { .. }) {
                    open.iter_mut().for_each(Vec::clear);
                }
                continue;
            };
            let (mine, handled) = (&mut open[member], &mut handled[group]);
            let processes = match &event.what {
                Happening::Effect { .. } => true,
                Happening::Takes { .. } | Happening::TakesNoMore | Happening::Polls | Happening::Ends => {
                    !self.has_stores
                }
                Happening::Starts => {
                    mine.clear();
                    false
                }
                _ => false,
            };
            if processes {
                mine.drain(..).for_each(|number| handled[number].processed = true);
            }
            if let Happening::Sends { print, .. } = &event.what {
                // Sent on as it is: to a dead-letter topic, for instance.
                let is_it = |number: &usize| self.sent.get(*number).is_some_and(|sent| sent.print == *print);
                if let Some(at) = mine.iter().position(is_it) {
                    handled[mine.remove(at)].processed = true;
                }
            }
            if let Happening::Takes { .. } = &event.what {
                entry(handled, *number).taken += 1;
                mine.push(*number);
            }
        }
        handled
    }
}

/// What is in the place of a number, which may be the first that high.
fn entry<T: Clone + Default>(of: &mut Vec<T>, number: usize) -> &mut T {
    if of.len() <= number {
        of.resize(number + 1, T::default());
    }
    &mut of[number]
}

/// Places, and no more of them than can be read.
fn list(places: &[&Place]) -> String {
    const MOST: usize = 8;
    let mut list: Vec<String> = places.iter().take(MOST).map(ToString::to_string).collect();
    if places.len() > MOST {
        list.push(format!("and {} more", places.len() - MOST));
    }
    list.join(", ")
}
