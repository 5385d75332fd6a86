//! The command-line tool, as the tests run it: in a directory of its own, to the end or until it is killed.
#![allow(dead_code, reason = "each test file uses a part")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A directory with a log, removed at the end.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The tool with these words, in this directory, with nobody at its terminal.
    pub(crate) fn tool<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
        command.args(words).env("TIDELOG_DIR", self.path()).env("COLUMNS", "80");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the tool to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ended {
        self.run_with(words, b"")
    }

    /// Runs the tool to its end, with this on standard input.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, words: &[S], input: &[u8]) -> Ended {
        let mut child = self.tool(words).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // It may end before it has read all.
                drop(stdin.write_all(input));
            });
            child.wait_with_output().unwrap()
        });
        Ended { code: output.status.code(), out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
    }

    /// Starts the tool, and listens.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, words: &[S]) -> Running {
        let mut child = self.tool(words).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let out = BufReader::with_capacity(4096, child.stdout.take().unwrap());
        Running { stdin: child.stdin.take(), child, out }
    }
}

/// What the tool said and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    /// Standard output of a run that must have gone well and said nothing else.
    #[track_caller]
    pub(crate) fn out(self) -> Vec<u8> {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", String::from_utf8_lossy(&self.out));
        self.out
    }

    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.out()).unwrap()
    }
}

/// The tool at work. Killed if it is dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn write(&mut self, input: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(input).unwrap();
        stdin.flush().unwrap();
    }

    /// The next line without its end; waits for it. `None` at the end, and of a line that was cut.
    pub(crate) fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.out.read_until(b'\n', &mut line).unwrap();
        (line.pop() == Some(b'\n')).then_some(line)
    }

    /// Sends SIGKILL, and returns the whole lines that had been written before, and whether it was that that ended it.
    pub(crate) fn kill(mut self) -> (Vec<Vec<u8>>, bool) {
        self.child.kill().unwrap();
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        (lines, self.child.wait().unwrap().signal() == Some(9))
    }

    /// Closes standard input, and returns the rest of standard output and the exit code.
    pub(crate) fn end(mut self) -> (Vec<u8>, Option<i32>) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        self.out.read_to_end(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; a test that fails must leave no process behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Numbers that look like chance, from a seed that is part of every message.
pub(crate) struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// From `TIDELOG_SEED`, or else another one each time.
    pub(crate) fn new() -> Self {
        let given = std::env::var("TIDELOG_SEED").ok().map(|text| text.parse().expect("TIDELOG_SEED is a number"));
        let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
        Chance { seed, state: seed }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// From 0 to `end`, without it.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// How often to kill: `TIDELOG_KILLS`, or else a few times.
pub(crate) fn kills(few: u64) -> u64 {
    std::env::var("TIDELOG_KILLS").map_or(few, |text| text.parse().expect("TIDELOG_KILLS is a number"))
}
