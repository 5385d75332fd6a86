//! Everything that there is in one life of the disk: its files and directories, and what shall befall them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::random::Random;
use crate::env::storage::sim::contents::Contents;
use crate::env::storage::sim::directory::{Change, Directory, split, text};
use crate::env::storage::sim::faults::{Director, Fault, Operation, Verdict};
use crate::env::storage::sim::power_cut::PowerCut;

/// One call in so many lets the kernel write back what nobody has asked for.
const WRITE_BACK_ONE_IN: u64 = 4;

/// A disk has room for the nodes of a small log before it has to look for more.
pub(super) const MANY_NODES: usize = 16;

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
    /// By their numbers; none for what no name leads to any more.
    pub(super) nodes: Vec<Option<Node>>,
    /// Directories that were found by their paths, until one of them is renamed or removed: nearly every call names a file in
    /// one of a few.
    pub(super) known: Vec<(Box<[u8]>, u64)>,
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
            let nodes = mem::take(&mut self.nodes).into_iter().map(|node| match node {
                Some(Node::File(contents)) => Some(Node::File(contents.survive())),
                other => other,
            });
            let nodes = nodes.collect();
            self.crashed = Some(Box::new(self.next(nodes)));
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
        let files = self.nodes.iter().filter(|node| matches!(node, Some(Node::File(_)))).count() as u64;
        if files == 0 {
            return;
        }
        let chosen = self.random.below(files) as usize;
        let mut files = self.nodes.iter_mut().filter_map(|node| match node {
            Some(Node::File(contents)) => Some(contents),
            _ => None,
        });
        if let Some(contents) = files.nth(chosen) {
            contents.write_back(&mut self.random);
        }
    }

    /// How many bytes the files take: those that have a name, and those that somebody still uses.
    pub(super) fn used(&self) -> u64 {
        let mut named = Vec::new();
        for node in self.nodes.iter().flatten() {
            if let Node::Directory(directory) = node {
                named.extend(directory.names.nodes());
            }
        }
        let taken = |(number, node): (usize, &Option<Node>)| match node {
            Some(Node::File(contents)) if named.contains(&(number as u64)) || contents.is_mapped() => contents.held,
            _ => 0,
        };
        self.nodes.iter().enumerate().map(taken).sum()
    }

    pub(super) fn add(&mut self, node: Node) -> u64 {
        self.nodes.push(Some(node));
        self.nodes.len() as u64 - 1
    }

    pub(super) fn find(&mut self, path: &Path) -> io::Result<u64> {
        let Some((above, name)) = split(path)? else { return Ok(ROOT) };
        let directory = self.find_directory(above)?;
        Ok(self.directory(directory)?.names.get(name).ok_or(io::ErrorKind::NotFound)?)
    }

    /// The directory that `path` lies in, and its name there.
    pub(super) fn parent<'a>(&mut self, path: &'a Path) -> io::Result<(u64, &'a [u8])> {
        let (above, name) = split(path)?.ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.find_directory(above)?;
        self.directory(directory).map(|_| (directory, name))
    }

    fn find_directory(&mut self, path: &[u8]) -> io::Result<u64> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        if let Some((_, node)) = self.known.iter().find(|(known, _)| **known == *path) {
            return Ok(*node);
        }
        let node = self.find(Path::new(str::from_utf8(path).map_err(|_| io::ErrorKind::NotFound)?))?;
        if self.directory(node).is_ok() {
            self.known.push((path.into(), node));
        }
        Ok(node)
    }

    pub(super) fn directory(&self, node: u64) -> io::Result<&Directory> {
        match self.nodes.get(node as usize) {
            Some(Some(Node::Directory(directory))) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn directory_mut(&mut self, node: u64) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(node as usize) {
            Some(Some(Node::Directory(directory))) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn contents(&self, node: u64) -> io::Result<&Contents> {
        match self.nodes.get(node as usize) {
            Some(Some(Node::File(contents))) => Ok(contents),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn contents_mut(&mut self, node: u64) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(node as usize) {
            Some(Some(Node::File(contents))) => Ok(contents),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn link(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (directory, name) = self.parent(path)?;
        if self.directory(directory)?.names.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (name, node) = (text(name)?, self.add(node));
        self.directory_mut(directory)?.change(Change::Link { name, node });
        Ok(node)
    }

    pub(super) fn unlink(&mut self, path: &Path, node: u64) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        self.directory_mut(directory)?.change(Change::Unlink { name: text(name)?, node });
        Ok(())
    }

    pub(super) fn collect_files(&self, node: u64, path: &mut PathBuf, files: &mut Vec<PathBuf>) {
        match &self.nodes[node as usize] {
            None => {}
            Some(Node::File(_)) => files.push(path.clone()),
            Some(Node::Directory(directory)) => {
                for (name, node) in directory.names.iter() {
                    path.push(&**name);
                    self.collect_files(node, path, files);
                    path.pop();
                }
            }
        }
    }

    /// A life in which nothing has happened yet.
    pub(super) fn of(nodes: Vec<Option<Node>>, random: Random) -> World {
        World {
            nodes,
            random,
            known: Vec::new(),
            next_move: 0,
            locked: false,
            write_back: true,
            crowded: false,
            capacity: None,
            trace: Vec::new(),
            faults: Vec::new(),
            crash_at: None,
            dead: false,
            crashed: None,
            director: None,
            operations: 0,
        }
    }

    /// The world from which the next life starts: that of the crash, if there was one.
    pub(super) fn last_moment(&mut self) -> World {
        match &mut self.crashed {
            Some(crashed) => crashed.copy(),
            None => self.copy(),
        }
    }

    /// The same files in memory of their own, in a new life. Two copies go different ways.
    fn copy(&mut self) -> World {
        let copied = self.nodes.iter_mut().map(|node| match node {
            Some(Node::File(contents)) => Some(Node::File(contents.copy())),
            Some(Node::Directory(directory)) => Some(Node::Directory(directory.clone())),
            None => None,
        });
        let nodes = copied.collect();
        self.next(nodes)
    }

    /// A new life with these files.
    fn next(&mut self, nodes: Vec<Option<Node>>) -> World {
        let random = Random::new(self.random.next());
        World {
            known: mem::take(&mut self.known),
            next_move: self.next_move,
            write_back: self.write_back,
            crowded: !self.crowded,
            capacity: self.capacity,
            ..World::of(nodes, random)
        }
    }

    /// Leaves of everything what the power cut leaves.
    pub(super) fn cut(&mut self, how: PowerCut) {
        let World { nodes, random, known, .. } = self;
        known.clear();
        let mut moved = BTreeMap::new();
        for node in nodes.iter_mut().flatten() {
            if let Node::Directory(directory) = node {
                directory.choose(how, random, &mut moved);
            }
        }
        for node in nodes.iter_mut().flatten() {
            match node {
                Node::Directory(directory) => directory.cut(&moved),
                Node::File(contents) => contents.cut(how, random),
            }
        }
        let mut reached = vec![false; nodes.len()];
        let mut ahead = vec![ROOT];
        while let Some(number) = ahead.pop() {
            if !mem::replace(&mut reached[number as usize], true)
                && let Some(Node::Directory(directory)) = &nodes[number as usize]
            {
                ahead.extend(directory.names.nodes());
            }
        }
        nodes.iter_mut().zip(reached).filter(|(_, reached)| !reached).for_each(|(node, _)| *node = None);
    }
}
