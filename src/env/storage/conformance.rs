//! What the simulated disk answers a real one answers too: the same calls in the same order, drawn at random, and every
//! answer compared. What a power cut leaves cannot be compared here; `tests/promises` and the command-line tool's
//! `demo` pull real processes down instead.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::env::random::Random;
use crate::env::storage::disk::Disk;
use crate::env::storage::region::{PAGE, Region};
use crate::env::storage::sim::SimDisk;
use crate::env::storage::{Access, File, LockError, Storage};

/// Few enough that calls meet: names that are taken, missing, of the other kind.
const PATHS: [&str; 8] = ["a", "b", "a/x", "a/y", "b/x", "b/y", "a/x/z", "c"];
/// Files that are open at once, also such that have no name any more.
const HANDLES: u64 = 3;
const LONGEST: u64 = 3 * PAGE;

#[derive(Clone, Copy, Debug)]
enum Step {
    CreateDir(&'static str),
    /// Into the place of this handle.
    Create(&'static str, usize),
    Open(&'static str, Access, usize),
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    Remove(&'static str),
    RemoveDir(&'static str),
    List(&'static str),
    SyncDir(&'static str),
    Lock,
    Grow(usize, u64),
    Store(usize, u64, u8),
    Release(usize),
    Read(usize),
    Sync(usize),
}

impl Step {
    fn drawn(random: &mut Random) -> Step {
        let path = PATHS[random.below(PATHS.len() as u64) as usize];
        let other = PATHS[random.below(PATHS.len() as u64) as usize];
        let handle = random.below(HANDLES) as usize;
        let access = if random.chance(1, 4) { Access::Read } else { Access::Write };
        let number = random.below(LONGEST);
        match random.below(21) {
            0 | 1 => Step::CreateDir(path),
            2..=4 => Step::Create(path, handle),
            5 | 6 => Step::Open(path, access, handle),
            // A directory that moves into itself is nothing that the log would try.
            7 if !other.starts_with(path) => Step::Rename(path, other),
            8 => Step::Remove(path),
            9 => Step::RemoveDir(path),
            10 => Step::List(if random.chance(1, 2) { "" } else { path }),
            11 => Step::SyncDir(path),
            12 => Step::Lock,
            13 | 14 => Step::Grow(handle, number),
            15 | 16 => Step::Store(handle, number, random.below(255) as u8 + 1),
            17 => Step::Release(handle),
            18 => Step::Sync(handle),
            19 => Step::Link(path, other),
            _ => Step::Read(handle),
        }
    }
}

/// A storage, and the files that are open on it.
struct Place<'a> {
    storage: &'a dyn Storage,
    /// With what each was opened for.
    files: [Option<(Arc<dyn File>, Access)>; HANDLES as usize],
}

impl Place<'_> {
    /// Does it, and says what came of it.
    fn take(&mut self, step: Step) -> String {
        let storage = self.storage;
        match step {
            Step::CreateDir(path) => said(storage.create_dir(Path::new(path))),
            Step::Create(path, handle) => self.keep(handle, Access::Write, storage.create(Path::new(path))),
            Step::Open(path, access, handle) => self.keep(handle, access, storage.open(Path::new(path), access)),
            Step::Rename(from, to) => said(storage.rename(Path::new(from), Path::new(to))),
            Step::Link(path, to) => said(storage.link(Path::new(path), storage, Path::new(to))),
            Step::Remove(path) => said(storage.remove(Path::new(path))),
            Step::RemoveDir(path) => said(storage.remove_dir(Path::new(path))),
            Step::List(path) => said(storage.list(Path::new(path))),
            Step::SyncDir(path) => said(storage.sync_dir(Path::new(path))),
            Step::Lock => self.lock_twice(),
            Step::Grow(handle, to) => self.change(handle, |file| {
                let len = file.len()?;
                file.allocate(len, to)?;
                file.len()
            }),
            Step::Store(handle, at, byte) => self.change(handle, |file| store(file, at, byte)),
            Step::Release(handle) => self.change(handle, |file| {
                let used = read(file)?.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
                file.release(used.next_multiple_of(PAGE))
            }),
            Step::Read(handle) => self.with(handle, read),
            Step::Sync(handle) => self.with(handle, |file| file.sync()),
        }
    }

    fn keep(&mut self, handle: usize, access: Access, opened: io::Result<Arc<dyn File>>) -> String {
        let answer = said(opened.as_ref().map(drop).map_err(|error| io::Error::from(error.kind())));
        if let Ok(file) = opened {
            self.files[handle] = Some((file, access));
        }
        answer
    }

    fn with<T: Debug>(&self, handle: usize, call: impl FnOnce(&dyn File) -> io::Result<T>) -> String {
        self.files[handle].as_ref().map_or_else(String::new, |(file, _)| said(call(&**file)))
    }

    /// To change what was opened for reading is a mistake that nobody has made any promise for.
    fn change<T: Debug>(&self, handle: usize, call: impl FnOnce(&dyn File) -> io::Result<T>) -> String {
        let may_change = matches!(self.files[handle], Some((_, Access::Write)));
        if may_change { self.with(handle, call) } else { String::new() }
    }

    fn lock_twice(&self) -> String {
        let Ok(_held) = self.storage.lock() else { return "no lock".to_owned() };
        match self.storage.lock() {
            Err(LockError::Held(Some(holder))) => format!("held by {}", holder == std::process::id()),
            other => format!("{:?}", other.is_ok()),
        }
    }
}

/// The answer, and of an error its kind.
fn said<T: Debug>(answer: io::Result<T>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn store(file: &dyn File, at: u64, byte: u8) -> io::Result<()> {
    let len = file.len()?;
    if at >= len {
        return Ok(());
    }
    file.reclaim(0..len)?;
    let (_, mut pen) = Region::new(file.map(len)?, len);
    pen.spare(at..(at + 700).min(len)).fill(byte);
    Ok(())
}

/// All bytes; what is none of the file's data must be zero.
fn read(file: &dyn File) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len == 0 {
        return Ok(Vec::new());
    }
    let (_, pen) = Region::new(file.copy(len)?, len);
    let bytes = pen.unread(0..len).to_vec();
    let mut at = 0;
    while let Some(data) = file.data(at)? {
        assert!(bytes[at as usize..data.start as usize].iter().all(|byte| *byte == 0), "data before {data:?} of {len}");
        at = data.end;
    }
    assert!(bytes[at as usize..].iter().all(|byte| *byte == 0), "data behind {at} of {len}");
    Ok(bytes)
}

#[test]
fn a_real_disk_and_the_simulated_one_give_the_same_answers() {
    let seeds = if cfg!(miri) { 0 } else { 60 };
    let (mut answers, mut errors) = (0, 0);
    for seed in 0..seeds {
        let directory = tempfile::tempdir().unwrap();
        let (real, simulated) = (Disk::open(directory.path(), true).unwrap(), SimDisk::new(seed));
        let mut real = Place { storage: &real, files: [const { None }; HANDLES as usize] };
        let mut simulated = Place { storage: &*simulated, files: [const { None }; HANDLES as usize] };
        let mut random = Random::new(seed);
        let mut steps = Vec::new();
        for _ in 0..80 {
            let step = Step::drawn(&mut random);
            steps.push(step);
            let (expected, found) = (real.take(step), simulated.take(step));
            assert_eq!(found, expected, "seed {seed}, the last of {steps:#?}");
            answers += 1;
            errors += u32::from(found.chars().next().is_some_and(char::is_uppercase) && !found.starts_with("Ok"));
        }
    }
    println!("{answers} answers, {errors} of them errors");
    assert!(seeds == 0 || errors > answers / 20, "{errors} errors in {answers} answers: the calls do not meet");
}
