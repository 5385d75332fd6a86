//! Follows a topic that another process writes, without a lock and without disturbing it: `tail -f` for an event log.
//!
//! ```text
//! cargo run --example tail                       # a writer of its own, and 10 records
//! cargo run --example tail -- data orders 100    # the next 100 records of topic `orders` in `data`
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, io};

use tidelog::{ConsumerConfig, EventLog, OffsetReset, ProducerRecord, TopicConfig};

/// How long nothing may come before this gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => tail_a_writer_of_our_own(),
        ["--write", directory] => write(Path::new(directory)),
        [directory, topic, count] => tail(Path::new(directory), topic, count.parse()?, OffsetReset::Latest),
        _ => Err("say nothing, or a directory, a topic and how many records".into()),
    }
}

/// Prints `count` records as they come.
fn tail(directory: &Path, topic: &str, count: usize, start: OffsetReset) -> Result<(), Box<dyn std::error::Error>> {
    let log = EventLog::open_read_only(directory)?;
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(start))?;
    consumer.subscribe([topic])?;
    let mut left = count;
    while left > 0 {
        let records = consumer.poll(PATIENCE)?;
        if records.is_empty() {
            return Err("nothing has come for a long time".into());
        }
        for record in records.iter().take(left) {
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            println!("{}@{}  {value}", record.topic_partition(), record.offset());
            left -= 1;
        }
    }
    Ok(())
}

fn tail_a_writer_of_our_own() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let mut writer = Command::new(env::current_exe()?)
        .arg("--write")
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // It says so when the topic is there.
    BufReader::new(writer.stdout.take().expect("it was asked for")).read_line(&mut String::new())?;
    tail(directory.path(), "ticks", 10, OffsetReset::Earliest)?;
    // It writes as long as we hold its standard input.
    drop(writer.stdin.take());
    writer.wait()?;
    Ok(())
}

/// Another process: writes a record, waits until it is on the disk, writes the next, and ends with its standard input.
fn write(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let log = EventLog::open(directory)?;
    log.create_topic("ticks", TopicConfig::new())?;
    writeln!(io::stdout(), "ready")?;
    let producer = log.producer();
    for tick in 0..10 {
        producer.send(ProducerRecord::new("ticks", &format!("tick {tick}")))?.wait()?;
    }
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
