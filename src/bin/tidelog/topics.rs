//! `tidelog topics`.

use serde_json::{Value, json};
use tidelog::{Error, EventLog, LogConfig, TopicDescription};

use crate::args::{Arguments, Topics};
use crate::failure::Outcome;
use crate::output::{Output, Screen, Table, complain};

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
    let log = EventLog::open_with(&arguments.dir, LogConfig::new().create(create))?;
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
    lines.extend(topic.config.entries().iter().map(|(name, value)| format!("  {name:<22}  {value}")));
    lines.push(String::new());
    let mut table = Table::new(&[">PARTITION", ">START", ">END", ">VISIBLE", ">DURABLE", ">SEGMENTS", ">BYTES"]);
    for partition in &topic.partitions {
        table.row(&[
            u64::from(partition.partition),
            partition.log_start.get(),
            partition.log_end.get(),
            partition.high_watermark.get(),
            partition.durable_end.get(),
            partition.segments as u64,
            partition.bytes,
        ]);
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
        })
    };
    let config: serde_json::Map<String, Value> =
        topic.config.entries().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    let partitions: Vec<Value> = topic.partitions.iter().map(partition).collect();
    json!({ "topic": topic.name, "config": config, "partitions": partitions })
}
