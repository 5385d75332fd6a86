//! `tidelog offsets`, `tidelog delete-records` and `tidelog topics truncate`.

use serde_json::json;
use tidelog::{ConsumerConfig, EventLog, GroupsBeyond, Offset, TopicPartition};

use crate::args::{Arguments, Before, DeleteRecords, Offsets, Point, Truncate};
use crate::failure::{Failure, Outcome};
use crate::moment::Moment;
use crate::output::{Output, Screen, Table, grouped};
use crate::topics::{open_for_reading, open_for_writing};

pub(crate) fn run(arguments: &Arguments, what: &Offsets) -> Outcome {
    let log = open_for_reading(arguments)?;
    let partitions = partitions(&log, what.topic.name(), &what.partitions)?;
    let consumer = log.consumer(ConsumerConfig::new())?;
    let mut table = Table::new(&["TOPIC", ">PARTITION", ">OFFSET", ">TIMESTAMP"]);
    let mut screen = Screen::new();
    for name in partitions {
        let only = std::slice::from_ref(&name);
        let found = match what.time {
            Point::Earliest => Some((consumer.beginning_offsets(only)?[&name], None)),
            Point::Latest => Some((consumer.end_offsets(only)?[&name], None)),
            Point::MaxTimestamp => {
                consumer.offsets_of_latest_timestamps(only)?[&name].map(|found| (found.offset, Some(found.timestamp)))
            }
            Point::Since(moment) => consumer.offsets_for_times([(name.clone(), moment.timestamp())])?[&name]
                .map(|found| (found.offset, Some(found.timestamp))),
        };
        let (offset, timestamp) = found.map_or((None, None), |(offset, timestamp)| (Some(offset), timestamp));
        match arguments.output {
            Output::Json => screen.json(&json!({
                "topic": name.topic(),
                "partition": name.partition(),
                "offset": offset.map(Offset::get),
                "timestamp": timestamp.map(tidelog::Timestamp::as_millis),
            }))?,
            Output::Text => table.row(&[
                name.topic().to_owned(),
                name.partition().to_string(),
                offset.map_or("-".to_owned(), |offset| offset.to_string()),
                timestamp.map_or("-".to_owned(), |timestamp| timestamp.to_string()),
            ]),
        }
    }
    if arguments.output == Output::Text {
        table.lines("").iter().try_for_each(|line| screen.line(line))?;
    }
    screen.flush()
}

/// Deletes, or says what it would.
pub(crate) fn delete_records(arguments: &Arguments, what: &DeleteRecords) -> Outcome {
    let log = if what.dry_run { open_for_reading(arguments)? } else { open_for_writing(arguments, false)? };
    let topic = what.topic.name();
    let partitions = partitions(&log, topic, &what.partitions)?;
    if matches!(what.before, Some(Before::Offset(_))) && partitions.len() > 1 {
        return Err(Failure::usage(format!(
            "{topic} has {} partitions, whose offsets have nothing to do with one another; say which with --partition",
            partitions.len()
        )));
    }
    let mut screen = Screen::new();
    for name in partitions {
        let described = log.describe_topic(topic)?.partitions.swap_remove(name.partition() as usize);
        let start = described.log_start;
        let before = match (what.before, what.before_time) {
            (Some(Before::Offset(offset)), _) => Offset::new(offset),
            (_, Some(moment)) => since(&log, &name, moment, described.high_watermark)?,
            _ => described.high_watermark,
        };
        let before = if what.dry_run {
            if before > described.high_watermark {
                let end = described.high_watermark;
                let error = tidelog::Error::OffsetOutOfRange { partition: name, requested: before, start, end };
                return Err(error.into());
            }
            before.max(start)
        } else {
            log.delete_records(&name, before)?
        };
        let records = before.since(start);
        match arguments.output {
            Output::Json => screen.json(&json!({
                "topic": name.topic(),
                "partition": name.partition(),
                "log_start": before.get(),
                "deleted": records,
                "dry_run": what.dry_run,
            }))?,
            Output::Text => {
                let (verb, is) = if what.dry_run { ("would delete", "would begin") } else { ("deleted", "begins") };
                screen.line(&format!("{verb} {} records of {name}, which {is} at {before}", grouped(records)))?;
            }
        }
    }
    log.close()?;
    screen.flush()
}

/// Cuts a tail off, or says what it would.
pub(crate) fn truncate(arguments: &Arguments, what: &Truncate) -> Outcome {
    let log = if what.dry_run { open_for_reading(arguments)? } else { open_for_writing(arguments, false)? };
    let topic = what.topic.name();
    let mut partitions = partitions(&log, topic, what.partition.as_slice())?;
    let (Some(name), true) = (partitions.pop(), partitions.is_empty()) else {
        return Err(Failure::usage(format!("{topic} has more than one partition; say which with --partition")));
    };
    let groups = if what.pull_back_groups { GroupsBeyond::PullBack } else { GroupsBeyond::Refuse };
    let cut = match what.dry_run {
        true => log.plan_truncation(&name, what.to)?,
        false => log.truncate(&name, what.to, groups)?,
    };
    log.close()?;
    let records = cut.offsets.end.since(cut.offsets.start);
    let mut screen = Screen::new();
    if arguments.output == Output::Json {
        let group = |beyond: &tidelog::PulledBack| json!({ "group": beyond.group, "from": beyond.from.get(), "to": beyond.to.get() });
        screen.json(&json!({
            "topic": name.topic(),
            "partition": name.partition(),
            "log_end": what.to,
            "cut": records,
            "segments": cut.segments,
            "bytes": cut.bytes,
            "groups": cut.groups.iter().map(group).collect::<Vec<_>>(),
            "dry_run": what.dry_run,
        }))?;
        return screen.flush();
    }
    let (verb, ends) = if what.dry_run { ("would cut", "would end") } else { ("cut", "ends") };
    screen.line(&format!("{verb} {} records off {name}, which {ends} at {}", grouped(records), what.to))?;
    for beyond in &cut.groups {
        let verb = match (what.dry_run, what.pull_back_groups) {
            (true, false) => "refused without --pull-back-groups: would pull",
            (true, true) => "would pull",
            (false, _) => "pulled",
        };
        screen.line(&format!("{verb} group {} back from {} to {}", beyond.group, beyond.from, beyond.to))?;
    }
    screen.flush()
}

fn since(log: &EventLog, name: &TopicPartition, moment: Moment, end: Offset) -> Outcome<Offset> {
    let consumer = log.consumer(ConsumerConfig::new())?;
    let found = consumer.offsets_for_times([(name.clone(), moment.timestamp())])?[name];
    Ok(found.map_or(end, |found| found.offset))
}

/// The partitions of a topic: those that are named, or all.
pub(crate) fn partitions(log: &EventLog, topic: &str, named: &[u32]) -> Outcome<Vec<TopicPartition>> {
    let count = log.describe_topic(topic)?.partitions.len();
    let all = 0..u32::try_from(count).expect("a topic has fewer partitions");
    let mut numbers = if named.is_empty() { all.collect() } else { named.to_vec() };
    numbers.sort_unstable();
    numbers.dedup();
    if let Some(number) = numbers.iter().find(|number| **number as usize >= count) {
        let partition = TopicPartition::new(topic, *number);
        let partitions = u32::try_from(count).expect("a topic has fewer partitions");
        return Err(tidelog::Error::UnknownPartition { partition, partitions }.into());
    }
    Ok(numbers.into_iter().map(|number| TopicPartition::new(topic, number)).collect())
}
