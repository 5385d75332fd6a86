//! Names that stand for something else, and directories that may not be written. On a real disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tidelog::sim::{Failure, Fault, Machine, Operation};
use tidelog::{Durability, Error, EventLog, ProducerRecord};

use crate::processes::{Child, Mount};
use crate::shared::{closed_log, config, name, open, read_around_damage, small};

const SEGMENT: &str = "topics/orders/0/00000000000000000000.log";

fn closed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open_with(directory.path(), config()).unwrap();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    log.producer().send(ProducerRecord::new("orders", b"1")).unwrap().wait().unwrap();
    log.close().unwrap();
    directory
}

/// Everything below a directory, with what it holds.
fn tree(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.push((path.clone(), Vec::new()));
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_link_directory_or_pipe_in_place_of_a_file_is_an_error_that_names_it_and_nothing_goes_through() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    for place in
        [SEGMENT, "catalog/00000000000000000000.log", "LOCK", "topics/orders/0", "topics/orders", "catalog", "topics"]
    {
        for what in ["a link to a file", "a link to a directory", "a link to nothing", "a directory", "a pipe"] {
            let directory = closed();
            let path = directory.path().join(place);
            fs::write(&target, b"untouched").unwrap();
            let was_directory = path.is_dir();
            fs::rename(&path, elsewhere.path().join("moved")).unwrap();
            match what {
                "a link to a file" => symlink(&target, &path).unwrap(),
                // Even if all that is looked for is behind it.
                "a link to a directory" => symlink(elsewhere.path().join("moved"), &path).unwrap(),
                "a link to nothing" => symlink(elsewhere.path().join("nothing"), &path).unwrap(),
                "a pipe" => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
                    0,
                )
                .unwrap(),
                _ if was_directory => fs::write(&path, b"a file where a directory should be").unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let behind = tree(elsewhere.path());

            let opened = EventLog::open_with(directory.path(), config());

            let said = match &opened {
                Err(error) => error.to_string(),
                Ok(log) => panic!("{what} at {place} was taken for ours: {:?}", log.recovery_report()),
            };
            assert!(said.contains(place), "{what} at {place}: {said}");
            assert!(tree(elsewhere.path()) == behind, "{what} at {place}: something went through");
            assert!(!elsewhere.path().join("nothing").exists(), "{what} at {place}: made what a link named");
            remove(&elsewhere.path().join("moved"));
        }
    }
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

#[test]
fn files_are_born_for_the_owner_alone() {
    let directory = closed();
    for (path, _) in tree(directory.path()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[test]
fn a_file_or_directory_without_permission_is_an_error_that_names_it() {
    // Who is root may do everything, so a child does this as nobody.
    for (place, mode) in [(SEGMENT, 0o000), (SEGMENT, 0o400), ("topics/orders", 0o000), ("LOCK", 0o400), ("", 0o500)] {
        let directory = closed();
        let Some(mut child) = Child::as_nobody("open", directory.path()) else { return };
        // Until here the child waits.
        fs::set_permissions(directory.path().join(place), fs::Permissions::from_mode(mode)).unwrap();
        let topics = directory.path().join("topics/orders/0");
        let before = tree(&topics);

        child.tell("go");
        let said = child.hear();

        let named = if place.is_empty() { directory.path().to_str().unwrap() } else { place };
        // A whole log in a directory that may not be written needs no name in it, but for the room that it keeps.
        assert!(said.contains(named) || (place.is_empty() && said == "opened"), "{place} {mode:o}: {said}");
        assert!(tree(&topics) == before || place.is_empty(), "{place} {mode:o}");
    }
}

#[test]
fn a_read_only_file_system_refuses_writing_by_name_and_is_read_without_creating_anything() {
    let Some(mount) = Mount::tmpfs("8m") else { return };
    let root = mount.path().join("log");
    let log = EventLog::open_with(&root, config()).unwrap();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    log.producer().send(ProducerRecord::new("orders", b"1")).unwrap().wait().unwrap();
    log.close().unwrap();
    mount.make_read_only();
    let before = tree(&root);

    let refused = EventLog::open_with(&root, config()).unwrap_err();
    assert!(refused.to_string().contains(root.to_str().unwrap()), "{refused}");

    let log = EventLog::open_read_only(&root).unwrap();
    assert_eq!(read_around_damage(&log, &name("orders", 0)).0.len(), 1);
    assert!(matches!(log.create_topic("more", small(Durability::Sync)), Err(Error::ReadOnly { .. })));
    drop(log);
    assert!(tree(&root) == before, "reading has changed something");
}

#[test]
fn a_file_system_that_turns_read_only_is_an_error_that_names_the_file_and_resets_nothing() {
    let (machine, ledger) = closed_log(1, 6);
    let before: Vec<_> = machine.files().into_iter().map(|path| (machine.read_file(&path), path)).collect();
    for operation in [
        Operation::Lock,
        Operation::CreateDir,
        Operation::Create,
        Operation::Rename,
        Operation::Remove,
        Operation::Allocate,
        Operation::SyncDir,
        Operation::Sync,
    ] {
        let machine = machine.kill();
        machine.fail(Fault::new(operation, 0).failure(Failure::Kind(std::io::ErrorKind::ReadOnlyFilesystem)).forever());
        if let Err(error) = machine.open(config()) {
            let named = error.to_string().contains("/simulated") || matches!(error, Error::SyncFailed { .. });
            assert!(named, "{operation:?}: {error}");
        }
        machine.heal();
        ledger.check_damaged(&machine.kill(), &[], &format!("{operation:?} refused"));
    }
    for (bytes, path) in before {
        assert_eq!(machine.read_file(&path), bytes);
    }
}

#[test]
fn opening_for_reading_asks_the_disk_for_nothing_but_to_read() {
    let (machine, _) = closed_log(2, 6);
    let machine = machine.kill();
    let log = machine.open_read_only().unwrap();
    assert_eq!(read_around_damage(&log, &name("orders", 0)).0.len(), 6);
    drop(log);
    let reads = [Operation::List, Operation::Open, Operation::Map];
    let other: Vec<_> = machine.trace().into_iter().filter(|(operation, _)| !reads.contains(operation)).collect();
    assert!(other.is_empty(), "{other:?}");

    let empty = Machine::new(1);
    assert!(matches!(empty.open_read_only(), Err(Error::NotALog { .. })));
    assert!(empty.files().is_empty());
    let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
    assert!(EventLog::open_read_only(&nowhere).is_err());
    assert!(!nowhere.exists());
    drop(open(&empty));
}
