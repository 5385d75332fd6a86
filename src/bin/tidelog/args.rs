//! What can be said on the command line.
//!
//! Names are Kafka's where Kafka has them. Its tutorials spell the actions as flags (`topics --create --topic orders`)
//! and name a cluster (`--bootstrap-server localhost:9092`): both is understood, so that a tutorial can be followed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tidelog::{Durability, ResetTo, TopicConfig};

use crate::demo::EVENTS;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::moment::{Age, Moment};
use crate::output::{Output, complain};
use crate::template::Template;

/// Where the log is, if nobody says.
pub(crate) const DEFAULT_DIR: &str = "tidelog-data";

/// Heads the flags that each command has.
const EVERYWHERE: &str = "Everywhere";

/// An event log in a directory: Kafka's topics, partitions, offsets and groups, without a broker.
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, after_help = EXIT_CODES, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The directory of the log
    #[arg(long, global = true, env = "TIDELOG_DIR", default_value = DEFAULT_DIR, value_name = "DIR")]
    #[arg(hide_env_values = true, help_heading = EVERYWHERE)]
    pub(crate) dir: PathBuf,

    /// How results are written; `json` is one object a line
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, value_name = "text|json")]
    #[arg(hide_possible_values = true, help_heading = EVERYWHERE)]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) cluster: Cluster,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What only makes sense for a cluster.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[arg(long, global = true, hide = true, value_name = "HOSTS")]
    bootstrap_server: Option<OsString>,
    #[arg(long, global = true, hide = true, value_name = "HOSTS")]
    broker_list: Option<OsString>,
    #[arg(long, global = true, hide = true, value_name = "HOSTS")]
    zookeeper: Option<OsString>,
    #[arg(long, global = true, hide = true, value_name = "N")]
    replication_factor: Option<i32>,
}

impl Cluster {
    /// Notes what is ignored, and refuses what would have been believed.
    pub(crate) fn check(&self) -> Outcome {
        let ignored = [
            ("--bootstrap-server", self.bootstrap_server.is_some()),
            ("--broker-list", self.broker_list.is_some()),
            ("--zookeeper", self.zookeeper.is_some()),
        ];
        for (flag, _) in ignored.iter().filter(|(_, given)| *given) {
            complain(&format!("note: {flag} is ignored; there is no broker, the log is a directory (--dir)"));
        }
        match self.replication_factor {
            // -1 is Kafka's word for the default, which is one here.
            None => Ok(()),
            Some(1 | -1) => {
                complain("note: --replication-factor is ignored; there is one copy, in the directory");
                Ok(())
            }
            Some(factor) => Err(Failure::usage(format!(
                "--replication-factor {factor} cannot be kept: the log is one directory, so there is one copy; leave it out"
            ))),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe and delete topics
    Topics {
        #[command(subcommand)]
        action: Topics,
    },
    /// Send lines, one record each
    #[command(long_about = PRODUCE, override_usage = "tidelog produce [OPTIONS] <TOPIC>")]
    Produce(Produce),
    /// Write records, one a line
    #[command(long_about = CONSUME, override_usage = "tidelog consume [OPTIONS] <TOPIC>")]
    Consume(Consume),
    /// List, describe, move and delete groups
    Groups {
        #[command(subcommand)]
        action: Groups,
    },
    /// Show where partitions begin and end, or which record is the first since a moment
    #[command(override_usage = "tidelog offsets [OPTIONS] <TOPIC>")]
    Offsets(Offsets),
    /// Delete the records of partitions up to an offset or a moment
    #[command(override_usage = "tidelog delete-records [OPTIONS] <--before <N>|--before-time <MOMENT>> <TOPIC>")]
    DeleteRecords(DeleteRecords),
    /// Remove the records of a compacted topic of whose key there is a later one
    #[command(override_usage = "tidelog compact [OPTIONS] <TOPIC>")]
    Compact(Compact),
    /// Show where the room on the disk is
    Stats,
    /// Make a fork of the log in a moment: a directory that shares with it what is sealed, and goes its own way
    #[command(long_about = FORK)]
    Fork {
        /// The directory of the fork, on the file system of the log; must not be there yet
        #[arg(value_name = "COPY")]
        copy: PathBuf,
    },
    /// Make a backup of the log, also while another process writes it
    #[command(long_about = BACKUP)]
    Backup {
        /// The directory of the backup; must not be there yet
        #[arg(value_name = "COPY")]
        copy: PathBuf,
        /// An earlier backup on the same file system: what is the same there is shared and not written again
        #[arg(long, value_name = "COPY")]
        previous: Option<PathBuf>,
    },
    /// Read every byte of the log, and report everything that is not as it should be
    #[command(long_about = VERIFY)]
    Verify,
    /// Explain a segment file: headers, batches, records, of catalog and groups too
    Dump {
        /// The file, or a directory of segments; absolute or below the log: `topics/orders/0`
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Every field, byte by byte
        #[arg(long)]
        bytes: bool,
    },
    /// Say what of a damaged log can be mended and what is lost; with --execute, mend it
    #[command(long_about = REPAIR)]
    Repair {
        /// Mend, after copying aside the files that are changed
        #[arg(long)]
        execute: bool,
    },
    /// Show the whole model in a few seconds: send, kill -9, read, kill -9, resume, check
    Demo {
        /// Where to put the log; by default a directory that is removed afterwards
        #[arg(id = "demo_dir", value_name = "DIR")]
        dir: Option<PathBuf>,
        /// How many events to send
        #[arg(long, value_name = "N", default_value_t = EVENTS, value_parser = clap::value_parser!(u64).range(1000..))]
        events: u64,
    },
    /// What `demo` runs and kills
    #[command(hide = true)]
    DemoProduce(DemoProduce),
    /// What `demo` runs and kills
    #[command(hide = true)]
    DemoConsume(DemoConsume),
}

const FORK: &str = "\
Make a fork of the log in a moment: a directory that shares with it what is sealed, and goes its own way.

Sealed segments get a second name (a hard link), for nobody writes to them; the last one of each partition is copied. So it takes \
no longer for more records. Works beside the process that writes the log. Of a file that both share, damage is in both: what \
shall outlive the disk is a `backup`.";

const BACKUP: &str = "\
Make a backup of the log, also while another process writes it.

The backup is a log of its own: restore it by opening it, or a copy of it (`tidelog --dir COPY ..`), look at it with \
`tidelog --dir COPY verify`. No group in it is beyond a partition. Until it is complete, its name ends in `.unfinished`; what an \
interrupted backup leaves, the next one removes. With --previous, what is the same in an earlier backup is read and \
compared, but not written again; either can be deleted without the other.";

const VERIFY: &str = "\
Read every byte of the log, and report everything that is not as it should be.

Works on a log that does not open, and beside a process that writes: then its latest batch may show as a torn tail, which \
is no damage. The exit code is 0 if nothing that was promised is harmed; else that of the first of these that was \
found: 4 damaged, 6 missing, 7 foreign, 8 catalog, 9 committed.";

const REPAIR: &str = "\
Say what of a damaged log can be mended and what is lost; with --execute, mend it.

A repair puts gaps in the place of what cannot be read, so that consumers step over it; whole records are not touched. \
Without --execute nothing is changed. With it, no other process may have the log open for writing, and every file that \
changes is copied first, to a directory `repair-backup-N` in the log. `verify` finds nothing afterwards.";

const PRODUCE: &str = "\
Send lines, one record each.

Lines end at a line feed and are bytes: nothing is decoded, a carriage return stays, the last line counts without a line \
feed too. A line that has no key under --key-separator or --key-regex is sent without one.";

const CONSUME: &str = "\
Write records, one a line.

Without --group the log is opened read-only, so this works beside the process that writes it. It reads from the \
beginning up to the end that it finds; with --follow, from the end on and forever.

With --group it reads from where the group has committed, or else from the end (from the beginning with \
--from-beginning), and commits what it has written: a group that is interrupted or killed reads a little twice and misses nothing. For \
that it needs the log for itself.";

/// A topic, said Kafka's way or as a plain argument.
#[derive(Debug, Args)]
pub(crate) struct TopicName {
    /// The topic
    #[arg(value_name = "TOPIC", required_unless_present = "topic_flag")]
    topic: Option<String>,
    #[arg(long = "topic", id = "topic_flag", value_name = "TOPIC", hide = true, conflicts_with = "topic")]
    flag: Option<String>,
}

impl TopicName {
    pub(crate) fn name(&self) -> &str {
        self.topic.as_deref().or(self.flag.as_deref()).expect("the parser requires one of them")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// Create a topic, and the log if there is none
    #[command(override_usage = "tidelog topics create [OPTIONS] <TOPIC>")]
    Create {
        #[command(flatten)]
        topic: TopicName,
        #[command(flatten)]
        settings: Settings,
        /// Do nothing if there is such a topic already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List the names of all topics
    List,
    /// Show settings, offsets, segments and bytes
    Describe {
        /// The topic; without one, all
        #[arg(value_name = "TOPIC")]
        topic: Option<String>,
        #[arg(long = "topic", id = "topic_flag", value_name = "TOPIC", hide = true, conflicts_with = "topic")]
        flag: Option<String>,
    },
    /// Change settings of a topic, or give it more partitions; what is not named stays as it is
    #[command(override_usage = "tidelog topics alter [OPTIONS] <TOPIC>")]
    Alter {
        #[command(flatten)]
        topic: TopicName,
        #[command(flatten)]
        settings: Settings,
        /// Change nothing; say what would change, and which records retention would remove
        #[arg(long)]
        dry_run: bool,
    },
    /// Cut the tail of a partition off: delete its last records, whose offsets are given again
    #[command(override_usage = "tidelog topics truncate [OPTIONS] --to <N> <TOPIC>")]
    Truncate(Truncate),
    /// Delete a topic, its records, and what groups have committed for it
    #[command(override_usage = "tidelog topics delete [OPTIONS] <TOPIC>")]
    Delete {
        #[command(flatten)]
        topic: TopicName,
        /// Do nothing if there is no such topic
        #[arg(long)]
        if_exists: bool,
    },
}

/// How a topic is created.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// How many partitions the topic has [default: 1]
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// What a power cut may take: sync, os, interval or interval:100ms:1048576 [default: sync]
    #[arg(long, value_name = "LEVEL")]
    durability: Option<Durability>,
    /// The size of a segment file [default: 67108864]
    #[arg(long, value_name = "N")]
    segment_bytes: Option<u32>,
    /// Another setting, by its name in Kafka; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
}

impl Settings {
    pub(crate) fn are_given(&self) -> bool {
        self.partitions.is_some()
            || self.durability.is_some()
            || self.segment_bytes.is_some()
            || !self.config.is_empty()
    }

    /// How many partitions are asked for.
    pub(crate) fn partitions(&self) -> Option<u32> {
        self.partitions
    }

    pub(crate) fn topic_config(&self) -> Outcome<TopicConfig> {
        self.applied_to(TopicConfig::new())
    }

    pub(crate) fn applied_to(&self, mut config: TopicConfig) -> Outcome<TopicConfig> {
        for (name, value) in &self.config {
            config = config.set(name, value)?;
        }
        if let Some(partitions) = self.partitions {
            config = config.partitions(partitions);
        }
        if let Some(durability) = self.durability {
            config = config.durability(durability);
        }
        if let Some(bytes) = self.segment_bytes {
            config = config.segment_bytes(bytes);
        }
        Ok(config)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Offsets {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// Only this partition; may be repeated
    #[arg(long = "partition", value_name = "P")]
    pub(crate) partitions: Vec<u32>,
    /// Of which record: `earliest`, `latest` (the end), `max-timestamp`, or the first since a moment:
    /// 2026-01-31T12:00:00Z, "2h ago", or milliseconds since 1970
    #[arg(long, value_name = "TIME", default_value = "latest", allow_negative_numbers = true)]
    pub(crate) time: Point,
}

/// Which record of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Earliest,
    Latest,
    MaxTimestamp,
    Since(Moment),
}

impl std::str::FromStr for Point {
    type Err = String;

    /// Kafka's numbers for the first three are -2, -1 and -3.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" | "-2" => Ok(Point::Earliest),
            "latest" | "-1" => Ok(Point::Latest),
            "max-timestamp" | "-3" => Ok(Point::MaxTimestamp),
            moment => moment.parse().map(Point::Since),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DeleteRecords {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// Only of this partition; may be repeated
    #[arg(long = "partition", value_name = "P")]
    pub(crate) partitions: Vec<u32>,
    /// All records below this offset; `latest`: all that there are
    #[arg(long, value_name = "N", allow_negative_numbers = true, required_unless_present = "before_time")]
    #[arg(conflicts_with = "before_time")]
    pub(crate) before: Option<Before>,
    /// All records in front of the first since this moment: 2026-01-31T12:00:00Z, "2h ago", or milliseconds since 1970
    #[arg(long, value_name = "MOMENT")]
    pub(crate) before_time: Option<Moment>,
    /// Delete nothing; say how much it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// Only this partition; may be repeated
    #[arg(long = "partition", value_name = "P")]
    pub(crate) partitions: Vec<u32>,
    /// How much memory to take for the keys, 30 bytes for each; with less it takes more passes [default: 134217728]
    #[arg(long, value_name = "BYTES", conflicts_with = "dry_run")]
    pub(crate) memory: Option<usize>,
    /// Remove nothing; say how much it would be, beside whoever writes the log, and of any topic
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Truncate {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// The partition; need not be said if there is only one
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// The offset at which it ends then: all records from there on are cut off
    #[arg(long, value_name = "N")]
    pub(crate) to: u64,
    /// Set groups back that have committed more, instead of refusing
    #[arg(long)]
    pub(crate) pull_back_groups: bool,
    /// Cut nothing off; say what it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Up to where records are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Offset(u64),
    Latest,
}

impl std::str::FromStr for Before {
    type Err = String;

    /// Kafka's -1 is the end.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" | "-1" => Ok(Before::Latest),
            number => number.parse().map(Before::Offset).map_err(|_| "neither a number from 0 nor `latest`".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// Read lines from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The key is what stands before the first of these in a line, the value what stands behind it
    #[arg(long, value_name = "TEXT", conflicts_with = "key_regex")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) key_separator: Option<String>,
    /// The key is the first group of this regular expression in the line, or all that it matches; the value is the line
    #[arg(long, value_name = "REGEX")]
    pub(crate) key_regex: Option<regex::bytes::Regex>,
    /// A header for every record; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) headers: Vec<(String, String)>,
    /// Send to this partition, whatever the key
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// Write `topic partition offset` for each record once it is as durable as its topic promises
    #[arg(long)]
    pub(crate) acks: bool,
    /// Create the topic if it is missing, and the log
    #[arg(long)]
    pub(crate) create_topic: bool,
    #[command(flatten, next_help_heading = "With --create-topic")]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// Start at the first record; with --group only if the group has committed nothing
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// Read this partition only; may be repeated
    #[arg(long = "partition", value_name = "P", conflicts_with = "group")]
    pub(crate) partitions: Vec<u32>,
    /// Start at this offset of the partition: a number, `earliest` or `latest`
    #[arg(long, value_name = "N", requires = "partitions", conflicts_with = "from_beginning")]
    pub(crate) offset: Option<Start>,
    /// Start at the first record since this moment: 2026-01-31T12:00:00Z, "2h ago", or milliseconds since 1970
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["from_beginning", "offset", "group"])]
    pub(crate) from_time: Option<Moment>,
    /// Read for this group: from where it has committed, and commit
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// End after this many records
    #[arg(long, value_name = "N")]
    pub(crate) max_messages: Option<u64>,
    /// How many records are read at a time, and with --group committed
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_poll_records: u32,
    /// Do not end at the end: wait for what comes
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// End when nothing has come for this long
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u64>,
    /// `json`, or a template of %t topic, %p partition, %o offset, %k key, %v value, %T timestamp, %D date, %h headers
    #[arg(long, value_name = "FORMAT", default_value = "%v")]
    pub(crate) format: Format,
}

/// What records look like.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    Json,
    Template(Template),
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Format::Json),
            template => Template::parse(template).map(Format::Template),
        }
    }
}

/// Where to start in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Earliest,
    Latest,
    At(u64),
}

impl std::str::FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            number => number.parse().map(Start::At).map_err(|_| "neither a number, `earliest` nor `latest`".to_owned()),
        }
    }
}

/// A group, said Kafka's way or as a plain argument.
#[derive(Debug, Args)]
pub(crate) struct GroupName {
    /// The group
    #[arg(value_name = "GROUP", required_unless_present = "group_flag")]
    group: Option<String>,
    #[arg(long = "group", id = "group_flag", value_name = "GROUP", hide = true, conflicts_with = "group")]
    flag: Option<String>,
}

impl GroupName {
    pub(crate) fn name(&self) -> &str {
        self.group.as_deref().or(self.flag.as_deref()).expect("the parser requires one of them")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    /// List the groups that have committed something
    List,
    /// Show what a group has committed, and its lag
    #[command(override_usage = "tidelog groups describe [OPTIONS] <GROUP>")]
    Describe {
        #[command(flatten)]
        group: GroupName,
        /// What is shown anyway
        #[arg(long, hide = true)]
        offsets: bool,
        #[arg(long, hide = true)]
        members: bool,
        #[arg(long, hide = true)]
        state: bool,
    },
    /// Move what a group has committed; without --execute, say what would be moved
    #[command(long_about = RESET, override_usage = "tidelog groups reset-offsets [OPTIONS] <GROUP>")]
    ResetOffsets(ResetOffsets),
    /// Delete a group: everything that it has committed
    #[command(override_usage = "tidelog groups delete [OPTIONS] <GROUP>")]
    Delete {
        #[command(flatten)]
        group: GroupName,
    },
    /// Delete what a group has committed for some topics or partitions
    #[command(override_usage = "tidelog groups delete-offsets [OPTIONS] --topic <TOPIC> <GROUP>")]
    DeleteOffsets {
        #[command(flatten)]
        group: GroupName,
        /// A topic, or some of its partitions: `orders` or `orders:0,2`; may be repeated
        #[arg(long = "topic", value_name = "TOPIC[:P,..]", required = true)]
        topics: Vec<Partitions>,
    },
}

const RESET: &str = "\
Move what a group has committed; without --execute, say what would be moved.

The log must not be open for writing elsewhere: a group is moved while nobody reads for it. An offset outside of what a \
partition holds becomes the nearest one that is not.";

#[derive(Debug, Args)]
pub(crate) struct ResetOffsets {
    #[command(flatten)]
    pub(crate) group: GroupName,
    /// A topic, or some of its partitions: `orders` or `orders:0,2`; may be repeated
    #[arg(long = "topic", value_name = "TOPIC[:P,..]", required_unless_present = "all_topics")]
    pub(crate) topics: Vec<Partitions>,
    /// All that the group has committed
    #[arg(long, conflicts_with = "topics")]
    pub(crate) all_topics: bool,
    #[command(flatten)]
    pub(crate) to: ResetTarget,
    /// Only say what would be moved, as without --execute
    #[arg(long, conflicts_with = "execute")]
    pub(crate) dry_run: bool,
    /// Move it
    #[arg(long)]
    pub(crate) execute: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ResetTarget {
    /// To the first record that there is
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record that there is
    #[arg(long)]
    to_latest: bool,
    /// To what is committed; where nothing is, behind the last record
    #[arg(long)]
    to_current: bool,
    /// To this offset
    #[arg(long, value_name = "N")]
    to_offset: Option<u64>,
    /// To the first record since this moment: 2026-01-31T12:00:00Z, "2h ago", or milliseconds since 1970
    #[arg(long, value_name = "MOMENT")]
    to_datetime: Option<Moment>,
    /// To the first record that is not older than this: 2h, "7d 12h", or PT2H
    #[arg(long, value_name = "TIME")]
    by_duration: Option<Age>,
    /// So many offsets on from what is committed, or back if negative
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shift_by: Option<i64>,
}

impl ResetTarget {
    pub(crate) fn target(&self) -> ResetTo {
        let moment = self.to_datetime.or(self.by_duration.map(|age| age.0));
        match (self.to_offset, self.shift_by, moment) {
            (Some(offset), ..) => ResetTo::Offset(offset.into()),
            (_, Some(by), _) => ResetTo::ShiftBy(by),
            (.., Some(moment)) => ResetTo::Since(moment.timestamp()),
            _ if self.to_earliest => ResetTo::Earliest,
            _ if self.to_latest => ResetTo::Latest,
            _ => ResetTo::Current,
        }
    }
}

/// A topic and some of its partitions; none named: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partitions {
    pub(crate) topic: String,
    pub(crate) numbers: Vec<u32>,
}

impl std::str::FromStr for Partitions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((topic, numbers)) = text.split_once(':') else {
            return Ok(Partitions { topic: text.to_owned(), numbers: Vec::new() });
        };
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not the number of a partition"));
        let numbers = numbers.split(',').map(number).collect::<Result<_, _>>()?;
        Ok(Partitions { topic: topic.to_owned(), numbers })
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoProduce {
    #[arg(long)]
    pub(crate) topic: String,
    #[arg(long)]
    pub(crate) threads: u32,
    /// How many records to send, all threads together
    #[arg(long)]
    pub(crate) records: u64,
    /// How many records a thread sends before it waits for them
    #[arg(long)]
    pub(crate) burst: usize,
}

#[derive(Debug, Args)]
pub(crate) struct DemoConsume {
    #[arg(long)]
    pub(crate) topic: String,
    #[arg(long)]
    pub(crate) group: String,
    /// How many records a poll returns at most; a commit follows each
    #[arg(long)]
    pub(crate) poll: usize,
}

/// `name=value`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("it has no `=`".to_owned()),
    }
}

/// Reads the command line; tells and ends the process if it makes no sense.
pub(crate) fn parse() -> Arguments {
    Arguments::parse_from(actions_as_commands(std::env::args_os().collect()))
}

/// Turns the actions of Kafka's tools, which are flags, into commands: `topics --create ..` into `topics create ..`.
fn actions_as_commands(mut words: Vec<OsString>) -> Vec<OsString> {
    const ACTIONS: [&str; 7] =
        ["--create", "--list", "--describe", "--alter", "--delete", "--reset-offsets", "--delete-offsets"];
    // The first word that is no flag and no value of one is the command.
    let takes_value = |word: &OsStr| {
        let flags = ["--dir", "--output", "--bootstrap-server", "--broker-list", "--zookeeper", "--replication-factor"];
        flags.iter().any(|flag| word == *flag)
    };
    let mut command = 1;
    while let Some(word) = words.get(command).filter(|word| word.as_encoded_bytes().starts_with(b"--")) {
        command += if takes_value(word) { 2 } else { 1 };
    }
    if words.get(command).is_some_and(|word| word == "topics" || word == "groups") {
        let is_action = |word: &OsString| ACTIONS.iter().any(|action| word == *action);
        if let Some(at) = words.iter().skip(command).position(is_action) {
            let action = words.remove(command + at).into_string().expect("it equals one of ours");
            words.insert(command + 1, action.trim_start_matches('-').into());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn partitions_are_said_as_in_kafka() {
        let parsed = |text: &str| text.parse::<Partitions>().map(|found| (found.topic, found.numbers));
        assert_eq!(parsed("orders"), Ok(("orders".to_owned(), vec![])));
        assert_eq!(parsed("orders:0,12"), Ok(("orders".to_owned(), vec![0, 12])));
        assert!(parsed("orders:").is_err() && parsed("orders:0,x").is_err());
    }

    #[test]
    fn actions_may_be_flags_as_in_kafka() {
        let rewritten = |line: &str| {
            let words = actions_as_commands(line.split(' ').map(OsString::from).collect());
            words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (said, meant) in [
            ("t topics --create --topic a --partitions 3", "t topics create --topic a --partitions 3"),
            ("t --dir topics topics --zookeeper z --list", "t --dir topics topics list --zookeeper z"),
            ("t groups --describe --group g", "t groups describe --group g"),
            ("t groups --group g --reset-offsets --to-earliest", "t groups reset-offsets --group g --to-earliest"),
            ("t topics create --topic a", "t topics create --topic a"),
            ("t produce --create", "t produce --create"),
            ("t", "t"),
        ] {
            assert_eq!(rewritten(said), meant);
        }
    }
}
