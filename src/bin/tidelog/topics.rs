//! `tidelog topics`.

use serde_json::{Value, json};
use tidelog::{Error, EventLog, LogConfig, Removed, TopicDescription};

use crate::args::{Arguments, Settings, Topics};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Screen, Table, complain, grouped};

pub(crate) fn run(arguments: &Arguments, action: &Topics) -> Outcome {
    match action {
        Topics::Create { topic, settings, if_not_exists } => {
            let config = settings.topic_config()?;
            let name = topic.name();
            let log = open_for_writing(arguments, true)?;
            let created = match log.create_topic(name, config) {
                Err(Error::TopicExists { .. }) if *if_not_exists => false,
                result => result.map(|()| true)?,
            };
            let topic = log.describe_topic(name)?;
            log.close()?;
            show_change(arguments, &json!({ "topic": name, "created": created }), &{
                let count = topic.partitions.len();
                let partitions = if count == 1 { "partition" } else { "partitions" };
                let state = if created { "created topic" } else { "there is topic" };
                let exists = if created { "" } else { " already" };
                format!("{state} {name}{exists}: {count} {partitions}, durability {}", topic.config.durability_level())
            })
        }
        Topics::Truncate(what) => crate::offsets::truncate(arguments, what),
        Topics::Alter { topic, settings, dry_run } => alter(arguments, topic.name(), settings, *dry_run),
        Topics::Delete { topic, if_exists } => {
            let name = topic.name();
            let log = open_for_writing(arguments, false)?;
            let deleted = match log.delete_topic(name) {
                Err(Error::UnknownTopic { .. }) if *if_exists => false,
                result => result.map(|()| true)?,
            };
            log.close()?;
            let text = if deleted { format!("deleted topic {name}") } else { format!("there is no topic {name}") };
            show_change(arguments, &json!({ "topic": name, "deleted": deleted }), &text)
        }
        Topics::List => list(arguments),
        Topics::Describe { topic, flag } => describe(arguments, topic.as_deref().or(flag.as_deref())),
    }
}

/// Opens the log for writing, and tells what opening it found that somebody should know.
pub(crate) fn open_for_writing(arguments: &Arguments, create: bool) -> Outcome<EventLog> {
    open_with(arguments, LogConfig::new().create(create))
}

/// The same with these settings.
pub(crate) fn open_with(arguments: &Arguments, config: LogConfig) -> Outcome<EventLog> {
    let log = EventLog::open_with(&arguments.dir, config)?;
    tell_findings(&log);
    Ok(log)
}

/// Opens the log for reading, beside whoever writes it.
pub(crate) fn open_for_reading(arguments: &Arguments) -> Outcome<EventLog> {
    let log = EventLog::open_read_only(&arguments.dir)?;
    tell_findings(&log);
    Ok(log)
}

fn tell_findings(log: &EventLog) {
    let report = log.recovery_report();
    for damage in &report.damage {
        complain(&format!("warning: {damage}"));
    }
    for group in &report.pulled_back {
        complain(&format!(
            "warning: group {} had committed offset {} of {}, which a power cut took; it goes on from {}",
            group.group, group.from, group.partition, group.to
        ));
    }
    for path in &report.unknown {
        complain(&format!("warning: {} belongs to no topic; it was left alone", path.display()));
    }
}

pub(crate) fn show_change(arguments: &Arguments, object: &Value, text: &str) -> Outcome {
    let mut screen = Screen::new();
    match arguments.output {
        Output::Json => screen.json(object)?,
        Output::Text => screen.line(text)?,
    }
    screen.flush()
}

fn alter(arguments: &Arguments, name: &str, settings: &Settings, dry_run: bool) -> Outcome {
    if !settings.are_given() {
        return Err(Failure::usage("nothing is to be changed; name a setting, as in --config retention.ms=604800000"));
    }
    let log = if dry_run { open_for_reading(arguments)? } else { open_for_writing(arguments, false)? };
    let before = log.describe_topic(name)?.config;
    let after = settings.applied_to(before.clone())?;
    let partitions = before.partition_count()..settings.partitions().unwrap_or(before.partition_count());
    let planned = log.plan_retention(name, &after.clone().partitions(before.partition_count()))?;
    if !dry_run {
        if settings.partitions().is_some() && partitions.start != partitions.end {
            log.add_partitions(name, partitions.end)?;
        }
        log.alter_topic(name, after.clone())?;
    }
    log.close()?;
    let mut changes: Vec<(&str, String, String)> = before
        .entries()
        .into_iter()
        .zip(after.entries())
        .filter(|(before, after)| before != after)
        .map(|((setting, before), (_, after))| (setting, before, after))
        .collect();
    if partitions.start != partitions.end {
        changes.push(("partitions", partitions.start.to_string(), partitions.end.to_string()));
    }
    let mut screen = Screen::new();
    if arguments.output == Output::Json {
        let mut values = [serde_json::Map::new(), serde_json::Map::new()];
        for (setting, before, after) in &changes {
            for (map, value) in values.iter_mut().zip([before, after]) {
                map.insert((*setting).to_owned(), Value::from(value.as_str()));
            }
        }
        let [before, after] = values;
        let removed: Vec<Value> = planned.iter().map(as_removed).collect();
        screen.json(&json!({
            "topic": name, "dry_run": dry_run, "before": before, "after": after, "no_longer_kept": removed,
        }))?;
        return screen.flush();
    }
    let changed = if dry_run { "would change" } else { "changed" };
    for (setting, before, after) in &changes {
        screen.line(&format!("{changed} {setting} of {name} from {before:?} to {after:?}"))?;
    }
    if changes.is_empty() {
        screen.line(&format!("{name} is as it should be already"))?;
    }
    for removed in &planned {
        let records = removed.offsets.end.since(removed.offsets.start);
        screen.line(&format!(
            "{} no longer keeps {} records before offset {}: {} segments, {} bytes",
            removed.partition,
            grouped(records),
            removed.offsets.end,
            removed.segments,
            grouped(removed.bytes)
        ))?;
    }
    screen.flush()
}

fn as_removed(removed: &Removed) -> Value {
    json!({
        "partition": removed.partition.partition(),
        "before": removed.offsets.end.get(),
        "records": removed.offsets.end.since(removed.offsets.start),
        "segments": removed.segments,
        "bytes": removed.bytes,
    })
}

fn list(arguments: &Arguments) -> Outcome {
    let log = open_for_reading(arguments)?;
    let mut screen = Screen::new();
    for name in log.list_topics() {
        match arguments.output {
            Output::Text => screen.line(&name)?,
            Output::Json => screen.json(&json!({ "topic": name }))?,
        }
    }
    screen.flush()
}

fn describe(arguments: &Arguments, topic: Option<&str>) -> Outcome {
    let log = open_for_reading(arguments)?;
    let names = topic.map_or_else(|| log.list_topics(), |name| vec![name.to_owned()]);
    let mut screen = Screen::new();
    for (at, name) in names.iter().enumerate() {
        let topic = log.describe_topic(name)?;
        match arguments.output {
            Output::Json => screen.json(&as_json(&topic))?,
            Output::Text => {
                if at > 0 {
                    screen.line("")?;
                }
                for line in as_text(&topic) {
                    screen.line(&line)?;
                }
            }
        }
    }
    screen.flush()
}

fn as_text(topic: &TopicDescription) -> Vec<String> {
    let mut lines = vec![topic.name.clone()];
    let entry = |(name, value): &(&str, String)| format!("  {name:<31}  {value}").trim_end().to_owned();
    lines.extend(topic.config.entries().iter().map(entry));
    lines.push(String::new());
    let compacts = topic.config.policy().compacts();
    let mut head = vec![">PARTITION", ">START", ">END", ">VISIBLE", ">DURABLE", ">SEGMENTS", ">BYTES"];
    if compacts {
        head.extend([">COMPACTED", ">DIRTY"]);
    }
    let mut table = Table::new(&head);
    for partition in &topic.partitions {
        let mut row = vec![
            u64::from(partition.partition),
            partition.log_start.get(),
            partition.log_end.get(),
            partition.high_watermark.get(),
            partition.durable_end.get(),
            partition.segments as u64,
            partition.bytes,
        ];
        if compacts {
            row.extend([partition.clean_end.get(), partition.dirty_bytes]);
        }
        table.row(&row);
    }
    lines.extend(table.lines("  "));
    lines
}

fn as_json(topic: &TopicDescription) -> Value {
    let partition = |partition: &tidelog::PartitionDescription| {
        json!({
            "partition": partition.partition,
            "log_start": partition.log_start.get(),
            "log_end": partition.log_end.get(),
            "high_watermark": partition.high_watermark.get(),
            "durable_end": partition.durable_end.get(),
            "segments": partition.segments,
            "bytes": partition.bytes,
            "clean_end": partition.clean_end.get(),
            "dirty_bytes": partition.dirty_bytes,
        })
    };
    let config: serde_json::Map<String, Value> =
        topic.config.entries().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    let partitions: Vec<Value> = topic.partitions.iter().map(partition).collect();
    json!({ "topic": topic.name, "config": config, "partitions": partitions })
}
