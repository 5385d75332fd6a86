//! Everything that there is in one life of the disk: its files and directories, and what shall befall them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::random::Random;
use crate::env::storage::sim::contents::Contents;
use crate::env::storage::sim::directory::{Change, Directory, names};
use crate::env::storage::sim::faults::{Director, Fault, Operation, Verdict};
use crate::env::storage::sim::power_cut::PowerCut;

/// One call in so many lets the kernel write back what nobody has asked for.
const WRITE_BACK_ONE_IN: u64 = 4;

/// The node of the root directory.
pub(super) const ROOT: u64 = 0;

/// What a call answers that comes after the end.
#[derive(Debug)]
struct Died;

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated machine has died")
    }
}

impl std::error::Error for Died {}

/// Everything that there is in one life.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) next_node: u64,
    pub(super) next_move: u64,
    pub(super) locked: bool,
    pub(super) write_back: bool,
    pub(super) crowded: bool,
    pub(super) capacity: Option<u64>,
    pub(super) trace: Vec<(Operation, PathBuf)>,
    /// With how many matching calls each has seen.
    pub(super) faults: Vec<(Fault, u64)>,
    pub(super) crash_at: Option<u64>,
    pub(super) dead: bool,
    /// The world as it was when the machine died.
    pub(super) crashed: Option<Box<World>>,
    pub(super) director: Option<Arc<dyn Director>>,
    pub(super) operations: u64,
}

pub(super) enum Node {
    File(Contents),
    Directory(Directory),
}

impl World {
    pub(super) fn check_alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other(Died)) } else { Ok(()) }
    }

    pub(super) fn assert_closed(&self) {
        assert!(!self.locked, "a log is open on this disk; close it, or take the disk of the next life");
    }

    /// Counts an operation, which may be the one that does not happen any more, and fails it if a fault says so.
    pub(super) fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.number(operation, path)?;
        match self.refusal(operation) {
            Some(fault) => Err(fault.failure.into()),
            None => Ok(()),
        }
    }

    pub(super) fn number(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.crash_at == Some(self.operations) {
            self.die();
        }
        self.check_alive()?;
        self.operations += 1;
        let verdict = match &self.director {
            Some(director) => director.decide(operation, path),
            None => {
                self.trace.push((operation, path.to_owned()));
                Verdict::Done
            }
        };
        match verdict {
            Verdict::Done => {}
            Verdict::Dies => self.die(),
            Verdict::Fails(failure, pages) => {
                let fault = Fault { at: 0, operation: Some(operation), failure, forever: false, pages };
                self.faults.push((fault, 0));
            }
        }
        self.check_alive()?;
        if self.write_back && self.random.chance(1, WRITE_BACK_ONE_IN) {
            self.write_something_back();
        }
        Ok(())
    }

    pub(super) fn die(&mut self) {
        if !self.dead {
            self.crashed = Some(Box::new(self.copy()));
            self.dead = true;
        }
    }

    /// The fault that hits this operation, if one does.
    pub(super) fn refusal(&mut self, operation: Operation) -> Option<Fault> {
        let mut hit = None;
        for (fault, seen) in &mut self.faults {
            if fault.operation.is_some_and(|wanted| wanted != operation) {
                continue;
            }
            let number = *seen;
            *seen += 1;
            if hit.is_none() && (number == fault.at || fault.forever && number > fault.at) {
                hit = Some(fault.clone());
            }
        }
        hit
    }

    /// What a kernel does when it is bored.
    fn write_something_back(&mut self) {
        let files = self.nodes.values().filter(|node| matches!(node, Node::File(_))).count() as u64;
        if files == 0 {
            return;
        }
        let chosen = self.random.below(files) as usize;
        let mut files = self.nodes.values_mut().filter_map(|node| match node {
            Node::File(contents) => Some(contents),
            Node::Directory(_) => None,
        });
        if let Some(contents) = files.nth(chosen) {
            contents.write_back(&mut self.random);
        }
    }

    /// How many bytes the files take: those that have a name, and those that somebody still uses.
    pub(super) fn used(&self) -> u64 {
        let mut named = Vec::new();
        for node in self.nodes.values() {
            if let Node::Directory(directory) = node {
                named.extend(directory.names.values().copied());
            }
        }
        let taken = |(number, node): (&u64, &Node)| match node {
            Node::File(contents) if named.contains(number) || contents.is_mapped() => contents.held,
            _ => 0,
        };
        self.nodes.iter().map(taken).sum()
    }

    pub(super) fn add(&mut self, node: Node) -> u64 {
        let number = self.next_node;
        self.next_node += 1;
        self.nodes.insert(number, node);
        number
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        let mut node = ROOT;
        for name in names(path) {
            node = *self.directory(node)?.names.get(name?).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// The directory that `path` lies in, and its name there.
    pub(super) fn parent(&self, path: &Path) -> io::Result<(u64, Arc<str>)> {
        let mut names = names(path).peekable();
        let mut directory = ROOT;
        while let Some(name) = names.next() {
            let there = self.directory(directory)?;
            let name = name?;
            if names.peek().is_none() {
                return Ok((directory, name.into()));
            }
            directory = *there.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    pub(super) fn directory(&self, node: u64) -> io::Result<&Directory> {
        match &self.nodes[&node] {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn directory_mut(&mut self, node: u64) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn contents(&self, node: u64) -> io::Result<&Contents> {
        match &self.nodes[&node] {
            Node::File(contents) => Ok(contents),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn contents_mut(&mut self, node: u64) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(contents)) => Ok(contents),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn link(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (directory, name) = self.parent(path)?;
        if self.directory(directory)?.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.add(node);
        self.directory_mut(directory)?.change(Change::Link { name, node });
        Ok(node)
    }

    pub(super) fn unlink(&mut self, path: &Path, node: u64) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        self.directory_mut(directory)?.change(Change::Unlink { name, node });
        Ok(())
    }

    pub(super) fn collect_files(&self, node: u64, path: &mut PathBuf, files: &mut Vec<PathBuf>) {
        match &self.nodes[&node] {
            Node::File(_) => files.push(path.clone()),
            Node::Directory(directory) => {
                for (name, node) in directory.names.iter() {
                    path.push(&**name);
                    self.collect_files(*node, path, files);
                    path.pop();
                }
            }
        }
    }

    /// The world from which the next life starts: that of the crash, if there was one.
    pub(super) fn last_moment(&mut self) -> World {
        match &mut self.crashed {
            Some(crashed) => crashed.copy(),
            None => self.copy(),
        }
    }

    /// The same files in memory of their own, and a life in which nothing has happened yet. Two copies go different ways.
    fn copy(&mut self) -> World {
        let nodes = self.nodes.iter_mut().map(|(number, node)| {
            let node = match node {
                Node::File(contents) => Node::File(contents.copy()),
                Node::Directory(directory) => Node::Directory(directory.clone()),
            };
            (*number, node)
        });
        World {
            nodes: nodes.collect(),
            random: Random::new(self.random.next()),
            next_node: self.next_node,
            next_move: self.next_move,
            locked: false,
            write_back: self.write_back,
            crowded: !self.crowded,
            capacity: self.capacity,
            trace: Vec::new(),
            faults: Vec::new(),
            crash_at: None,
            dead: false,
            crashed: None,
            director: None,
            operations: 0,
        }
    }

    /// Leaves of everything what the power cut leaves.
    pub(super) fn cut(&mut self, how: PowerCut) {
        let World { nodes, random, .. } = self;
        let mut moved = BTreeMap::new();
        for node in nodes.values_mut() {
            if let Node::Directory(directory) = node {
                directory.choose(how, random, &mut moved);
            }
        }
        for node in nodes.values_mut() {
            match node {
                Node::Directory(directory) => directory.cut(&moved),
                Node::File(contents) => *contents = contents.cut(how, random),
            }
        }
        let mut reached = BTreeMap::new();
        let mut ahead = vec![ROOT];
        while let Some(number) = ahead.pop() {
            if let Some(node) = nodes.remove(&number) {
                if let Node::Directory(directory) = &node {
                    ahead.extend(directory.names.values());
                }
                reached.insert(number, node);
            }
        }
        *nodes = reached;
    }
}
