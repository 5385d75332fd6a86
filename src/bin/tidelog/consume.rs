//! `tidelog consume`: records in, lines out.
//!
//! | what is asked for | the log is opened | from where                    | until                  |
//! |-------------------|-------------------|-------------------------------|------------------------|
//! | nothing           | read-only         | the beginning                 | the end at the start   |
//! | `--follow`        | read-only         | the end, or `--from-beginning`| forever                |
//! | `--group`         | for writing       | committed, else the end, or `--from-beginning` | the end at the start |
//!
//! Kafka starts at the end in the first row too. There a consumer never ends; one that ends at the end and starts there
//! would never print anything.
//!
//! A group's positions are committed when the records have been handed to whoever reads standard output, after each
//! poll. So an interrupt (which needs no handling) or a kill costs at most the records of one poll, read twice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidelog::{Consumer, ConsumerConfig, ConsumerRecord, EventLog, Offset, OffsetReset, TopicPartition};

use crate::args::{Arguments, Consume, Format, Start};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Screen, complain, grouped, json_bytes};
use crate::topics::open_for_writing;

/// How long a poll waits when nobody says how long; then it is asked again.
const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn run(arguments: &Arguments, what: &Consume) -> Outcome {
    let format = format(arguments.output, &what.format)?;
    let log = match what.group {
        // Of damage it is told where reading meets it.
        None => EventLog::open_read_only(&arguments.dir)?,
        Some(_) => open_for_writing(arguments, false)?,
    };
    let partitions = partitions(&log, what)?;
    let reset = match (what.offset, what.from_beginning, what.follow, &what.group) {
        // Somebody who names an offset wants to know if it is not there.
        (Some(Start::At(_)), ..) => OffsetReset::None,
        _ if what.from_time.is_some() => OffsetReset::Earliest,
        (Some(Start::Earliest), ..) | (_, true, ..) | (None, _, false, None) => OffsetReset::Earliest,
        _ => OffsetReset::Latest,
    };
    let most = what.max_messages.unwrap_or(u64::MAX).clamp(1, u64::from(what.max_poll_records));
    let config = what.group.as_ref().map_or_else(ConsumerConfig::new, ConsumerConfig::group);
    let config = config.auto_offset_reset(reset).auto_commit(false);
    let mut consumer = log.consumer(config.max_poll_records(most.try_into().expect("it is at most a u32")))?;
    if what.partitions.is_empty() && what.from_time.is_none() {
        consumer.subscribe([what.topic.name()])?;
    } else {
        consumer.assign(partitions.iter().cloned())?;
    }
    if let Some(Start::At(offset)) = what.offset {
        partitions.iter().try_for_each(|name| consumer.seek(name, offset))?;
    }
    if let Some(moment) = what.from_time {
        consumer.seek_to_time(&partitions, moment.timestamp())?;
    }
    let started_fresh = what.group.is_some() && committed_nothing(&consumer, &partitions)?;
    if what.follow && what.group.is_some() {
        complain("note: a group needs the log for itself, so no other process can send while this one follows");
    }
    let ends = consumer.end_offsets(&partitions)?;

    let mut reader = Reader { consumer, format, what, ends, screen: Screen::new(), written: 0 };
    reader.read()?;
    if reader.written == 0 && !what.follow && what.max_messages != Some(0) {
        hint(what, &reader.ends, started_fresh && !what.from_beginning);
    }
    tell_of_invisible(&log, what)
}

fn format(output: Output, format: &Format) -> Outcome<Format> {
    match (output, format) {
        (Output::Text, format) => Ok(format.clone()),
        (Output::Json, Format::Template(template)) if *template != crate::template::Template::value() => {
            Err(Failure::usage("--output json and a --format other than json exclude each other; leave out one"))
        }
        (Output::Json, _) => Ok(Format::Json),
    }
}

/// The partitions that are read.
fn partitions(log: &EventLog, what: &Consume) -> Outcome<Vec<TopicPartition>> {
    let name = what.topic.name();
    let count = log.describe_topic(name)?.partitions.len();
    let all = 0..u32::try_from(count).expect("a topic has fewer partitions");
    let mut numbers = if what.partitions.is_empty() { all.collect() } else { what.partitions.clone() };
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers.into_iter().map(|number| TopicPartition::new(name, number)).collect())
}

fn committed_nothing(consumer: &Consumer, partitions: &[TopicPartition]) -> Outcome<bool> {
    for name in partitions {
        if consumer.committed(name)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Reader<'a> {
    consumer: Consumer,
    format: Format,
    what: &'a Consume,
    /// Where to end, unless it follows.
    ends: BTreeMap<TopicPartition, Offset>,
    screen: Screen,
    written: u64,
}

impl Reader<'_> {
    /// Reads, writes, commits, until the end.
    fn read(&mut self) -> Outcome {
        let most = self.what.max_messages.unwrap_or(u64::MAX);
        let quiet = self.what.timeout_ms.map(Duration::from_millis);
        let wait = if self.what.follow { quiet.unwrap_or(LONG) } else { Duration::ZERO };
        let mut line = Vec::new();
        while self.written < most {
            let records = self.consumer.poll(wait)?;
            // Where the group will go on: behind what is written, which is less than was polled only at the end.
            let mut next: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
            for name in self.consumer.assignment() {
                let position = self.consumer.position(&name)?;
                next.insert(name, position);
            }
            for record in &records {
                let end = self.ends.get(record.topic_partition());
                let is_beyond = !self.what.follow && end.is_none_or(|end| record.offset() >= *end);
                if is_beyond || self.written == most {
                    let place = next.entry(record.topic_partition().clone()).or_insert(record.offset());
                    *place = record.offset().min(*place);
                    continue;
                }
                line.clear();
                write(&self.format, &record, &mut line);
                self.screen.bytes(&line)?;
                self.written += 1;
            }
            self.screen.flush()?;
            if self.what.group.is_some() {
                self.consumer.commit_offsets(next.clone())?;
            }
            let reached = |(name, end): (&TopicPartition, &Offset)| next.get(name).is_none_or(|next| next >= end);
            let at_end = !self.what.follow && self.ends.iter().all(reached);
            if at_end || self.what.follow && quiet.is_some() && records.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

fn write(format: &Format, record: &ConsumerRecord<'_>, line: &mut Vec<u8>) {
    match format {
        Format::Template(template) => template.write(record, line),
        Format::Json => {
            line.extend_from_slice(as_json(record).to_string().as_bytes());
            line.push(b'\n');
        }
    }
}

/// Headers are a list of pairs, because names may occur twice and their order counts.
fn as_json(record: &ConsumerRecord<'_>) -> Value {
    let headers: Vec<Value> = record.headers().map(|(name, value)| json!([name, json_bytes(value)])).collect();
    json!({
        "topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset().get(),
        "timestamp": record.timestamp().as_millis(),
        "key": json_bytes(record.key()),
        "value": json_bytes(record.value()),
        "headers": headers,
    })
}

/// Says why there was nothing to write.
fn hint(what: &Consume, ends: &BTreeMap<TopicPartition, Offset>, starts_at_end: bool) {
    let topic = what.topic.name();
    let is_empty = ends.values().all(|end| *end == Offset::ZERO);
    let why = match &what.group {
        _ if is_empty => format!("there is nothing to read in {topic} yet"),
        Some(group) if starts_at_end => format!(
            "group {group} is new and starts at the end; it gets what is sent from now on (--from-beginning reads all)"
        ),
        Some(group) => format!("group {group} has read all that there is in {topic}"),
        None => "there is nothing to read from there on; --follow waits for more".to_owned(),
    };
    complain(&format!("note: {why}"));
}

/// In a `Sync` topic a reader beside a writer sees what is proven to be on the disk. A writer that was killed has left
/// records that are not, until somebody opens the log for writing.
fn tell_of_invisible(log: &EventLog, what: &Consume) -> Outcome {
    if what.follow || what.group.is_some() || what.max_messages.is_some() {
        return Ok(());
    }
    let topic = log.describe_topic(what.topic.name())?;
    let invisible: u64 = topic.partitions.iter().map(|one| one.log_end.since(one.high_watermark)).sum();
    if invisible > 0 {
        complain(&format!(
            "note: {} more records are written but not yet proven to be on the disk; they show once they are, at the \
             latest when the log is next opened for writing",
            grouped(invisible)
        ));
    }
    Ok(())
}
