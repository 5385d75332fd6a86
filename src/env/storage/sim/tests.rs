//! The simulated disk is no kinder than a real one, and no more random than its seed.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::storage::region::{PAGE, Pen, Region};
use crate::env::storage::sim::contents::MAPPED_AT_LEAST;
use crate::env::storage::sim::power_cut::{SECTOR, WORD};
use crate::env::storage::sim::{Failure, Fault, Operation, PowerCut, SimDisk};
use crate::env::storage::{Access, Entry, File, Kind, LockError, Storage};

const LOG: &str = "log";

/// A disk that writes back only what it is asked to.
fn lazy(seed: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    disk.write_back(false);
    disk
}

/// A file of this length whose name is durable.
fn create(disk: &SimDisk, path: &str, len: u64) -> (Arc<dyn File>, Pen) {
    let file = disk.create(Path::new(path)).unwrap();
    file.allocate(0, len).unwrap();
    disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    let (_, pen) = Region::new(file.map(len).unwrap(), len);
    (file, pen)
}

fn kind<T: fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for (seed, how) in (0..50).flat_map(|seed| PowerCut::ALL.map(|how| (seed, how))) {
        let disk = SimDisk::new(seed);
        let (file, mut pen) = create(&disk, LOG, 10_000);
        pen.spare(0..1_001).fill(1);
        file.sync().unwrap();
        pen.spare(1_001..3_000).fill(2);

        let next = disk.power_cut(how);

        let bytes = next.read_file(LOG);
        assert_eq!(bytes.len(), 10_000, "seed {seed}, {how:?}");
        assert!(bytes[..1_001].iter().all(|byte| *byte == 1), "seed {seed}, {how:?}");
        assert!(bytes[3_072..].iter().all(|byte| *byte == 0), "seed {seed}, {how:?}");
        assert_eq!(next.power_cut(PowerCut::Garbled).read_file(LOG), bytes, "seed {seed}, {how:?}");
    }
}

#[test]
fn what_was_not_synced_is_lost_or_kept_as_the_power_cut_says() {
    let disk = lazy(1);
    let (file, mut pen) = create(&disk, LOG, 512);
    file.sync().unwrap();
    pen.spare(0..512).fill(1);
    file.allocate(512, 1024).unwrap();

    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [0; 512]);
    assert_eq!(disk.power_cut(PowerCut::KeepAll).read_file(LOG), [[1; 512], [0; 512]].concat());
    assert_eq!(disk.kill().read_file(LOG), [[1; 512], [0; 512]].concat());
}

/// What the power cuts of many seeds leave of eight sectors of ones over zeros, in all their forms.
fn outcomes(how: PowerCut, synced: u8) -> BTreeSet<Vec<u8>> {
    let outcome = |seed| {
        let disk = lazy(seed);
        let (file, mut pen) = create(&disk, LOG, 2 * PAGE);
        pen.spare(0..2 * PAGE).fill(synced);
        file.sync().unwrap();
        pen.spare(0..2 * PAGE).fill(1);
        disk.power_cut(how).read_file(LOG)
    };
    (0..200).map(outcome).collect()
}

#[test]
fn sectors_are_old_or_new_each_by_itself() {
    let outcomes = outcomes(PowerCut::Sectors, 7);

    assert!(outcomes.len() > 50);
    for bytes in &outcomes {
        assert!(bytes.chunks(SECTOR).all(|sector| sector == [7; SECTOR] || sector == [1; SECTOR]));
    }
    assert!(outcomes.contains(&vec![7; 8192]) && outcomes.contains(&vec![1; 8192]));
}

#[test]
fn pages_are_old_or_new_each_by_itself() {
    let outcomes = outcomes(PowerCut::Pages, 7);

    let page = |byte| vec![byte; PAGE as usize];
    let all = [(7, 7), (7, 1), (1, 7), (1, 1)].map(|(a, b)| [page(a), page(b)].concat());
    assert_eq!(outcomes, BTreeSet::from(all));
}

#[test]
fn torn_sectors_mix_whole_words() {
    let outcomes = outcomes(PowerCut::Torn, 7);

    for bytes in &outcomes {
        assert!(bytes.chunks(WORD).all(|word| word == [7; WORD] || word == [1; WORD]));
    }
    assert!(outcomes.iter().any(|bytes| bytes[..SECTOR] != [7; SECTOR] && bytes[..SECTOR] != [1; SECTOR]));
}

#[test]
fn only_sectors_without_synced_bytes_are_garbled() {
    let beside_synced = outcomes(PowerCut::Garbled, 7);
    let fresh = outcomes(PowerCut::Garbled, 0);

    assert!(beside_synced.iter().flatten().all(|byte| *byte == 7 || *byte == 1));
    assert!(fresh.iter().flatten().any(|byte| *byte > 1));
}

#[test]
fn what_nobody_asked_for_may_be_written_back() {
    let written_back = |seed| {
        let disk = SimDisk::new(seed);
        let (_file, mut pen) = create(&disk, LOG, 4096);
        pen.spare(0..4096).fill(1);
        (0..8).for_each(|_| drop(disk.list(Path::new("")).unwrap()));
        disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG)
    };

    let outcomes: BTreeSet<Vec<u8>> = (0..50).map(written_back).collect();

    assert!(outcomes.contains(&Vec::new()));
    assert!(outcomes.iter().any(|bytes| bytes.contains(&1) && bytes.contains(&0)));
}

#[test]
fn the_same_seed_and_calls_give_the_same_lives() {
    let lives = |seed| {
        let mut disk = SimDisk::new(seed);
        let mut found = Vec::new();
        for n in 0..10u8 {
            let path = format!("{n}");
            let (_file, mut pen) = create(&disk, &path, 5_000);
            pen.spare(0..5_000).fill(n + 1);
            disk = disk.power_cut(PowerCut::Garbled);
            found.push(disk.files().into_iter().map(|path| (disk.read_file(&path), path)).collect::<Vec<_>>());
        }
        found
    };

    assert_eq!(lives(3), lives(3));
    assert_ne!(lives(3), lives(4));
}

#[test]
fn a_name_that_was_not_synced_may_be_lost_with_all_that_lies_below() {
    let disk = lazy(1);
    disk.create_dir(Path::new("a")).unwrap();
    disk.create_dir(Path::new("a/b")).unwrap();
    let (file, _) = create(&disk, "a/b/log", 100);
    file.sync().unwrap();
    disk.sync_dir(Path::new("a/b")).unwrap();
    disk.sync_dir(Path::new("a")).unwrap();

    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).files(), Vec::<PathBuf>::new());
    assert_eq!(disk.power_cut(PowerCut::KeepAll).files(), [Path::new("a/b/log")]);
    disk.sync_dir(Path::new("")).unwrap();
    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file("a/b/log"), [0; 100]);
}

#[test]
fn a_file_that_was_never_synced_has_a_durable_name_and_nothing_else() {
    let left = |seed, how| {
        let disk = lazy(seed);
        let (file, mut pen) = create(&disk, LOG, 1024);
        pen.spare(0..1024).fill(1);
        file.allocate(1024, 2048).unwrap();
        disk.power_cut(how).read_file(LOG)
    };

    assert!(left(1, PowerCut::LoseUnsynced).is_empty());
    let lengths: BTreeSet<usize> = (0..50).map(|seed| left(seed, PowerCut::Sectors).len()).collect();
    assert_eq!(lengths, BTreeSet::from([0, 1024, 2048]));
    assert!((0..50).any(|seed| left(seed, PowerCut::Sectors) == [0; 1024]));
}

#[test]
fn changes_of_names_are_kept_or_lost_each_by_itself() {
    let left = |seed| {
        let disk = lazy(seed);
        create(&disk, "old", 0);
        disk.remove(Path::new("old")).unwrap();
        disk.create(Path::new("new")).unwrap();
        disk.power_cut(PowerCut::Sectors).files()
    };

    let outcomes: BTreeSet<Vec<PathBuf>> = (0..100).map(left).collect();

    let all: [&[&str]; 4] = [&[], &["old"], &["new"], &["new", "old"]];
    assert_eq!(outcomes, all.map(|names| names.iter().map(PathBuf::from).collect()).into());
}

#[test]
fn a_rename_within_a_directory_leaves_the_old_name_or_the_new_one() {
    let left = |seed| {
        let disk = lazy(seed);
        create(&disk, "old", 0);
        disk.rename(Path::new("old"), Path::new("new")).unwrap();
        disk.power_cut(PowerCut::Sectors).files()
    };

    let outcomes: BTreeSet<Vec<PathBuf>> = (0..100).map(left).collect();

    assert_eq!(outcomes, ["old", "new"].map(|name| vec![PathBuf::from(name)]).into());
}

#[test]
fn a_rename_into_another_directory_never_leaves_neither_name() {
    let left = |seed| {
        let disk = lazy(seed);
        disk.create_dir(Path::new("a")).unwrap();
        disk.create_dir(Path::new("b")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        create(&disk, "a/log", 0);
        disk.rename(Path::new("a/log"), Path::new("b/log")).unwrap();
        disk.power_cut(PowerCut::Sectors).files()
    };

    let outcomes: BTreeSet<Vec<PathBuf>> = (0..200).map(left).collect();

    let all: [&[&str]; 3] = [&["a/log"], &["b/log"], &["a/log", "b/log"]];
    assert_eq!(outcomes, all.map(|names| names.iter().map(PathBuf::from).collect()).into());
}

#[test]
fn a_file_with_two_names_is_one_file_whichever_of_them_a_power_cut_takes() {
    let disk = SimDisk::new(1);
    let copy = disk.elsewhere(Path::new("/simulated/copy"), true).unwrap();
    let (file, mut pen) = create(&disk, "log", 4096);
    disk.sync_dir(Path::new("")).unwrap();
    assert!(!file.is_shared().unwrap());

    disk.link(Path::new("log"), &*copy, Path::new("log")).unwrap();

    let (_, other) = Region::new(copy.open(Path::new("log"), Access::Read).unwrap().map(4096).unwrap(), 4096);
    pen.publish(0, 42, 8);
    assert_eq!((other.word(0), file.is_shared().unwrap()), (42, true));
    let again = disk.link(Path::new("log"), &*copy, Path::new("log")).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    file.sync().unwrap();
    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).files(), [Path::new("log")]);
    copy.sync_dir(Path::new("")).unwrap();
    disk.remove(Path::new("log")).unwrap();
    assert!(!copy.open(Path::new("log"), Access::Read).unwrap().is_shared().unwrap());
    disk.sync_dir(Path::new("")).unwrap();
    let next = disk.power_cut(PowerCut::LoseUnsynced);
    assert_eq!(next.files(), [Path::new("copy/log")]);
    assert_eq!(next.read_file("copy/log")[0], 42);
}

#[test]
fn a_removed_file_comes_back_unless_its_directory_is_synced() {
    let disk = lazy(1);
    let (file, mut pen) = create(&disk, LOG, 100);
    pen.spare(0..100).fill(1);
    file.sync().unwrap();
    disk.remove(Path::new(LOG)).unwrap();

    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [1; 100]);
    disk.create(Path::new("other")).unwrap();
    disk.remove(Path::new("other")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    for how in (0..20).flat_map(|_| PowerCut::ALL) {
        assert_eq!(disk.power_cut(how).files(), Vec::<PathBuf>::new(), "{how:?}");
    }
}

#[test]
fn a_dead_life_does_not_disturb_the_next() {
    let disk = lazy(1);
    let (file, mut pen) = create(&disk, LOG, 100);
    let lock = disk.lock().unwrap();
    let next = disk.kill();

    pen.spare(0..100).fill(9);
    file.sync().unwrap();
    disk.remove(Path::new(LOG)).unwrap();

    assert_eq!(next.read_file(LOG), [0; 100]);
    let next_lock = next.lock().unwrap();
    drop(lock);
    assert!(matches!(next.lock().unwrap_err(), LockError::Held(_)));
    drop(next_lock);
}

#[test]
fn the_lock_is_held_once_in_a_life_and_free_in_the_next() {
    let disk = SimDisk::new(1);

    let lock = disk.lock().unwrap();

    assert!(matches!(disk.lock().unwrap_err(), LockError::Held(Some(_))));
    disk.kill().lock().unwrap();
    disk.power_cut(PowerCut::LoseUnsynced).lock().unwrap();
    drop(lock);
    disk.lock().unwrap();
    assert_eq!(disk.files(), [Path::new("LOCK")]);
}

#[test]
fn a_crash_freezes_the_moment_at_which_it_happened() {
    let disk = lazy(1);
    let (file, mut pen) = create(&disk, LOG, 100);
    file.sync().unwrap();
    pen.spare(0..50).fill(1);
    disk.crash_at(disk.operations() + 1);
    disk.list(Path::new("")).unwrap();
    assert!(!disk.has_crashed());

    assert_eq!(kind(file.sync()), io::ErrorKind::Other);
    pen.spare(50..100).fill(2);
    assert_eq!(kind(disk.remove(Path::new(LOG))), io::ErrorKind::Other);
    assert_eq!(kind(file.len()), io::ErrorKind::Other);
    assert!(disk.has_crashed());

    assert_eq!(disk.kill().read_file(LOG), [[1; 50], [0; 50]].concat());
    assert_eq!(disk.power_cut(PowerCut::KeepAll).read_file(LOG), [[1; 50], [0; 50]].concat());
    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [0; 100]);
    assert_eq!(disk.kill().operations(), 0);
}

#[test]
fn the_chosen_call_fails_and_changes_nothing() {
    let disk = lazy(1);
    disk.fail(Fault::new(Operation::Create, 1).failure(Failure::Kind(io::ErrorKind::StorageFull)));
    disk.fail(Fault::new(Operation::SyncDir, 1).forever());

    disk.create(Path::new("a")).unwrap();
    assert_eq!(kind(disk.create(Path::new("b"))), io::ErrorKind::StorageFull);
    disk.create(Path::new("c")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.create(Path::new("d")).unwrap();
    for _ in 0..3 {
        let error = disk.sync_dir(Path::new("")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    }

    assert_eq!(disk.files(), ["a", "c", "d"].map(PathBuf::from));
    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).files(), ["a", "c"].map(PathBuf::from));
    disk.heal();
    disk.sync_dir(Path::new("")).unwrap();
    disk.fail(Fault::new(None, 2));
    assert!(disk.list(Path::new("")).is_ok() && disk.open(Path::new("a"), Access::Read).is_ok());
    assert!(disk.lock().is_err());
    assert_eq!(disk.trace().last(), Some(&(Operation::Lock, PathBuf::from("LOCK"))));
}

#[test]
fn a_sync_that_fails_and_keeps_its_pages_can_be_repeated() {
    let disk = lazy(1);
    let (file, mut pen) = create(&disk, LOG, 100);
    file.sync().unwrap();
    pen.spare(0..100).fill(1);
    disk.fail(Fault::new(Operation::Sync, 0));

    file.sync().unwrap_err();
    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [0; 100]);
    file.sync().unwrap();

    assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [1; 100]);
}

/// A file of a page whose first hundred bytes were lost by a failed sync.
fn lost_page(seed: u64) -> (Arc<SimDisk>, Arc<dyn File>, Pen) {
    let disk = lazy(seed);
    let (file, mut pen) = create(&disk, LOG, PAGE);
    file.sync().unwrap();
    pen.spare(0..100).fill(1);
    disk.fail(Fault::new(Operation::Sync, 0).losing_pages());
    file.sync().unwrap_err();
    (disk, file, pen)
}

#[test]
fn a_lost_page_reads_well_and_is_never_stored_however_often_it_is_synced() {
    let (disk, file, pen) = lost_page(1);

    file.sync().unwrap();
    file.sync().unwrap();

    assert_eq!(pen.unread(0..100), [1; 100]);
    assert_eq!(disk.kill().read_file(LOG)[..100], [1; 100]);
    for how in PowerCut::ALL {
        assert_eq!(disk.power_cut(how).read_file(LOG), vec![0; PAGE as usize], "{how:?}");
    }
    let next = disk.kill();
    next.open(Path::new(LOG), Access::Write).unwrap().sync().unwrap();
    assert_eq!(next.power_cut(PowerCut::KeepAll).read_file(LOG), vec![0; PAGE as usize]);
}

#[test]
fn a_lost_page_is_stored_once_it_was_made_dirty_again() {
    let (disk, _, pen) = lost_page(1);
    drop(pen);
    let next = disk.kill();
    let file = next.open(Path::new(LOG), Access::Write).unwrap();
    let (_, mut pen) = Region::new(file.map(PAGE).unwrap(), PAGE);

    pen.redirty(0..100);
    file.sync().unwrap();

    assert_eq!(next.power_cut(PowerCut::LoseUnsynced).read_file(LOG)[..101], [&[1; 100][..], &[0]].concat());
}

#[test]
fn a_lost_page_is_stored_once_other_bytes_of_it_were_stored_to() {
    let (disk, file, mut pen) = lost_page(1);

    pen.publish(2048, 5, 2056);
    file.sync().unwrap();

    let bytes = disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG);
    assert_eq!((bytes[0], bytes[2048]), (1, 5));
}

#[test]
fn a_sync_that_loses_pages_may_store_others() {
    let left = |seed| {
        let disk = lazy(seed);
        let (file, mut pen) = create(&disk, LOG, 4 * PAGE);
        file.sync().unwrap();
        pen.spare(0..4 * PAGE).fill(1);
        disk.fail(Fault::new(Operation::Sync, 0).losing_pages());
        file.sync().unwrap_err();
        file.sync().unwrap();
        disk.power_cut(PowerCut::KeepAll).read_file(LOG)
    };

    let outcomes: BTreeSet<Vec<u8>> = (0..50).map(left).collect();

    assert!(outcomes.len() > 5);
    assert!(outcomes.iter().all(|bytes| bytes.contains(&0)));
}

#[test]
fn a_full_disk_refuses_to_grow_a_file_until_there_is_room() {
    let disk = lazy(1);
    disk.capacity(Some(1000));
    let (a, pen) = create(&disk, "a", 600);
    let b = disk.create(Path::new("b")).unwrap();

    assert_eq!(kind(b.allocate(0, 401)), io::ErrorKind::StorageFull);
    assert_eq!(b.len().unwrap(), 0);
    b.allocate(0, 400).unwrap();
    disk.remove(Path::new("a")).unwrap();
    assert_eq!(kind(b.allocate(400, 401)), io::ErrorKind::StorageFull);
    drop((a, pen));

    b.allocate(400, 1000).unwrap();
    disk.capacity(None);
    b.allocate(1000, 2000).unwrap();
}

#[test]
fn errors_are_those_of_a_real_disk() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("dir")).unwrap();
    create(&disk, "dir/file", 10);

    assert_eq!(kind(disk.create(Path::new("dir/file"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir(Path::new("dir"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create(Path::new("no/file"))), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open(Path::new("no"), Access::Read)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open(Path::new("dir"), Access::Read)), io::ErrorKind::InvalidInput);
    assert_eq!(kind(disk.open(Path::new("dir"), Access::Write)), io::ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open(Path::new("../x"), Access::Read)), io::ErrorKind::InvalidInput);
    assert_eq!(kind(disk.list(Path::new("dir/file"))), io::ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove_dir(Path::new("dir"))), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(disk.remove(Path::new("dir"))), io::ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename(Path::new("dir/file"), Path::new("dir"))), io::ErrorKind::AlreadyExists);
    let file = disk.open(Path::new("dir/file"), Access::Read).unwrap();
    assert_eq!(file.allocate(10, 20).unwrap_err().raw_os_error(), Some(rustix::io::Errno::BADF.raw_os_error()));
    let file = disk.open(Path::new("dir/file"), Access::Write).unwrap();
    assert_eq!(kind(file.allocate(5, 20)), io::ErrorKind::InvalidInput);
    let entries = disk.list(Path::new("")).unwrap();
    assert_eq!(entries, [Entry { name: "dir".to_owned(), kind: Kind::Directory }]);
}

#[test]
fn a_file_is_mapped_for_more_than_it_is_long_and_by_several_at_once() {
    let disk = SimDisk::new(1);
    let (file, mut pen) = create(&disk, LOG, 100);
    let reader = disk.open(Path::new(LOG), Access::Read).unwrap();
    let (following, _) = Region::new(reader.map(1000).unwrap(), 100);
    let (_, read_only) = Region::new(reader.map(100).unwrap(), 100);

    pen.publish(0, 3, 8);

    assert_eq!(read_only.word(0), 3);
    assert_eq!(following.capacity(), 1000);
    assert_eq!(kind(file.map(MAPPED_AT_LEAST + 1)), io::ErrorKind::Unsupported);
    drop((pen, following, read_only));
    assert_eq!(file.map(MAPPED_AT_LEAST + 1).unwrap().capacity(), MAPPED_AT_LEAST + 1);
    assert_eq!(disk.read_file(LOG)[0], 3);
}

#[test]
fn tests_change_what_lies_on_the_disk_for_good() {
    let disk = lazy(1);
    disk.write_file("a/b", &[1, 2, 3]);
    disk.write_file("a/c", &[4]);

    disk.flip_bit("a/b", 9);
    disk.remove_file("a/c");
    disk.write_file("d", &[]);

    for disk in [disk.power_cut(PowerCut::LoseUnsynced), disk] {
        assert_eq!(disk.files(), ["a/b", "d"].map(PathBuf::from));
        assert_eq!(disk.read_file("a/b"), [1, 0, 3]);
    }
}

#[test]
#[should_panic(expected = "a log is open on this disk")]
fn a_disk_in_use_is_not_tampered_with() {
    let disk = SimDisk::new(1);
    let _lock = disk.lock().unwrap();

    disk.write_file("a", &[]);
}

#[test]
fn a_sync_beside_an_append_stores_what_was_published() {
    let disk = SimDisk::new(1);
    let batches = if cfg!(miri) { 20 } else { 2_000 };
    let (file, mut pen) = create(&disk, LOG, batches * 16);
    let region = Arc::clone(pen.region());

    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..batches {
                pen.spare(n * 16 + 8..n * 16 + 16).fill(n as u8);
                pen.publish(n * 16, 16, n * 16 + 16);
            }
        });
        let mut seen = 0;
        while seen < batches * 16 {
            seen = region.written();
            file.sync().unwrap();
            let left = disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG);
            assert_eq!(left[..seen as usize], region.bytes()[..seen as usize]);
        }
    });
}
