//! `tidelog demo`: sends, is killed, sends, reads, is killed, resumes; and checks every byte.
//!
//! The processes that are killed are this program under a hidden name (see [`child`]); they say through a pipe what the
//! log has promised them, and the pipe outlives them. What is shown at the end is counted from those lines and from
//! what the log holds, nothing else.

pub(crate) mod child;
pub(crate) mod event;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tidelog::{ConsumerConfig, Durability, EventLog, OffsetReset, ProducerRecord, TopicConfig};

use crate::failure::{Failure, Outcome};
use crate::output::{Output, Screen, Table, grouped, per_second};

const PARTITIONS: u32 = 3;
const THREADS: u32 = 4;
/// How many events are sent in all, if nobody says: enough for the rates to mean something, few enough for a slow disk.
pub(crate) const EVENTS: u64 = 300_000;
/// How many a thread sends before it waits for the disk.
const BURST: usize = 500;
/// How many a poll returns at most: more than the pipe holds that reports them, so that a kill mostly falls between
/// reading and committing.
const POLL: usize = 5000;
/// How much is listened to at once: little, for the same reason.
const LISTEN_BYTES: usize = 4096;
const GROUP: &str = "billing";

pub(crate) fn run(dir: Option<&Path>, events: u64, output: Output) -> Outcome {
    let place = Place::find(dir)?;
    let mut demo = Demo { stage: Stage { screen: Screen::new(), output }, place, events };
    let result = demo.play();
    match result {
        // What went wrong should be looked at.
        Err(failure @ Failure::Told { .. }) if demo.place.is_ours => {
            demo.place.is_ours = false;
            Err(failure.add(&format!(" (the log is kept in {})", demo.place.dir.display())))
        }
        result => result,
    }
}

/// Where the demo's log is.
struct Place {
    dir: PathBuf,
    topic: String,
    group: String,
    /// Whether the directory is the demo's own, to be removed at the end.
    is_ours: bool,
}

impl Place {
    fn find(dir: Option<&Path>) -> Outcome<Self> {
        let ours = || std::env::temp_dir().join(format!("tidelog-demo-{}", std::process::id()));
        let (dir, is_ours) = dir.map_or_else(|| (ours(), true), |dir| (dir.to_owned(), false));
        if is_ours {
            // One that is there already is not ours, whoever's it is.
            std::fs::create_dir(&dir).map_err(Failure::io("create", dir.display()))?;
        }
        let mut place = Place { dir, topic: "orders".into(), group: GROUP.into(), is_ours };
        let log = EventLog::open(&place.dir)?;
        // Somebody's own log, or that of the last demo: what is there stays.
        let (topics, groups) = (log.list_topics(), log.list_groups());
        let mut number = 1;
        while topics.contains(&place.topic) || groups.contains(&place.group) {
            number += 1;
            place.topic = format!("orders-{number}");
            place.group = format!("{GROUP}-{number}");
        }
        log.create_topic(&place.topic, TopicConfig::new().partitions(PARTITIONS).durability(Durability::Sync))?;
        log.close()?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_ours {
            // What cannot be removed lies in the system's directory for what may be removed.
            drop(std::fs::remove_dir_all(&self.dir));
        }
    }
}

/// What is told while it happens: text, or with `--output json` only the result.
struct Stage {
    screen: Screen,
    output: Output,
}

impl Stage {
    fn say(&mut self, line: &str) -> Outcome {
        if self.output == Output::Text {
            self.screen.line(line)?;
            self.screen.flush()?;
        }
        Ok(())
    }
}

struct Demo {
    stage: Stage,
    place: Place,
    events: u64,
}

/// A line of a child.
#[derive(Clone, Copy, Debug)]
enum Line {
    Acked { partition: u32, offset: u64, user: u64, number: u64 },
    Read { partition: u32, offset: u64, user: u64, number: u64, crc: u64 },
    Committed,
    Done { micros: u64 },
}

impl Line {
    fn parse(text: &str) -> Option<Line> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        let partition = u32::try_from(*numbers.first()?);
        Some(match (kind, numbers.as_slice()) {
            ("acked", &[_, offset, user, number]) => Line::Acked { partition: partition.ok()?, offset, user, number },
            ("read", &[_, offset, user, number, crc]) => {
                Line::Read { partition: partition.ok()?, offset, user, number, crc }
            }
            ("committed", [_, _]) => Line::Committed,
            ("done", &[_, micros]) => Line::Done { micros },
            _ => return None,
        })
    }
}

/// What a child said until it ended.
struct Told {
    lines: Vec<Line>,
    /// From the first line to the last.
    seconds: f64,
    was_killed: bool,
}

impl Told {
    fn count(&self) -> u64 {
        self.lines.iter().filter(|line| matches!(line, Line::Acked { .. } | Line::Read { .. })).count() as u64
    }
}

/// What the log holds, partition by partition in the order of offsets: user and number of each event.
type Held = Vec<Vec<(u64, u64)>>;

impl Demo {
    fn play(&mut self) -> Outcome {
        let (dir, topic) = (self.place.dir.display().to_string(), self.place.topic.clone());
        self.stage.say("tidelog demo: an event log, killed in the middle")?;
        self.stage.say(&format!("The log is the directory {dir}"))?;
        self.stage.say(&format!(
            "Topic {topic}: {PARTITIONS} partitions, durability sync: acknowledged means on the disk."
        ))?;
        self.stage.say("")?;

        self.stage
            .say(&format!("1  A process with {THREADS} threads sends events of {} users.", grouped(event::USERS)))?;
        let first = self.produce(self.events, Some(chance_between(self.events / 4, self.events / 2)))?;
        self.say_how_it_ended(&first, "acknowledged")?;

        let (held, opened) = self.read_all()?;
        let (total, lost) = (count(&held), missing(&first, &held));
        let rest = self.events.saturating_sub(total);
        self.stage.say(&format!(
            "2  The log opens in {opened:.0} ms with {} events: {}",
            grouped(total),
            of_acked(lost)
        ))?;
        let on_their_way = grouped((total + lost).saturating_sub(first.count()));
        self.stage.say(&format!("   that were acknowledged, and {on_their_way} that were on their way."))?;
        self.stage.say(&format!("   The next process goes on behind them and sends the other {}.", grouped(rest)))?;
        let second = self.produce(rest, None)?;
        self.say_how_it_ended(&second, "acknowledged")?;
        let (held, _) = self.read_all()?;

        self.stage.say(&format!(
            "3  Group {} reads, and commits after every {} events.",
            self.place.group,
            grouped(POLL as u64)
        ))?;
        let third = self.consume(Some(chance_between(self.events / 3, self.events * 2 / 3)))?;
        self.say_how_it_ended(&third, "read")?;
        let committed = self.committed()?;
        let sum: u64 = committed.values().sum();
        self.stage.say(&format!("4  The group resumes where it had committed, behind {} events.", grouped(sum)))?;
        let fourth = self.consume(None)?;
        self.say_how_it_ended(&fourth, "read")?;
        let (sent_fast, read_fast) = self.speed()?;

        let tally = Tally::of(&held, [&first, &second], [&third, &fourth], &committed);
        let rates = Rates {
            acked: per_second(second.count(), second.seconds),
            read: per_second(fourth.count(), fourth.seconds),
            sent_fast,
            read_fast,
        };
        self.show(&tally, &rates, &[&first, &third])
    }

    fn say_how_it_ended(&mut self, told: &Told, verb: &str) -> Outcome {
        let (count, rate) = (grouped(told.count()), grouped(per_second(told.count(), told.seconds)));
        let how = if told.was_killed {
            format!("kill -9 after {count} events {verb}")
        } else {
            format!("{count} events {verb}")
        };
        self.stage.say(&format!("   {how}, {rate}/s"))
    }

    fn produce(&self, records: u64, kill_after: Option<u64>) -> Outcome<Told> {
        // Whoever is to be killed must not be done before.
        let records = if kill_after.is_some() { records * 100 } else { records };
        let mut command = self.command("demo-produce");
        command.args(["--threads", &THREADS.to_string(), "--records", &records.to_string()]);
        command.args(["--burst", &BURST.to_string()]);
        run_and_listen(command, kill_after)
    }

    fn consume(&self, kill_after: Option<u64>) -> Outcome<Told> {
        let mut command = self.command("demo-consume");
        command.args(["--group", &self.place.group, "--poll", &POLL.to_string()]);
        run_and_listen(command, kill_after)
    }

    fn command(&self, name: &str) -> Command {
        let tool = std::env::current_exe().unwrap_or_else(|_| "tidelog".into());
        let mut command = Command::new(tool);
        command.arg("--dir").arg(&self.place.dir).args([name, "--topic", &self.place.topic]);
        command
    }

    /// Opens the log as the next process would, and reads all of it; the milliseconds are those of opening it.
    fn read_all(&self) -> Outcome<(Held, f64)> {
        let start = Instant::now();
        let log = EventLog::open(&self.place.dir)?;
        let opened = start.elapsed().as_secs_f64() * 1e3;
        let mut held: Held = vec![Vec::new(); PARTITIONS as usize];
        // The number that is due of each user: theirs are in order and without a gap.
        let mut due: HashMap<u64, u64> = HashMap::new();
        let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest))?;
        consumer.subscribe([self.place.topic.as_str()])?;
        loop {
            let records = consumer.poll(Duration::ZERO)?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                let (place, offset) = (record.topic_partition(), record.offset());
                let wrong = |what: &str| Failure::damaged(format!("offset {offset} of {place} {what}"));
                let known = record.key().and_then(event::user_of).zip(record.value().and_then(event::number_of));
                let (user, number) = known.ok_or_else(|| wrong("is no event of the demo"))?;
                if record.value() != Some(&event::value(user, number)) {
                    return Err(wrong("does not hold the bytes that were sent"));
                }
                let due = due.entry(user).or_insert(0);
                if number != *due {
                    return Err(wrong(&format!("is event {number} of user {user}, and {due} was due")));
                }
                *due += 1;
                let events = &mut held[record.partition() as usize];
                if offset.get() != events.len() as u64 {
                    return Err(wrong("does not follow the one before it"));
                }
                events.push((user, number));
            }
        }
        drop(consumer);
        log.close()?;
        Ok((held, opened))
    }

    /// What the group has committed, as the next process finds it. (Who reads beside sees what is proven to be on the
    /// disk, which after a kill may be a commit less.)
    fn committed(&self) -> Outcome<BTreeMap<u32, u64>> {
        let log = EventLog::open(&self.place.dir)?;
        if !log.list_groups().contains(&self.place.group) {
            return Ok(BTreeMap::new());
        }
        let group = log.describe_group(&self.place.group)?;
        let of_partition = |offset: &tidelog::GroupOffset| {
            (offset.partition.partition(), offset.committed.map_or(0, tidelog::Offset::get))
        };
        Ok(group.offsets.iter().map(of_partition).collect())
    }

    /// What one thread can do that talks to nobody: records a second, sent one at a time and read.
    fn speed(&self) -> Outcome<(u64, u64)> {
        let log = EventLog::open(&self.place.dir)?;
        let topic = format!("{}-speed", self.place.topic);
        log.create_topic(&topic, TopicConfig::new())?;
        let producer = log.producer();
        let value = [b'x'; 100];
        let start = Instant::now();
        for _ in 0..self.events {
            producer.send(ProducerRecord::new(&topic, &value))?;
        }
        producer.flush()?;
        let sent = per_second(self.events, start.elapsed().as_secs_f64());
        let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest))?;
        consumer.subscribe([topic.as_str()])?;
        let (mut read, mut bytes) = (0, 0);
        let start = Instant::now();
        while read < self.events {
            let records = consumer.poll(Duration::ZERO)?;
            for record in &records {
                read += 1;
                bytes += record.value().map_or(0, <[u8]>::len);
            }
            if records.is_empty() {
                return Err(Failure::failed(format!("{topic} holds {read} records, and {} were sent", self.events)));
            }
        }
        let rate = per_second(read, start.elapsed().as_secs_f64());
        assert_eq!(bytes as u64, self.events * value.len() as u64, "each record has its bytes");
        drop(consumer);
        log.delete_topic(&topic)?;
        Ok((sent, rate))
    }

    fn show(&mut self, tally: &Tally, rates: &Rates, killed: &[&Told]) -> Outcome {
        if self.stage.output == Output::Json {
            self.stage.screen.json(&tally.as_json(rates))?;
            self.stage.screen.flush()?;
        } else {
            self.stage.say("")?;
            for line in tally.lines() {
                self.stage.say(&line)?;
            }
            self.stage.say("")?;
            for line in rates.lines() {
                self.stage.say(&line)?;
            }
            self.stage.say("")?;
        }
        if killed.iter().any(|told| !told.was_killed) {
            return Err(Failure::failed(
                "a process ended before it could be killed, so this showed nothing; run it again",
            ));
        }
        if let Some(fault) = tally.faults().first() {
            return Err(Failure::damaged(format!("the log broke its promise: {fault}; please report this")));
        }
        self.stage.say("Nothing that was acknowledged is missing. Every event was read, with the bytes")?;
        self.stage.say("that were sent and in the order of its user; twice only what was not committed.")?;
        let dir = self.place.dir.display().to_string();
        if self.place.is_ours {
            return self.stage.say("(The directory is removed. `tidelog demo DIR` keeps it for you to look at.)");
        }
        self.stage.say(&format!("Look at it: tidelog --dir {dir} topics describe {}", self.place.topic))?;
        self.stage.say(&format!("            tidelog --dir {dir} groups describe {}", self.place.group))
    }
}

/// Runs a child, kills it once it has said `kill_after` lines of work, and listens to what it said to the last.
fn run_and_listen(mut command: Command, kill_after: Option<u64>) -> Outcome<Told> {
    let name = "the demo's own process";
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().map_err(Failure::io("start", name))?;
    let out: ChildStdout = child.stdout.take().expect("it was asked for");
    let mut reader = BufReader::with_capacity(LISTEN_BYTES, out);
    let mut told = Told { lines: Vec::new(), seconds: 0.0, was_killed: false };
    let mut work = 0;
    let mut start = None;
    let mut text = String::new();
    loop {
        text.clear();
        let read = reader.read_line(&mut text).map_err(Failure::io("listen to", name))?;
        if read == 0 || !text.ends_with('\n') {
            break;
        }
        let line = Line::parse(text.trim_end()).ok_or_else(|| Failure::failed(format!("{name} said {text:?}")))?;
        let start = start.get_or_insert_with(Instant::now);
        match line {
            Line::Done { micros } => told.seconds = micros as f64 / 1e6,
            _ => told.seconds = start.elapsed().as_secs_f64(),
        }
        told.lines.push(line);
        work += u64::from(matches!(line, Line::Acked { .. } | Line::Read { .. }));
        if kill_after == Some(work) {
            child.kill().map_err(Failure::io("kill", name))?;
        }
    }
    let status = child.wait().map_err(Failure::io("wait for", name))?;
    told.was_killed = status.signal() == Some(9);
    if !told.was_killed && !status.success() {
        return Err(Failure::failed(format!("{name} failed ({status})")));
    }
    Ok(told)
}

/// A number that nobody can foresee.
fn chance_between(low: u64, high: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    low + event::mix(now ^ u64::from(std::process::id())) % (high - low)
}

fn count(held: &Held) -> u64 {
    held.iter().map(|events| events.len() as u64).sum()
}

/// How many acknowledged events are not where they were said to be.
fn missing(told: &Told, held: &Held) -> u64 {
    let is_missing = |line: &&Line| match **line {
        Line::Acked { partition, offset, user, number } => event_at(held, partition, offset) != Some((user, number)),
        _ => false,
    };
    told.lines.iter().filter(is_missing).count() as u64
}

fn event_at(held: &Held, partition: u32, offset: u64) -> Option<(u64, u64)> {
    held.get(partition as usize)?.get(usize::try_from(offset).ok()?).copied()
}

fn of_acked(lost: u64) -> String {
    match lost {
        0 => "all of those".to_owned(),
        lost => format!("all but {} of those", grouped(lost)),
    }
}

/// What happened, partition by partition.
struct Tally {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    events: u64,
    acked: u64,
    lost: u64,
    before: u64,
    after: u64,
    twice: u64,
    /// Read twice although it was committed.
    twice_committed: u64,
    unread: u64,
    /// Read with other bytes than were sent, or at another offset.
    wrong: u64,
    /// Read before an earlier one of the same partition.
    disordered: u64,
}

impl Tally {
    fn of(held: &Held, sent: [&Told; 2], read: [&Told; 2], committed: &BTreeMap<u32, u64>) -> Self {
        let mut rows: Vec<Row> =
            held.iter().map(|events| Row { events: events.len() as u64, ..Row::default() }).collect();
        for line in sent.iter().flat_map(|told| &told.lines) {
            if let Line::Acked { partition, offset, user, number } = *line {
                let row = &mut rows[partition as usize];
                row.acked += 1;
                row.lost += u64::from(event_at(held, partition, offset) != Some((user, number)));
            }
        }
        let mut times: Vec<Vec<u8>> = held.iter().map(|events| vec![0; events.len()]).collect();
        for (round, told) in read.iter().enumerate() {
            let mut due: BTreeMap<u32, u64> = BTreeMap::new();
            for line in &told.lines {
                let Line::Read { partition, offset, user, number, crc } = *line else { continue };
                let row = &mut rows[partition as usize];
                let is_right = event_at(held, partition, offset) == Some((user, number))
                    && u64::from(crc32fast::hash(&event::value(user, number))) == crc;
                row.wrong += u64::from(!is_right);
                let due = due.entry(partition).or_insert(if round == 0 { 0 } else { offset });
                row.disordered += u64::from(offset != *due);
                *due = offset + 1;
                if round == 0 {
                    row.before += 1;
                } else {
                    row.after += 1;
                }
                if let Some(times) = times[partition as usize].get_mut(usize::try_from(offset).unwrap_or(usize::MAX)) {
                    *times = times.saturating_add(1);
                    row.twice += u64::from(*times == 2);
                    let was_committed = offset < committed.get(&partition).copied().unwrap_or(0);
                    row.twice_committed += u64::from(*times == 2 && was_committed);
                }
            }
        }
        for (row, times) in rows.iter_mut().zip(&times) {
            row.unread = times.iter().filter(|times| **times == 0).count() as u64;
        }
        Tally { rows }
    }

    fn total(&self) -> Row {
        self.rows.iter().fold(Row::default(), |sum, row| Row {
            events: sum.events + row.events,
            acked: sum.acked + row.acked,
            lost: sum.lost + row.lost,
            before: sum.before + row.before,
            after: sum.after + row.after,
            twice: sum.twice + row.twice,
            twice_committed: sum.twice_committed + row.twice_committed,
            unread: sum.unread + row.unread,
            wrong: sum.wrong + row.wrong,
            disordered: sum.disordered + row.disordered,
        })
    }

    fn faults(&self) -> Vec<String> {
        let total = self.total();
        let kinds = [
            (total.lost, "acknowledged events are missing"),
            (total.unread, "events were never read"),
            (total.wrong, "events were read with other bytes"),
            (total.disordered, "events were read out of order"),
            (total.twice_committed, "events were read again although they were committed"),
        ];
        kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", grouped(*count)))
            .collect()
    }

    fn lines(&self) -> Vec<String> {
        let mut table = Table::new(&[
            "partition",
            ">acknowledged",
            ">in log",
            ">read before",
            ">read after",
            ">read twice",
            ">missing",
        ]);
        let total = self.total();
        let names = (0..self.rows.len()).map(|number| number.to_string()).chain(["all".to_owned()]);
        for (name, row) in names.zip(self.rows.iter().chain([&total])) {
            let numbers = [row.acked, row.events, row.before, row.after, row.twice, row.lost + row.unread];
            table.row(&[vec![name], numbers.map(grouped).to_vec()].concat());
        }
        table.lines("")
    }

    fn as_json(&self, rates: &Rates) -> serde_json::Value {
        let row = |(number, row): (usize, &Row)| {
            json!({
                "partition": number,
                "events": row.events,
                "acknowledged": row.acked,
                "read_before_kill": row.before,
                "read_after_kill": row.after,
                "read_twice": row.twice,
                "missing": row.lost + row.unread,
            })
        };
        json!({
            "partitions": self.rows.iter().enumerate().map(row).collect::<Vec<_>>(),
            "faults": self.faults(),
            "acknowledged_per_second": rates.acked,
            "read_per_second": rates.read,
            "sent_per_second_one_thread": rates.sent_fast,
            "polled_per_second_one_thread": rates.read_fast,
        })
    }
}

/// Records a second.
struct Rates {
    acked: u64,
    read: u64,
    sent_fast: u64,
    read_fast: u64,
}

impl Rates {
    fn lines(&self) -> Vec<String> {
        let mut table = Table::new(&["records a second", ">"]);
        table.row(&["4 threads send, and wait for the disk after every 500", &grouped(self.acked)]);
        table.row(&["1 group reads and commits, and reports each event", &grouped(self.read)]);
        table.row(&["1 thread sends 100 bytes at a time, then waits for the disk", &grouped(self.sent_fast)]);
        table.row(&["1 thread reads them", &grouped(self.read_fast)]);
        table.lines("")
    }
}
