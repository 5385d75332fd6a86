//! The names in a directory, and what a power cut leaves of their changes: each is kept or lost by itself.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::env::random::Random;
use crate::env::storage::sim::power_cut::{Bias, PowerCut};

/// A path, as the path of its directory and its name there; `None` of the root.
pub(super) fn split(path: &Path) -> io::Result<Option<(&str, &str)>> {
    let not_below = || io::Error::new(io::ErrorKind::InvalidInput, "not a path below the root of the log");
    // Taken apart by hand: `components` looks at every byte several times, and every call to the disk comes by here.
    let path = path.to_str().filter(|path| !path.starts_with('/')).ok_or_else(not_below)?;
    // A directory joined with the empty path of its root.
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(None);
    }
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(name, "" | "." | "..") { Err(not_below()) } else { Ok(Some((above, name))) }
}

/// Names and the nodes that they stand for. Lives and syncs share a map until somebody changes it.
pub(super) type Names = Arc<BTreeMap<Arc<str>, u64>>;

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
        let names = Arc::make_mut(names);
        match self {
            Change::Link { name, node } | Change::MoveIn { name, node, .. } => {
                names.insert(Arc::clone(name), *node);
            }
            Change::Unlink { name, node } | Change::MoveOut { name, node, .. } => {
                // The name may stand for something else, if what came between is lost.
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
            Change::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
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
        self.durable = Arc::clone(&self.names);
        self.pending.clear();
    }

    /// Sets a name durably, or takes it away.
    pub(super) fn put(&mut self, name: &str, node: Option<u64>) {
        self.pending.retain(|pending| !pending.change.names().contains(&name));
        for names in [&mut self.names, &mut self.durable] {
            let names = Arc::make_mut(names);
            match node {
                Some(node) => names.insert(name.into(), node),
                None => names.remove(name),
            };
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
        self.names = Arc::clone(&self.durable);
    }
}
