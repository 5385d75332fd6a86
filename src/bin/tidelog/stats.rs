//! `tidelog stats`.

use serde_json::json;
use tidelog::Place;

use crate::args::Arguments;
use crate::failure::Outcome;
use crate::output::{Output, Screen, Table, grouped};
use crate::topics::open_for_reading;

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let log = open_for_reading(arguments)?;
    let space = log.space()?;
    let mut screen = Screen::new();
    if arguments.output == Output::Json {
        for one in &space {
            let (kind, name) = match &one.place {
                Place::Partition(partition) => ("partition", partition.to_string()),
                Place::Group(group) => ("group", group.clone()),
                other => ("log", other.to_string()),
            };
            screen.json(&json!({
                "kind": kind,
                "name": name,
                "segments": one.segments,
                "records": one.records,
                "bytes": one.bytes,
                "disk_bytes": one.disk_bytes,
                "dirty_bytes": one.dirty_bytes,
            }))?;
        }
        return screen.flush();
    }
    let mut table = Table::new(&["PLACE", ">SEGMENTS", ">RECORDS", ">BYTES", ">DISK", ">TO COMPACT"]);
    let mut total = ([0; 4], None);
    for one in &space {
        let numbers = [one.segments as u64, one.records, one.bytes, one.disk_bytes];
        total.0.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        total.1 = total.1.into_iter().chain(one.dirty_bytes).reduce(|sum, bytes| sum + bytes);
        table.row(&row(one.place.to_string(), numbers, one.dirty_bytes));
    }
    table.row(&row("all".to_owned(), total.0, total.1));
    table.lines("").iter().try_for_each(|line| screen.line(line))?;
    screen.flush()
}

fn row(place: String, numbers: [u64; 4], dirty: Option<u64>) -> [String; 6] {
    let [segments, records, bytes, disk] = numbers.map(grouped);
    [place, segments, records, bytes, disk, dirty.map(grouped).unwrap_or_default()]
}
