//! `tidelog produce`: lines in, records out.
//!
//! Records are sent as they are read and waited for together: in a `Sync` topic a sync serves all that were sent
//! before it. With `--acks` that is whenever the input has nothing more to read at once, so that somebody who sends
//! line by line through a pipe is answered line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tidelog::{Delivery, EventLog, Producer, ProducerRecord, TopicDescription};

use crate::args::{Arguments, Produce};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Screen, complain, grouped, per_second};
use crate::topics::open_for_writing;

/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// How much is read before the progress is shown anew: showing costs more than sending.
const SHOW_BYTES: u64 = 1 << 20;
/// How many records are sent before they are waited for, so that a failed disk is noticed before all is read.
const FLUSH_RECORDS: usize = 100_000;

pub(crate) fn run(arguments: &Arguments, what: &Produce) -> Outcome {
    if what.settings.are_given() && !what.create_topic {
        return Err(Failure::usage(
            "--partitions, --durability, --segment-bytes and --config say how a topic is created; \
             add --create-topic, or leave them out",
        ));
    }
    let mut input = Input::open(what)?;
    let log = open_for_writing(arguments, what.create_topic)?;
    let topic = find_or_create(&log, what)?;
    let mut sender = Sender {
        producer: log.producer(),
        topic: topic.name.as_str(),
        what,
        acks: what.acks.then(|| Acks { screen: Screen::new(), output: arguments.output, waiting: Vec::new() }),
        records: 0,
        bytes: 0,
        keyless: 0,
    };
    let start = Instant::now();
    let sent = send_all(&mut input, &mut sender, max_line_bytes(&topic));
    // Also after an error: what was sent before it is there, and whoever reads the acknowledgements wants to know.
    let flushed = sender.flush();
    input.progress.finish_and_clear();
    let line = sender.records + 1;
    sent.map_err(|failure| failure.at(&format!("line {line} (the lines before it were sent)")))?;
    flushed?;
    let summary = sender.summary(start.elapsed().as_secs_f64());
    drop(sender);
    log.close()?;
    summary.show(arguments.output, what)
}

/// The topic that is sent to, created if that was asked for.
fn find_or_create(log: &EventLog, what: &Produce) -> Outcome<TopicDescription> {
    let name = what.topic.name();
    let exists = log.list_topics().iter().any(|other| other == name);
    if !exists && !what.create_topic {
        let unknown = tidelog::Error::UnknownTopic { topic: name.to_owned() };
        return Err(Failure::from(unknown).add(", and so does --create-topic"));
    }
    if !exists {
        log.create_topic(name, what.settings.topic_config()?)?;
    }
    let topic = log.describe_topic(name)?;
    if what.settings.applied_to(topic.config.clone())? != topic.config {
        complain(&format!("note: topic {name} exists already, with other settings; it keeps them"));
    }
    Ok(topic)
}

/// A line that is longer cannot be sent; it must not fill the memory before that is said.
fn max_line_bytes(topic: &TopicDescription) -> u64 {
    let entries = topic.config.entries();
    let limit = entries.iter().find(|(name, _)| *name == "max.message.bytes");
    limit.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or(u64::from(u32::MAX))
}

/// Lines, and how far they have been read.
struct Input {
    reader: BufReader<Box<dyn Read>>,
    name: String,
    progress: ProgressBar,
    /// Bytes that were read and not yet shown.
    unshown: u64,
}

impl Input {
    fn open(what: &Produce) -> Outcome<Self> {
        let Some(path) = what.file.as_ref().filter(|path| path.as_os_str() != "-") else {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                complain("note: each line is a record; end with Ctrl-D");
            }
            let reader = BufReader::with_capacity(READ_BYTES, Box::new(stdin.lock()) as Box<dyn Read>);
            return Ok(Input { reader, name: "standard input".into(), progress: ProgressBar::hidden(), unshown: 0 });
        };
        let name = path.display().to_string();
        let file = File::open(path).map_err(Failure::io("open", &name))?;
        let metadata = file.metadata().map_err(Failure::io("measure", &name))?;
        let progress = if io::stderr().is_terminal() && metadata.is_file() {
            let style = "{bar:18} {percent:>3} %  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
            let style = ProgressStyle::with_template(style).expect("the template is right");
            ProgressBar::new(metadata.len()).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        let reader = BufReader::with_capacity(READ_BYTES, Box::new(file) as Box<dyn Read>);
        Ok(Input { reader, name, progress, unshown: 0 })
    }

    /// Reads the next line without its line feed; returns whether there was one.
    fn read_line(&mut self, line: &mut Vec<u8>, most: u64) -> Outcome<bool> {
        line.clear();
        let read = (&mut self.reader).take(most + 1).read_until(b'\n', line);
        let read = read.map_err(Failure::io("read", &self.name))?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 > most {
            return Err(Failure::failed(format!("it is longer than {most} bytes, the limit of the topic")));
        }
        self.unshown += read as u64;
        if self.unshown >= SHOW_BYTES {
            self.progress.inc(std::mem::take(&mut self.unshown));
        }
        Ok(read > 0)
    }

    /// Whether another line can be had without waiting for whoever writes it.
    fn has_line(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

fn send_all(input: &mut Input, sender: &mut Sender<'_>, max_line_bytes: u64) -> Outcome {
    let mut line = Vec::new();
    let mut since_flush = 0;
    while input.read_line(&mut line, max_line_bytes)? {
        sender.send(&line)?;
        since_flush += 1;
        if since_flush >= FLUSH_RECORDS || sender.acks.is_some() && !input.has_line() {
            sender.flush()?;
            since_flush = 0;
        }
    }
    Ok(())
}

/// Turns lines into records, and sends them.
struct Sender<'a> {
    producer: Producer,
    topic: &'a str,
    what: &'a Produce,
    acks: Option<Acks>,
    records: u64,
    bytes: u64,
    keyless: u64,
}

impl Sender<'_> {
    fn send(&mut self, line: &[u8]) -> Outcome {
        let (key, value) = self.split(line);
        let mut record = ProducerRecord::new(self.topic, value);
        record = match key {
            Some(key) => record.key(key),
            None => record,
        };
        for (name, value) in &self.what.headers {
            record = record.header(name, value);
        }
        if let Some(partition) = self.what.partition {
            record = record.partition(partition);
        }
        let bytes = record.payload_bytes() as u64;
        let delivery = self.producer.send(record)?;
        if let Some(acks) = &mut self.acks {
            acks.waiting.push(delivery);
        }
        self.records += 1;
        self.bytes += bytes;
        self.keyless += u64::from(key.is_none());
        Ok(())
    }

    /// The key and the value of a line.
    fn split<'b>(&self, line: &'b [u8]) -> (Option<&'b [u8]>, &'b [u8]) {
        if let Some(regex) = &self.what.key_regex {
            let found = regex.captures(line).and_then(|found| found.get(1).or(found.get(0)));
            return (found.map(|found| found.as_bytes()), line);
        }
        if let Some(separator) = &self.what.key_separator {
            let separator = separator.as_bytes();
            if let Some(at) = line.windows(separator.len()).position(|window| window == separator) {
                return (Some(&line[..at]), &line[at + separator.len()..]);
            }
        }
        (None, line)
    }

    /// Waits until everything that was sent is as durable as promised, and tells of it.
    fn flush(&mut self) -> Outcome {
        match &mut self.acks {
            None => Ok(self.producer.flush()?),
            Some(acks) => acks.tell(self.topic),
        }
    }

    fn summary(&self, seconds: f64) -> Summary {
        let asked_for_keys = self.what.key_regex.is_some() || self.what.key_separator.is_some();
        Summary {
            topic: self.topic.to_owned(),
            records: self.records,
            bytes: self.bytes,
            keyless: if asked_for_keys { self.keyless } else { 0 },
            seconds,
        }
    }
}

/// What was sent and is still to be acknowledged.
struct Acks {
    screen: Screen,
    output: Output,
    waiting: Vec<Delivery>,
}

impl Acks {
    fn tell(&mut self, topic: &str) -> Outcome {
        for delivery in self.waiting.drain(..) {
            let metadata = delivery.wait()?;
            let (partition, offset) = (metadata.partition(), metadata.offset());
            match self.output {
                Output::Text => self.screen.line(&format!("{topic} {partition} {offset}"))?,
                Output::Json => {
                    let object = json!({ "topic": topic, "partition": partition, "offset": offset.get() });
                    self.screen.json(&object)?;
                }
            }
        }
        self.screen.flush()
    }
}

/// What was done.
struct Summary {
    topic: String,
    records: u64,
    bytes: u64,
    keyless: u64,
    seconds: f64,
}

impl Summary {
    /// To standard output, which with `--acks` belongs to the acknowledgements.
    fn show(&self, output: Output, what: &Produce) -> Outcome {
        let Summary { topic, records, bytes, keyless, seconds } = self;
        let rate = per_second(*records, *seconds);
        let line = match output {
            Output::Json => {
                let mut object = json!({ "topic": topic, "records": records, "bytes": bytes, "seconds": seconds });
                object["records_per_second"] = rate.into();
                object["without_key"] = (*keyless).into();
                object.to_string()
            }
            Output::Text => {
                let noun = if *records == 1 { "record" } else { "records" };
                let (records, bytes, rate) = (grouped(*records), grouped(*bytes), grouped(rate));
                let keys = if *keyless > 0 { format!("; {} without a key", grouped(*keyless)) } else { String::new() };
                format!("sent {records} {noun} to {topic}: {bytes} bytes in {seconds:.3} s, {rate}/s{keys}")
            }
        };
        if what.acks {
            complain(&line);
            return Ok(());
        }
        let mut screen = Screen::new();
        screen.line(&line)?;
        screen.flush()
    }
}
