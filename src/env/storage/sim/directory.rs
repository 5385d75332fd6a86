//! The names in a directory, and what a power cut leaves of their changes: each is kept or lost by itself.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::env::random::Random;
use crate::env::storage::sim::power_cut::{Bias, PowerCut};

/// A path, as the path of its directory and its name there; `None` of the root.
pub(super) fn split(path: &Path) -> io::Result<Option<(&[u8], &[u8])>> {
    let not_below = || io::Error::new(io::ErrorKind::InvalidInput, "not a path below the root of the log");
    // Taken apart by hand: `components` looks at every byte several times, and every call to the disk comes by here.
    let path = path.as_os_str().as_encoded_bytes();
    // A directory joined with the empty path of its root.
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path.is_empty() {
        return Ok(None);
    }
    let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => return Err(not_below()),
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    if is_no_name(name) || above.first() == Some(&b'/') {
        return Err(not_below());
    }
    Ok(Some((above, name)))
}

/// A name as text: all names are.
pub(super) fn text(name: &[u8]) -> io::Result<Arc<str>> {
    let text = str::from_utf8(name).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a name in UTF-8"))?;
    Ok(text.into())
}

/// Whether no file is ever called so.
fn is_no_name(name: &[u8]) -> bool {
    matches!(name, b"" | b"." | b"..")
}

/// Names and the nodes that they stand for, in the order of the names. There are few: looking for one is quick.
#[derive(Clone, Default)]
pub(super) struct Names(Vec<(Arc<str>, u64)>);

impl Names {
    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_bytes().cmp(name))
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<u64> {
        self.place(name).ok().map(|at| self.0[at].1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.0.iter().map(|(name, node)| (name, *node))
    }

    /// What the names stand for.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(_, node)| *node)
    }

    fn insert(&mut self, name: Arc<str>, node: u64) {
        match self.place(name.as_bytes()) {
            Ok(at) => self.0[at].1 = node,
            Err(at) => self.0.insert(at, (name, node)),
        }
    }

    fn remove(&mut self, name: &str) {
        if let Ok(at) = self.place(name.as_bytes()) {
            self.0.remove(at);
        }
    }
}

/// The names in a directory: those that everybody sees, and those that a power cut leaves.
#[derive(Clone, Default)]
pub(super) struct Directory {
    pub(super) names: Names,
    durable: Names,
    /// What has changed since the last sync, in order.
    pending: Vec<Pending>,
}

#[derive(Clone)]
struct Pending {
    change: Change,
    /// Whether it outlives the power cut that is coming.
    kept: bool,
}

#[derive(Clone)]
pub(super) enum Change {
    Link {
        name: Arc<str>,
        node: u64,
    },
    Unlink {
        name: Arc<str>,
        node: u64,
    },
    Rename {
        from: Arc<str>,
        to: Arc<str>,
        node: u64,
    },
    /// The two halves of a rename from one directory to another have one number.
    MoveIn {
        id: u64,
        name: Arc<str>,
        node: u64,
    },
    MoveOut {
        id: u64,
        name: Arc<str>,
        node: u64,
    },
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Change::Link { name, node } | Change::MoveIn { name, node, .. } => names.insert(Arc::clone(name), *node),
            Change::Unlink { name, node } | Change::MoveOut { name, node, .. } => {
                // The name may stand for something else, if what came between is lost.
                if names.get(name.as_bytes()) == Some(*node) {
                    names.remove(name);
                }
            }
            Change::Rename { from, to, node } => {
                if names.get(from.as_bytes()) == Some(*node) {
                    names.remove(from);
                }
                names.insert(Arc::clone(to), *node);
            }
        }
    }

    fn names(&self) -> [&str; 2] {
        match self {
            Change::Link { name, .. }
            | Change::Unlink { name, .. }
            | Change::MoveIn { name, .. }
            | Change::MoveOut { name, .. } => [name, name],
            Change::Rename { from, to, .. } => [from, to],
        }
    }
}

impl Directory {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(Pending { change, kept: false });
    }

    pub(super) fn sync(&mut self) {
        if !self.pending.is_empty() {
            self.durable.0.clone_from(&self.names.0);
            self.pending.clear();
        }
    }

    /// Sets a name durably, or takes it away.
    pub(super) fn put(&mut self, name: &str, node: Option<u64>) {
        self.pending.retain(|pending| !pending.change.names().contains(&name));
        for names in [&mut self.names, &mut self.durable] {
            match node {
                Some(node) => names.insert(name.into(), node),
                None => names.remove(name),
            }
        }
    }

    /// Decides which of the pending changes are kept, and notes in `moved` whether what came from elsewhere has arrived.
    pub(super) fn choose(&mut self, how: PowerCut, random: &mut Random, moved: &mut BTreeMap<u64, bool>) {
        let bias = Bias::new(how, random);
        for pending in &mut self.pending {
            pending.kept = bias.keeps(random);
            if let Change::MoveIn { id, .. } = &pending.change {
                moved.insert(*id, pending.kept);
            }
        }
    }

    /// Applies what was chosen. What has not arrived elsewhere has not left here.
    pub(super) fn cut(&mut self, moved: &BTreeMap<u64, bool>) {
        for Pending { change, kept } in self.pending.drain(..) {
            let stays = matches!(&change, Change::MoveOut { id, .. } if moved.get(id) == Some(&false));
            if kept && !stays {
                change.apply(&mut self.durable);
            }
        }
        self.names.0.clone_from(&self.durable.0);
    }
}
