//! `tidelog groups`. Who is in a group is known only to the process whose consumers they are, so nothing is said of it here.

use serde_json::{Value, json};
use tidelog::{EventLog, GroupDescription, GroupOffset, OffsetChange, TopicPartition};

use crate::args::{Arguments, Groups, Partitions, ResetOffsets};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Screen, Table, complain};
use crate::topics::{open_for_reading, open_for_writing, show_change};

pub(crate) fn run(arguments: &Arguments, action: &Groups) -> Outcome {
    match action {
        Groups::List => list(arguments),
        Groups::Describe { group, members, state, .. } if !members && !state => describe(arguments, group.name()),
        Groups::Describe { .. } => Err(Failure::usage(
            "who is in a group is known only to the process whose consumers they are (EventLog::describe_group); \
             leave --members and --state out",
        )),
        Groups::ResetOffsets(what) => reset(arguments, what),
        Groups::Delete { group } => {
            open_for_writing(arguments, false)?.delete_group(group.name())?;
            let name = group.name();
            show_change(arguments, &json!({ "group": name, "deleted": true }), &format!("deleted group {name}"))
        }
        Groups::DeleteOffsets { group, topics } => delete_offsets(arguments, group.name(), topics),
    }
}

fn list(arguments: &Arguments) -> Outcome {
    let log = open_for_reading(arguments)?;
    let mut screen = Screen::new();
    for name in log.list_groups() {
        match arguments.output {
            Output::Text => screen.line(&name)?,
            Output::Json => screen.json(&json!({ "group": name }))?,
        }
    }
    screen.flush()
}

fn describe(arguments: &Arguments, name: &str) -> Outcome {
    let group = open_for_reading(arguments)?.describe_group(name)?;
    let mut screen = Screen::new();
    match arguments.output {
        Output::Json => screen.json(&as_json(&group))?,
        Output::Text => as_text(&group).iter().try_for_each(|line| screen.line(line))?,
    }
    screen.flush()
}

/// The partitions that are meant; without a number all of a topic.
fn named(log: &EventLog, topics: &[Partitions]) -> Outcome<Vec<TopicPartition>> {
    let mut names = Vec::new();
    for Partitions { topic, numbers } in topics {
        let all = log.describe_topic(topic)?.partitions;
        let all = all.iter().map(|partition| partition.partition).filter(|_| numbers.is_empty());
        names.extend(numbers.iter().copied().chain(all).map(|number| TopicPartition::new(topic.as_str(), number)));
    }
    Ok(names)
}

fn reset(arguments: &Arguments, what: &ResetOffsets) -> Outcome {
    let log = open_for_writing(arguments, false)?;
    let partitions = named(&log, &what.topics)?;
    if what.all_topics {
        // Without a name nothing could be moved of a group that has committed nothing.
        log.describe_group(what.group.name())?;
    }
    let changes = log.reset_group_offsets(what.group.name(), &partitions, what.to.target(), what.execute)?;
    let mut screen = Screen::new();
    match arguments.output {
        Output::Json => {
            for change in &changes {
                screen.json(&json!({
                    "group": what.group.name(),
                    "topic": change.partition.topic(),
                    "partition": change.partition.partition(),
                    "from": change.from.map(tidelog::Offset::get),
                    "to": change.to.get(),
                    "executed": what.execute,
                }))?;
            }
        }
        Output::Text => table_of(&changes).iter().try_for_each(|line| screen.line(line))?,
    }
    screen.flush()?;
    if !what.execute {
        complain("note: nothing was moved; add --execute to move it");
    }
    Ok(())
}

fn table_of(changes: &[OffsetChange]) -> Vec<String> {
    let mut table = Table::new(&["TOPIC", ">PARTITION", ">COMMITTED", ">NEW"]);
    for change in changes {
        table.row(&[
            change.partition.topic().to_owned(),
            change.partition.partition().to_string(),
            change.from.map_or("-".to_owned(), |from| from.to_string()),
            change.to.to_string(),
        ]);
    }
    table.lines("")
}

fn delete_offsets(arguments: &Arguments, group: &str, topics: &[Partitions]) -> Outcome {
    let log = open_for_writing(arguments, false)?;
    let partitions = named(&log, topics)?;
    log.delete_group_offsets(group, &partitions)?;
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    let object = json!({ "group": group, "deleted_offsets": names });
    show_change(arguments, &object, &format!("deleted what group {group} had committed for {}", names.join(", ")))
}

fn as_text(group: &GroupDescription) -> Vec<String> {
    let mut table = Table::new(&["TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", ">LOST", "METADATA"]);
    for offset in &group.offsets {
        table.row(&[
            offset.partition.topic().to_owned(),
            offset.partition.partition().to_string(),
            offset.committed.map_or("-".to_owned(), |committed| committed.to_string()),
            offset.end.to_string(),
            offset.lag.to_string(),
            offset.lost.to_string(),
            offset.metadata.clone(),
        ]);
    }
    table.lines("")
}

fn as_json(group: &GroupDescription) -> Value {
    let partition = |offset: &GroupOffset| {
        json!({
            "topic": offset.partition.topic(),
            "partition": offset.partition.partition(),
            "committed": offset.committed.map(tidelog::Offset::get),
            "end": offset.end.get(),
            "lag": offset.lag,
            "lost": offset.lost,
            "metadata": offset.metadata,
        })
    };
    json!({ "group": group.name, "partitions": group.offsets.iter().map(partition).collect::<Vec<_>>() })
}
