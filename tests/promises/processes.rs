//! What takes more than one process, or a whole one: kills, locks, forks, limits, real file systems, injected errors.
//!
//! A test starts this binary again as a [`Child`], which plays one of the parts below.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tidelog::{ConsumerConfig, Durability, Error, EventLog, OffsetReset, ProducerRecord, TopicConfig};

use crate::shared::{NOW, commit, config, full_sweep, name, read_around_damage, reader, resuming, small};

/// What a child says begins so, to tell it from what the test harness says.
const SAYS: &str = "child: ";

/// This binary once more, in the part of somebody else.
pub(crate) struct Child {
    process: process::Child,
    ears: ChildStdin,
    mouth: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(part: &str, directory: &Path) -> Child {
        Child::run(Command::new(env::current_exe().unwrap()), part, directory).unwrap()
    }

    /// Under another program, which is given the command line.
    fn under<S: AsRef<OsStr>>(program: &str, arguments: &[S], part: &str, directory: &Path) -> Option<Child> {
        let mut command = Command::new(program);
        command.args(arguments).arg(env::current_exe().unwrap());
        Child::run(command, part, directory).ok()
    }

    /// As a user without rights, for whom the directory is made: `None`, with a note, where that is not possible.
    pub(crate) fn as_nobody(part: &str, directory: &Path) -> Option<Child> {
        let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(directory).stderr(Stdio::null()).status();
        // Whoever may not read this binary cannot be the child.
        let binary = directory.join("child");
        let exe = env::current_exe().unwrap();
        let ready = chown.is_ok_and(|status| status.success()) && fs::copy(exe, &binary).is_ok();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        let child = if ready { Child::run(command, part, directory).ok() } else { None };
        let mut child = child.filter(|_| ready);
        let greets = child.as_mut().is_some_and(|child| child.listen().as_deref() == Some("ready"));
        if !greets {
            println!("skipped: no child can be started as another user here");
            return None;
        }
        fs::remove_file(binary).unwrap();
        child
    }

    fn run(mut command: Command, part: &str, directory: &Path) -> std::io::Result<Child> {
        let mut process = command
            .args(["--exact", "processes::a_child_plays_its_part", "--nocapture", "--test-threads=1"])
            .env("TIDELOG_PART", part)
            .env("TIDELOG_DIRECTORY", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (ears, mouth) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Ok(Child { process, ears, mouth })
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.ears, "{line}").unwrap();
    }

    /// What the child says next; `None` if it has ended.
    fn listen(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.mouth.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.trim_end().split_once(SAYS) {
                return Some(said.to_owned());
            }
        }
    }

    pub(crate) fn hear(&mut self) -> String {
        self.listen().expect("the child says something")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Ends it as nothing can be ended more.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A file system of its own, unmounted when it is dropped.
pub(crate) struct Mount {
    directory: tempfile::TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

impl Mount {
    pub(crate) fn tmpfs(size: &str) -> Option<Mount> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", directory.path().to_str()?]);
        Mount::when(mounted, directory, None)
    }

    /// On an image in a file, made by `mkfs.NAME`.
    fn image(system: &str, bytes: u64) -> Option<Mount> {
        let (directory, image) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        image.as_file().set_len(bytes).unwrap();
        let path = image.path().to_str()?.to_owned();
        let made = run(&format!("mkfs.{system}"), &["-q", &path]);
        let mounted = made && run("mount", &["-o", "loop", &path, directory.path().to_str()?]);
        Mount::when(mounted, directory, Some(image))
    }

    fn when(mounted: bool, directory: tempfile::TempDir, image: Option<tempfile::NamedTempFile>) -> Option<Mount> {
        if !mounted {
            println!("skipped: this file system cannot be made and mounted here");
            return None;
        }
        Some(Mount { directory, _image: image })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn make_read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro", self.path().to_str().unwrap()]));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", self.path().to_str().unwrap_or_default()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn say(what: impl std::fmt::Display) {
    println!("{SAYS}{what}");
}

fn wait_to_be_told() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_child_plays_its_part() {
    let Some(part) = env::var_os("TIDELOG_PART") else { return };
    let directory = PathBuf::from(env::var_os("TIDELOG_DIRECTORY").unwrap());
    match part.to_str().unwrap() {
        "sender" => sender(&directory),
        "holder" => {
            let log = EventLog::open(&directory).unwrap();
            say("open");
            wait_to_be_told();
            drop(log);
            say("closed");
        }
        "open" => {
            say("ready");
            wait_to_be_told();
            match EventLog::open_with(&directory, config()) {
                Ok(_) => say("opened"),
                Err(error) => say(error),
            }
        }
        "reader" => {
            let log = EventLog::open_read_only(&directory).unwrap();
            loop {
                wait_to_be_told();
                // Looks for news.
                log.list_topics();
                let partition = &log.describe_topic("orders").unwrap().partitions[0];
                let read = read_around_damage(&log, &name("orders", 0)).0.len();
                say(format!("{read} {} {}", partition.high_watermark, partition.log_end));
            }
        }
        "file size" => file_size(&directory),
        "descriptors" => descriptors(&directory),
        "address space" => address_space(&directory),
        "parent" => parent(&directory),
        "syncs" => syncs(&directory),
        "copying" => copying(&directory),
        part => panic!("there is no part {part}"),
    }
}

/// Sends for ever, and says what was promised.
fn sender(directory: &Path) {
    let log = EventLog::open(directory).unwrap();
    for (topic, durability) in [("orders", Durability::Sync), ("clicks", Durability::Os)] {
        match log.create_topic(topic, small(durability)) {
            Ok(()) | Err(Error::TopicExists { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let producer = log.producer();
    for n in 0u64.. {
        let topic = if n % 3 == 0 { "orders" } else { "clicks" };
        let mut value = n.to_le_bytes().to_vec();
        value.resize(100 + n as usize % 900, n as u8);
        let delivery = producer.send(ProducerRecord::new(topic, &value)).unwrap();
        let offset = delivery.offset();
        if n % 9 == 0 {
            delivery.wait().unwrap();
            commit(&log, &name("orders", 0), offset.get()).unwrap();
            say(format!("committed {offset}"));
        }
        say(format!("{topic} {offset} {n}"));
    }
}

#[test]
fn kill_9_takes_nothing_that_was_accepted_and_the_next_opening_needs_no_help() {
    let directory = tempfile::tempdir().unwrap();
    let mut known: std::collections::BTreeMap<(String, u64), u64> = [].into();
    let (mut committed, mut lives) = (0, 0);
    for life in 0..if full_sweep() { 100 } else { 8 } {
        let mut child = Child::start("sender", directory.path());
        for _ in 0..20 + life * 37 % 150 {
            let said = child.hear();
            match said.split(' ').collect::<Vec<_>>()[..] {
                ["committed", offset] => committed = offset.parse().unwrap(),
                [topic, offset, n] => {
                    let before = known.insert((topic.to_owned(), offset.parse().unwrap()), n.parse().unwrap());
                    assert_eq!(before, None, "life {life}: offset {offset} of {topic} was given twice");
                }
                _ => panic!("{said}"),
            }
        }
        child.kill();
        lives += 1;

        let log = EventLog::open_with(directory.path(), config()).unwrap();
        assert!(log.recovery_report().is_clean(), "life {life}: {:?}", log.recovery_report());
        for topic in ["orders", "clicks"] {
            let (found, _) = read_around_damage(&log, &name(topic, 0));
            for ((_, offset), n) in known.iter().filter(|((known, _), _)| known == topic) {
                assert_eq!(found[offset][..8], n.to_le_bytes(), "life {life}: {topic} {offset}");
            }
            assert!(found.into_keys().eq(0..log.describe_topic(topic).unwrap().partitions[0].log_end.get()));
        }
        let group = resuming(&log, &name("orders", 0)).committed(&name("orders", 0)).unwrap();
        assert!(group.is_some_and(|group| group.offset.get() >= committed), "life {life}: a commit is gone");
        // What it accepted and did not come to say is there too, and is known from now on.
        let (found, _) = read_around_damage(&log, &name("clicks", 0));
        let numbers = found.iter().map(|(offset, value)| (*offset, u64::from_le_bytes(value[..8].try_into().unwrap())));
        known.extend(numbers.map(|(offset, n)| (("clicks".to_owned(), offset), n)));
        let (found, _) = read_around_damage(&log, &name("orders", 0));
        let numbers = found.iter().map(|(offset, value)| (*offset, u64::from_le_bytes(value[..8].try_into().unwrap())));
        known.extend(numbers.map(|(offset, n)| (("orders".to_owned(), offset), n)));
    }
    println!("{lives} processes were killed, {} records are there", known.len());
}

#[test]
fn a_second_writer_is_refused_at_once_with_the_holder_named_and_never_steals_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Child::start("holder", directory.path());
    assert_eq!(child.hear(), "open");
    let refused = |holder: u32| match EventLog::open_with(directory.path(), config()) {
        Err(Error::Locked { path, holder: named }) => {
            assert_eq!((path.as_path(), named), (directory.path(), Some(holder)));
        }
        other => panic!("{other:?}"),
    };
    refused(child.process.id());
    // A process that was stopped still holds it, however long that lasts.
    child.signal(Signal::STOP);
    for _ in 0..3 {
        refused(child.process.id());
    }
    child.signal(Signal::CONT);
    refused(child.process.id());

    child.kill();
    let log = EventLog::open_with(directory.path(), config()).expect("free at once after kill -9");
    refused(process::id());
    drop(log);
    let mut child = Child::start("holder", directory.path());
    assert_eq!(child.hear(), "open");
    child.tell("close");
    assert_eq!(child.hear(), "closed");
    EventLog::open_with(directory.path(), config()).expect("free at once after it was closed");
}

#[test]
fn a_reader_in_another_process_sees_whole_records_and_the_promised_apart_from_the_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open_with(directory.path(), config()).unwrap();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    let mut child = Child::start("reader", directory.path());
    let mut look = || {
        child.tell("look");
        let said = child.hear();
        let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
        <[u64; 3]>::try_from(numbers).unwrap()
    };
    assert_eq!(look(), [0, 0, 0]);
    for n in 1..=12u64 {
        let delivery = log.producer().send(ProducerRecord::new("orders", &[n as u8; 700])).unwrap();
        // Accepted, and proven is what was durable when it was appended.
        assert_eq!(look(), [n - 1, n - 1, n], "record {n}");
        delivery.wait().unwrap();
    }
    log.close().unwrap();
    assert_eq!(look(), [12, 12, 12], "closing says that all is durable");
}

fn raise(resource: Resource) {
    let limit = getrlimit(resource);
    setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

fn lower(resource: Resource, to: u64) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: Some(to), maximum }).unwrap();
}

/// Sends until it is refused; then lifts the limit, and sends once more.
fn send_against_the_limit(log: &EventLog, resource: Resource) {
    let mut sent = 0u64;
    let error = loop {
        match log.producer().send(ProducerRecord::new("orders", &[7; 3000])) {
            Ok(delivery) => drop(delivery.wait().unwrap()),
            Err(error) => break error,
        }
        sent += 1;
        assert!(sent < 100_000, "the limit was not reached");
    };
    say(&error);
    // What is mapped stays readable.
    let mut reader = reader(log, &name("orders", 0));
    let mut read = 0;
    while read < sent {
        read += reader.poll(NOW).unwrap().len() as u64;
    }
    raise(resource);
    let offset = log.producer().send(ProducerRecord::new("orders", b"more")).unwrap().wait().unwrap().offset();
    assert_eq!(offset.get(), sent);
    say("passed");
}

fn file_size(directory: &Path) {
    let log = EventLog::open_with(directory, config()).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    lower(Resource::Fsize, 100_000);
    send_against_the_limit(&log, Resource::Fsize);
}

fn descriptors(directory: &Path) {
    let log = EventLog::open_with(directory, config()).unwrap();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    // The standard streams have all that there are: whatever the log lets go of, it gets none for it.
    lower(Resource::Nofile, 3);
    send_against_the_limit(&log, Resource::Nofile);
}

fn address_space(directory: &Path) {
    let log = EventLog::open_with(directory, config()).unwrap();
    // One more segment is more than there is room for, and sealed ones are not mapped for long.
    log.create_topic("orders", small(Durability::Sync).segment_bytes(8 << 20)).unwrap();
    let pages: u64 = fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    lower(Resource::As, pages * 4096 + (4 << 20));
    send_against_the_limit(&log, Resource::As);
}

#[test]
fn a_limit_of_the_process_is_an_error_that_names_it_and_passes_when_it_is_lifted() {
    for (part, named) in [
        ("file size", "file size limit of the process, 100000 bytes"),
        ("descriptors", "RLIMIT_NOFILE"),
        ("address space", "RLIMIT_AS"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Child::start(part, directory.path());
        let said = child.listen().unwrap_or_else(|| panic!("{part}: it was killed: {:?}", child.process.wait()));
        assert!(said.contains(named) && said.contains("topics/orders/0"), "{part}: {said}");
        assert_eq!(child.listen().as_deref(), Some("passed"), "{part}");
    }
}

/// Forks, and looks what the child can do.
fn parent(directory: &Path) {
    let log = EventLog::open(directory.join("log")).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    let producer = log.producer();
    let delivery = producer.send(ProducerRecord::new("orders", b"1")).unwrap();
    delivery.wait().unwrap();
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config.clone()).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let partition = name("orders", 0);
            let refusals = [
                producer.send(ProducerRecord::new("orders", b"2")).err(),
                producer.send_batch([ProducerRecord::new("orders", b"2")]).err(),
                producer.flush().err(),
                delivery.wait().err(),
                consumer.poll(NOW).err(),
                consumer.commit().err(),
                consumer.seek(&partition, 0).err(),
                consumer.position(&partition).err(),
                consumer.committed(&partition).err(),
                consumer.subscribe(["orders"]).err(),
                log.consumer(config).err(),
                log.create_topic("more", TopicConfig::new()).err(),
                log.add_partitions("orders", 2).err(),
                log.describe_topic("orders").err(),
                log.describe_group("billing").err(),
                log.delete_topic("orders").err(),
                log.clone().close().err(),
            ];
            let forked = refusals.iter().all(|error| matches!(error, Some(Error::Forked)));
            let nothing = log.list_topics().is_empty() && log.maintain().is_none();
            // What was polled is memory like any other.
            let readable = records.iter().next().is_some_and(|record| record.value() == Some(b"1"));
            drop((producer, delivery, consumer, records, log));
            // The parent's log is the parent's; another one may be opened.
            let locked = matches!(EventLog::open(directory.join("log")), Err(Error::Locked { .. }));
            let other = EventLog::open(directory.join("other")).is_ok();
            process::exit(if forked && nothing && readable && locked && other { 0 } else { 1 });
        }
        fork::Fork::Parent(child) => {
            say(format!("the child ended with {}", fork::waitpid(child).unwrap()));
            producer.send(ProducerRecord::new("orders", b"2")).unwrap().wait().unwrap();
            assert_eq!(consumer.poll(NOW).unwrap().len(), 1);
            consumer.commit().unwrap();
            drop((producer, consumer));
            log.close().unwrap();
            let log = EventLog::open(directory.join("log")).unwrap();
            assert!(log.recovery_report().is_clean());
            say(format!("{} records", read_around_damage(&log, &name("orders", 0)).0.len()));
        }
    }
}

#[test]
fn in_a_forked_child_every_call_is_refused_drops_do_nothing_and_the_parent_is_unharmed() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Child::start("parent", directory.path());
    assert_eq!(child.hear(), "the child ended with 0");
    assert_eq!(child.hear(), "2 records");
}

/// Sends until something is refused, and says what.
fn syncs(directory: &Path) {
    let log = match EventLog::open_with(directory, config()) {
        Ok(log) => log,
        Err(error) => return say(format!("cannot open: {error}")),
    };
    if let Err(error) = log.create_topic("orders", small(Durability::Sync)) {
        return say(format!("cannot create: {error}"));
    }
    let mut delivered = 0;
    for n in 0..30u8 {
        let sent = log.producer().send(ProducerRecord::new("orders", &[n; 900]));
        match sent.and_then(|delivery| delivery.wait()) {
            Ok(_) => delivered += 1,
            Err(error) => {
                // A segment that could not be made is no failed sync: nothing of it was used.
                let refused = log.producer().send(ProducerRecord::new("orders", &[n; 900])).is_err();
                assert!(refused || !matches!(error, Error::SyncFailed { .. }));
                return say(format!("delivered {delivered}: {error}"));
            }
        }
    }
    say(format!("delivered {delivered}"));
}

#[test]
fn errors_that_strace_injects_into_real_system_calls_lose_nothing_that_was_delivered() {
    let calls = [
        "fdatasync:error=EIO",
        "fdatasync:error=ENOSPC",
        "fsync:error=EIO",
        "fallocate:error=ENOSPC",
        "fallocate:error=EDQUOT",
        "mmap:error=ENOMEM",
    ];
    let (mut injected, mut noticed) = (0, 0);
    for call in calls {
        for at in if full_sweep() { (1..40).collect() } else { vec![2, 5, 9, 14] } {
            let directory = tempfile::tempdir().unwrap();
            let (name_of_call, inject) = (call.split(':').next().unwrap(), format!("inject={call}:when={at}+"));
            // Maps of the log only, not those of the allocator.
            let path = format!("{}/topics/orders/0", directory.path().display());
            let mut arguments = vec!["-f", "-qq", "-o", "/dev/null", "-e"];
            let trace = format!("trace={name_of_call}");
            arguments.extend([trace.as_str(), "-e", &inject]);
            if name_of_call == "mmap" {
                let log = EventLog::open_with(directory.path(), config()).unwrap();
                log.create_topic("orders", small(Durability::Sync)).unwrap();
                drop(log);
                arguments.extend(["-P", &path]);
            }
            let said = Child::under("strace", &arguments, "syncs", directory.path()).and_then(|mut child| {
                let said = child.listen();
                // Until it has ended, the lock is its own.
                while child.listen().is_some() {}
                child.process.wait().unwrap();
                said
            });
            let Some(said) = said else {
                println!("skipped: strace is not here, or may not trace");
                return;
            };
            injected += 1;
            noticed += u32::from(!said.starts_with("delivered 30"));
            let delivered: u64 =
                said.strip_prefix("delivered ").map_or(0, |rest| rest.split(':').next().unwrap().parse().unwrap());

            let log = EventLog::open_with(directory.path(), config()).unwrap();
            assert!(log.recovery_report().damage.is_empty(), "{call} {at}: {:?}", log.recovery_report());
            if delivered > 0 {
                let (found, _) = read_around_damage(&log, &name("orders", 0));
                assert!(found.len() as u64 >= delivered, "{call} {at}: {said}, and {} are there", found.len());
                assert!(found.iter().all(|(offset, value)| *value == [*offset as u8; 900]), "{call} {at}: {said}");
            }
        }
    }
    println!("strace injected {injected} errors into system calls, {noticed} were noticed");
}

/// A log on a file system that fills up, is read, and goes on when there is room.
fn fill_up(mount: &Mount, system: &str) {
    let root = mount.path().join("log");
    let (ballast, filler) = (mount.path().join("ballast"), mount.path().join("filler"));
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    // All but a few megabytes: filling up the rest tells nothing new.
    let left = rustix::fs::statvfs(mount.path()).unwrap();
    if let Some(bytes) = (left.f_bavail * left.f_frsize).checked_sub(12 << 20) {
        let file = fs::File::create(filler).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1)).unwrap();
    }
    let log = EventLog::open_with(&root, config()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(1 << 20)).unwrap();
    let mut sent = 0u64;
    for room in [true, false] {
        let error = loop {
            match log.producer().send(ProducerRecord::new("orders", &[sent as u8; 10_000])) {
                Ok(delivery) => drop(delivery.wait().unwrap()),
                Err(error) => break error,
            }
            sent += 1;
        };
        assert!(matches!(error, Error::NoSpace { .. }), "{system}: {error}");
        for n in 0..50 {
            commit(&log, &name("orders", 0), sent - n % 3)
                .unwrap_or_else(|error| panic!("{system}, commit {n}: {error}"));
        }
        assert_eq!(read_around_damage(&log, &name("orders", 0)).0.len() as u64, sent, "{system}");
        if room {
            fs::remove_file(&ballast).unwrap();
            log.producer().send(ProducerRecord::new("orders", &[sent as u8; 10_000])).unwrap().wait().unwrap();
            sent += 1;
        }
    }
    drop(log);
    let log =
        EventLog::open_with(&root, config()).unwrap_or_else(|error| panic!("{system}: full, and not opened: {error}"));
    assert!(log.recovery_report().is_clean(), "{system}: {:?}", log.recovery_report());
    let (found, _) = read_around_damage(&log, &name("orders", 0));
    assert_eq!(found.len() as u64, sent, "{system}");
    assert!(found.iter().all(|(offset, value)| *value == [*offset as u8; 10_000]), "{system}");
    println!("{system} was filled up twice, with {sent} records");
}

#[test]
fn a_real_file_system_that_is_full_raises_no_signal_and_goes_on_when_there_is_room() {
    let systems = [("tmpfs", 0), ("ext4", 24 << 20), ("xfs", 320 << 20), ("btrfs", 128 << 20)];
    for (system, bytes) in systems {
        let mount = if system == "tmpfs" { Mount::tmpfs("8m") } else { Mount::image(system, bytes) };
        match mount {
            Some(mount) => fill_up(&mount, system),
            None => println!("skipped: {system}"),
        }
    }
}

/// Takes all the room that a file system has.
fn leave_no_room(mount: &Mount) {
    let mut filler = fs::File::create(mount.path().join("filler")).unwrap();
    for size in [1 << 20, 1 << 16, 4096] {
        while filler.write_all(&vec![7; size]).and_then(|()| filler.sync_data()).is_ok() {}
    }
}

#[test]
fn a_log_whose_blocks_a_snapshot_shares_raises_no_signal_on_a_full_file_system() {
    for (system, bytes) in [("xfs", 320 << 20), ("btrfs", 128 << 20)] {
        let Some(mount) = Mount::image(system, bytes) else {
            println!("skipped: {system}");
            continue;
        };
        let root = mount.path().join("log");
        let (log_path, snapshot) = (root.display().to_string(), mount.path().join("snapshot").display().to_string());
        let subvolume = system == "btrfs" && run("btrfs", &["subvolume", "create", &log_path]);
        let log = EventLog::open_with(&root, config()).unwrap();
        log.create_topic("orders", TopicConfig::new().segment_bytes(1 << 20)).unwrap();
        let send = |log: &EventLog, n: u8| log.producer().send(ProducerRecord::new("orders", &[n; 3000])).map(drop);
        (0..5).for_each(|n| send(&log, n).unwrap());
        log.close().unwrap();
        let shared = match subvolume {
            true => run("btrfs", &["subvolume", "snapshot", &log_path, &snapshot]),
            false => run("cp", &["-r", "--reflink=always", &log_path, &snapshot]),
        };
        if !shared {
            println!("skipped: {system} makes no copies that share blocks");
            continue;
        }
        leave_no_room(&mount);

        // Every page that is stored to needs a block of its own now, although the file has had its room for long.
        let sent = match EventLog::open_with(&root, config()) {
            Ok(log) => {
                let refused = (5..100).find_map(|n| send(&log, n).err().map(|error| (n, error)));
                if let Some((_, error)) = &refused {
                    assert!(matches!(error, Error::NoSpace { .. }), "{system}: {error}");
                }
                refused.map_or(100, |(n, _)| n)
            }
            Err(error) => {
                println!("{system}: {error}");
                5
            }
        };
        fs::remove_file(mount.path().join("filler")).unwrap();
        let gone = subvolume && run("btrfs", &["subvolume", "delete", &snapshot]);
        assert!(gone || fs::remove_dir_all(&snapshot).is_ok());
        let log = EventLog::open_with(&root, config()).unwrap();
        let (found, damaged) = read_around_damage(&log, &name("orders", 0));
        assert!(damaged.is_empty() && found.len() >= 5, "{system}: {damaged:?}");
        assert!(found.iter().all(|(offset, value)| *value == [*offset as u8; 3000]), "{system}");
        println!("{system}: {sent} records were sent to a full file system whose blocks were shared");
    }
}

#[test]
fn bytes_that_the_disk_does_not_give_are_an_error_of_that_read_and_not_the_end_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open_with(directory.path(), config()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(4 << 20).durability(Durability::Os)).unwrap();
    for n in 0..700u32 {
        log.producer().send(ProducerRecord::new("orders", &[n as u8; 10_000])).unwrap();
    }
    log.close().unwrap();
    let log = EventLog::open_with(directory.path(), config()).unwrap();
    // What was checked is not asked for again: a reader that takes little checks little.
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::None).max_poll_records(1);
    let mut reader = log.consumer(config).unwrap();
    reader.assign([name("orders", 0)]).unwrap();
    reader.seek_to_beginning(&[]).unwrap();
    let first = reader.poll(NOW).unwrap().iter().next().map(|record| record.offset().get());
    assert_eq!(first, Some(0));

    // As a medium that fails would: the sealed segment is mapped whole, and what is behind cannot be read any more.
    let path = directory.path().join("topics/orders/0/00000000000000000000.log");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    reader.seek(&name("orders", 0), 350).unwrap();
    for _ in 0..2 {
        match reader.poll(NOW) {
            Err(Error::Io { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }

    // The rest of the log is read.
    let end = log.describe_topic("orders").unwrap().partitions[0].log_end.get();
    reader.seek(&name("orders", 0), end - 1).unwrap();
    assert_eq!(reader.poll(NOW).unwrap().len(), 1);
}

/// A log of two sealed segments and a newest one, closed; and their paths.
fn log_of_pages(directory: &Path) -> Vec<PathBuf> {
    let log = EventLog::open_with(directory, config()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(64 << 10).durability(Durability::Os)).unwrap();
    for n in 0..150u32 {
        log.producer().send(ProducerRecord::new("orders", &[n as u8; 1000])).unwrap();
    }
    log.close().unwrap();
    let mut paths: Vec<_> =
        fs::read_dir(directory.join("topics/orders/0")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 3);
    paths
}

#[test]
fn what_was_copied_to_be_read_is_there_whatever_becomes_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let paths = log_of_pages(directory.path());
    let log = EventLog::open_with(directory.path(), config().copy_reads(true)).unwrap();
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::None).max_poll_records(1);
    let mut reader = log.consumer(config).unwrap();
    reader.assign([name("orders", 0)]).unwrap();
    reader.seek_to_beginning(&[]).unwrap();
    let first = reader.poll(NOW).unwrap();

    // In a mapping, the next byte that anybody reads would end the process.
    fs::OpenOptions::new().write(true).open(&paths[0]).unwrap().set_len(0).unwrap();

    for n in 1..100u64 {
        let records = reader.poll(NOW).unwrap();
        let record = records.iter().next().unwrap();
        assert_eq!((record.offset().get(), record.value()), (n, Some(&[n as u8; 1000][..])));
    }
    assert_eq!(first.iter().next().unwrap().value(), Some(&[0; 1000][..]), "whoever holds a record keeps its segment");
    // The copy goes with the last who reads it; the next one is of what is there now.
    drop(first);
    reader.seek(&name("orders", 0), 3).unwrap();
    assert!(matches!(reader.poll(NOW), Err(Error::Corrupt(_))));
}

#[test]
fn what_the_disk_does_not_give_is_an_error_of_a_copying_read() {
    let directory = tempfile::tempdir().unwrap();
    let sealed = log_of_pages(directory.path()).remove(0).display().to_string();
    // The first is of the header, when the log is opened.
    let inject = "inject=pread64:error=EIO:when=2";
    let arguments = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=pread64", "-e", inject, "-P", &sealed];
    let mut child = Child::under("strace", &arguments, "copying", directory.path());
    if child.as_mut().and_then(Child::listen).is_none() {
        println!("skipped: strace is not here, or may not trace");
        return;
    }
    let mut child = child.unwrap();
    assert_eq!(child.hear(), format!("cannot read {sealed}: Input/output error (os error 5)"));
    assert_eq!(child.hear(), "then 150 records");
}

/// Reads by copying; what the disk refused once it gives the second time.
fn copying(directory: &Path) {
    say("ready");
    let log = EventLog::open_with(directory, config().copy_reads(true)).unwrap();
    let mut reader = reader(&log, &name("orders", 0));
    say(reader.poll(NOW).unwrap_err());
    let mut read = 0;
    while let count @ 1.. = reader.poll(NOW).unwrap().len() {
        read += count;
    }
    say(format!("then {read} records"));
}

#[test]
fn a_rolled_segment_that_its_writer_shortens_disturbs_no_reader_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let writer = EventLog::open_with(directory.path(), config()).unwrap();
    writer.create_topic("orders", TopicConfig::new().segment_bytes(64 << 10).durability(Durability::Os)).unwrap();
    let send = |count: usize| {
        for n in 0..count {
            writer.producer().send(ProducerRecord::new("orders", &[n as u8; 4000])).unwrap();
        }
    };
    send(2);
    let early = EventLog::open_read_only(directory.path()).unwrap();
    let mut follower = reader(&early, &name("orders", 0));
    assert_eq!(follower.poll(NOW).unwrap().len(), 2);

    // Rolls in the middle of a segment, where the file goes on behind the end: the worker has marked it.
    writer.alter_topic("orders", TopicConfig::new().segment_bytes(8 << 10).durability(Durability::Os)).unwrap();
    send(40);
    writer.maintain();
    let mut paths: Vec<_> =
        fs::read_dir(directory.path().join("topics/orders/0")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let newest = paths.pop().unwrap();
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let kept = (end.next_multiple_of(8) + 8).next_multiple_of(4096).min(bytes.len() as u64);
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(kept).unwrap();
    }
    assert!(paths.len() > 5 && newest.exists());

    let mut read = 0;
    while let count @ 1.. = follower.poll(NOW).unwrap().len() {
        read += count;
    }
    assert_eq!(read, 40);
    let late = EventLog::open_read_only(directory.path()).unwrap();
    assert!(late.recovery_report().is_clean(), "{:?}", late.recovery_report());
}
