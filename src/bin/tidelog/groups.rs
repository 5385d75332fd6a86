//! `tidelog groups`.

use serde_json::{Value, json};
use tidelog::{GroupDescription, GroupOffset};

use crate::args::{Arguments, Groups};
use crate::failure::Outcome;
use crate::output::{Output, Screen, Table};
use crate::topics::open_for_reading;

pub(crate) fn run(arguments: &Arguments, action: &Groups) -> Outcome {
    let log = open_for_reading(arguments)?;
    let mut screen = Screen::new();
    match action {
        Groups::List => {
            for name in log.list_groups() {
                match arguments.output {
                    Output::Text => screen.line(&name)?,
                    Output::Json => screen.json(&json!({ "group": name }))?,
                }
            }
        }
        Groups::Describe { group, flag } => {
            let name = group.as_deref().or(flag.as_deref()).expect("the parser requires one of them");
            let group = log.describe_group(name)?;
            match arguments.output {
                Output::Json => screen.json(&as_json(&group))?,
                Output::Text => as_text(&group).iter().try_for_each(|line| screen.line(line))?,
            }
        }
    }
    screen.flush()
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
