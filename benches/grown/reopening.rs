//! Reopening: after a close, and after the process was killed in the middle of sending. What was synced need not be looked
//! at again, so the time must not depend on how much that is.

use std::env;
use std::hint;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidelog::{Durability, EventLog, ProducerRecord, TopicConfig};

use super::directory;
use crate::limit::{Table, quick};
use crate::subject::{LABEL_WIDTH, TOPIC, row};

/// The word on the command line that makes this program the one that is killed.
const DOOMED: &str = "--doomed";

const LEVELS: [&str; 4] = ["closed", "sync", "interval", "os"];

fn durability(level: &str) -> Durability {
    match level {
        "sync" => Durability::Sync,
        "interval" => Durability::Interval { every: Duration::from_millis(10), bytes: 1 << 20 },
        _ => Durability::Os,
    }
}

pub(crate) fn measure() {
    let columns = [("", LABEL_WIDTH), ("open ms", 9), ("walked MiB", 10), ("cut KiB", 9)];
    let title = "reopen a log of 1 KiB records; sync: flushed every 1,000; interval: every 10 ms or MiB, and not faster than the disk";
    let table = Table::new(title, &columns);
    let sizes = if quick() { vec![8, 16] } else { vec![256, 2048] };
    for mib in sizes {
        for level in LEVELS {
            let directory = directory();
            run([DOOMED, level, &mib.to_string()], directory.path());
            let (took, walked, cut) = open(directory.path());
            let millis = format!("{:.1}", took.as_secs_f64() * 1e3);
            let bytes = [format!("{:.1}", walked as f64 / 1048576.0), (cut >> 10).to_string()];
            let what = if level == "closed" { "after a close".to_owned() } else { format!("after kill -9, {level}") };
            table.row(&row(&format!("{mib} MiB, {what}"), [millis].into_iter().chain(bytes)));
        }
    }
}

/// How long opening takes, how many bytes it walked over, and how many it cut.
fn open(path: &Path) -> (Duration, u64, u64) {
    let start = Instant::now();
    let log = EventLog::open(path).expect("a log that can be opened");
    let took = start.elapsed();
    let (read, cut) = (log.recovery_report().bytes_read, log.recovery_report().bytes_cut);
    log.close().expect("everything can be synced");
    (took, read, cut)
}

/// Runs this program with these words and the directory, until it is dead.
fn run(words: [&str; 3], path: &Path) {
    let program = env::current_exe().expect("this program has a name");
    let mut child = Command::new(program).args(words).arg(path).stdin(Stdio::null()).spawn().expect("a process");
    child.wait().expect("the process ends");
}

/// If this is the program that is killed: sends, and is.
pub(crate) fn be_doomed() {
    let words: Vec<String> = env::args().skip_while(|word| word != DOOMED).skip(1).collect();
    let [level, mib, path] = words.as_slice() else { return };
    let log = EventLog::open(path).expect("a new log");
    log.create_topic(TOPIC, TopicConfig::new().durability(durability(level))).expect("a new topic");
    let producer = log.producer();
    let start = Instant::now();
    for number in 1..=mib.parse::<u32>().expect("a number") << 10 {
        producer.send(ProducerRecord::new(TOPIC, &[7; 1016]).key(b"12345678")).expect("there is room");
        if level == "sync" && number % 1000 == 0 {
            producer.flush().expect("everything can be synced");
        }
        // About 250 MB a second: who sends faster than the disk writes leaves as much unsynced as he likes.
        while level == "interval" && start.elapsed() < Duration::from_micros(4) * number {
            hint::spin_loop();
        }
    }
    if level == "closed" {
        log.close().expect("everything can be synced");
        std::process::exit(0);
    }
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("it may");
}
