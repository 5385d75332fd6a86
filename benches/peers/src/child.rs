//! One process for each figure: the parent starts it, listens, and kills it where that is the work.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

use crate::peer::{Result, Unsupported};
use crate::roster::{COLUMNS, Column, Contender, roster};
use crate::work::{ACKNOWLEDGED, Effort, Measured, Row};

/// The first word of a child's command line.
pub(crate) const FLAG: &str = "--child";

/// With this instead of a row, a child appends until it is killed.
const DOOMED: &str = "doomed";

/// No piece of work takes so long: a child that is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of a piece of work.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Measured(Measured),
    /// The peer cannot do this, for this reason.
    Unsupported(String),
    /// It did not do it, or not right.
    Failed(String),
}

/// Starts children.
pub(crate) struct Parent {
    program: PathBuf,
    /// The children's files, deleted at the end.
    directory: tempfile::TempDir,
    quick: bool,
}

impl Parent {
    pub(crate) fn new(directory: Option<&Path>, quick: bool) -> Result<Self> {
        let program = env::current_exe()?;
        let beside = program.parent().ok_or("the program lies nowhere")?;
        let directory = tempfile::Builder::new().prefix("peers-").tempdir_in(directory.unwrap_or(beside))?;
        Ok(Parent { program, directory, quick })
    }

    pub(crate) fn measure(&self, column: &Column, contender: &Contender) -> Result<Outcome> {
        let directory = self.directory.path().join("data");
        let outcome = match column.row {
            Row::Reopen { .. } => self.reopened(contender, &directory),
            _ => self.finished(self.start(column.key, contender, &directory, 0)?),
        };
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        outcome
    }

    fn start(&self, row: &str, contender: &Contender, directory: &Path, acknowledged: u64) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args([FLAG, row, contender.about.package, &acknowledged.to_string(), &self.quick.to_string()]);
        command.arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // It is told so where its files go, and to be silent.
        command.env("WALRUS_DATA_DIR", directory).env("WALRUS_QUIET", "1").env("RUST_BACKTRACE", "0");
        Ok(command.spawn()?)
    }

    /// Waits for a child and takes what it says.
    fn finished(&self, child: Child) -> Result<Outcome> {
        let output = child.wait_with_output()?;
        if let Some(outcome) = String::from_utf8_lossy(&output.stdout).lines().rev().find_map(heard) {
            return Ok(outcome);
        }
        let said = message(&String::from_utf8_lossy(&output.stderr));
        Ok(Outcome::Failed(if said.is_empty() { output.status.to_string() } else { said }))
    }

    /// Has one child append until it is killed, and another open what is left.
    fn reopened(&self, contender: &Contender, directory: &Path) -> Result<Outcome> {
        let mut child = self.start(DOOMED, contender, directory, 0)?;
        let mut acknowledged = None;
        let stdout = child.stdout.take().ok_or("the child has no output")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            acknowledged = line.strip_prefix(ACKNOWLEDGED).and_then(|count| count.trim().parse().ok());
            if acknowledged.is_some() {
                break;
            }
            if let Some(outcome) = heard(&line) {
                child.wait()?;
                return Ok(outcome);
            }
        }
        child.kill()?;
        child.wait()?;
        let Some(acknowledged) = acknowledged else {
            let mut said = String::new();
            child.stderr.take().ok_or("the child has no output")?.read_to_string(&mut said)?;
            return Ok(Outcome::Failed(message(&said)));
        };
        self.finished(self.start("reopen", contender, directory, acknowledged)?)
    }
}

/// What a child that died said, without the place of a panic, which is one of this machine.
fn message(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.is_empty() && !line.contains("panicked at"));
    lines.take(2).collect::<Vec<_>>().join(" ")
}

const MEASURED: &str = "MEASURED";
const UNSUPPORTED: &str = "UNSUPPORTED";
const FAILED: &str = "FAILED";

/// The outcome that a line of a child's output tells, if it tells one.
fn heard(line: &str) -> Option<Outcome> {
    let (word, rest) = line.split_once(' ')?;
    match word {
        MEASURED => {
            let numbers: Vec<f64> = rest.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
            let [value, disk, descriptors, first] = numbers[..] else { return None };
            Some(Outcome::Measured(Measured { value, disk, descriptors, first }))
        }
        UNSUPPORTED => Some(Outcome::Unsupported(rest.to_owned())),
        FAILED => Some(Outcome::Failed(rest.to_owned())),
        _ => None,
    }
}

/// What a child does: its piece of work, and a line about it.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [row, package, acknowledged, quick, directory] = words else {
        return Err("a child is started by the program itself".into());
    };
    let column = COLUMNS.iter().find(|column| column.key == row).map(|column| column.row);
    let row = match column {
        Some(Row::Reopen { .. }) => Row::Reopen { acknowledged: acknowledged.parse()? },
        Some(row) => row,
        None => Row::Doomed,
    };
    let contenders = roster();
    let contender = contenders.iter().find(|one| one.about.package == package).ok_or("no such peer")?;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    thread::spawn(|| {
        thread::park_timeout(PATIENCE);
        println!("{FAILED} not done after {} s", PATIENCE.as_secs());
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    });
    match (contender.measure)(row, Path::new(directory), Effort::of(quick.parse()?)) {
        Ok(Measured { value, disk, descriptors, first }) => {
            println!("{MEASURED} {value} {disk} {descriptors} {first}");
        }
        Err(error) => match error.downcast_ref::<Unsupported>() {
            Some(why) => println!("{UNSUPPORTED} {why}"),
            None => println!("{FAILED} {}", error.to_string().replace('\n', " ")),
        },
    }
    // At once: not after what peers still do in the background, and what some do at a process's exit.
    kill_process(getpid(), Signal::KILL)?;
    Ok(())
}
