//! The bodies of the fuzz targets, on stable Rust: over all committed seeds, all past regressions, and generated inputs.
//!
//! `TIDELOG_FUZZ=100000` says how many inputs are generated for each target, `TIDELOG_SEED` from which seed;
//! `TIDELOG_TARGET=decode` runs that target alone.
//! `TIDELOG_SEEDS=write` writes the seeds that are made by a program anew. How to run a campaign: `fuzz/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bodies::TARGETS;
use bodies::memory::{self, Counting};
use bodies::seeds::{self, Chance};

#[allow(unreachable_pub, reason = "for the fuzz targets it is a crate of its own")]
#[path = "../fuzz/src/lib.rs"]
mod bodies;

#[global_allocator]
static COUNTING: Counting = Counting;

/// How many inputs are generated for a target that needs no disk, and for one that does.
const GENERATED: [u64; 2] = [1000, 40];

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The committed inputs of a target in this folder, by their names there.
fn committed(folder: &str, target: &str) -> BTreeMap<String, Vec<u8>> {
    let owner = if folder == "seeds" { seeds::owner(target) } else { target };
    let Ok(entries) = fs::read_dir(fuzz_dir().join(folder).join(owner)) else { return BTreeMap::new() };
    let input = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
    entries.map(|entry| input(entry.unwrap().path())).collect()
}

/// Runs the body; whether it found nothing. If not, the input is kept, and the message says where.
fn holds(target: &str, name: &str, input: &[u8]) -> bool {
    let held = catch_unwind(AssertUnwindSafe(|| bodies::run(target, input))).is_ok();
    if !held {
        let kept = std::env::temp_dir().join(format!("tidelog-fuzz-{target}"));
        fs::write(&kept, input).unwrap();
        println!("{target}: {name} finds something; the input is in {}", kept.display());
    }
    held
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// All of them, or the one that was asked for.
fn targets() -> impl Iterator<Item = &'static str> {
    let asked = std::env::var("TIDELOG_TARGET").ok();
    TARGETS
        .into_iter()
        .map(|(target, _)| target)
        .filter(move |target| asked.as_deref().is_none_or(|asked| asked == *target))
}

/// The targets that have seeds of their own.
fn owners() -> impl Iterator<Item = &'static str> {
    TARGETS.into_iter().map(|(target, _)| target).filter(|target| seeds::owner(target) == *target)
}

fn needs_a_disk(target: &str) -> bool {
    let with =
        ["active_segment", "sealed_segment", "group", "catalog", "directory", "inspect", "operations", "consumer"];
    with.contains(&target)
}

#[test]
fn no_committed_input_finds_anything() {
    let mut found = Vec::new();
    for target in targets() {
        for folder in ["seeds", "regressions"] {
            let inputs = committed(folder, target);
            assert!(folder != "seeds" || !inputs.is_empty(), "{target} has no seeds");
            let names = inputs.iter().map(|(name, input)| (format!("{folder}/{target}/{name}"), input));
            found.extend(names.filter(|(name, input)| !holds(target, name, input)).map(|(name, _)| name));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_generated_input_finds_anything() {
    let seed = number_from("TIDELOG_SEED").unwrap_or(1);
    for target in targets() {
        let seeds: Vec<_> = committed("seeds", target).into_values().collect();
        let inputs = number_from("TIDELOG_FUZZ").unwrap_or(GENERATED[usize::from(needs_a_disk(target))]);
        let mut chance = Chance(seed);
        for number in 0..inputs {
            let input = match chance.below(8) {
                0 => {
                    let length = chance.below(400);
                    chance.bytes(length)
                }
                _ => {
                    let at = chance.below(seeds.len());
                    chance.mutated(&seeds[at])
                }
            };
            assert!(holds(target, &format!("TIDELOG_SEED={seed}, number {number}"), &input), "{target}");
        }
    }
}

/// Seeds that a campaign has found have hashes for names; the others are made by `fuzz/src/seeds.rs`.
#[test]
fn the_seeds_are_those_that_the_program_makes() {
    let made = seeds::made();
    if std::env::var("TIDELOG_SEEDS").is_ok_and(|what| what == "write") {
        for target in owners() {
            let dir = fuzz_dir().join("seeds").join(target);
            fs::create_dir_all(&dir).unwrap();
            for (name, _) in committed("seeds", target).iter().filter(|(name, _)| !is_hash(name)) {
                fs::remove_file(dir.join(name)).unwrap();
            }
        }
        for ((target, name), bytes) in &made {
            fs::write(fuzz_dir().join("seeds").join(target).join(name), bytes).unwrap();
        }
    }
    let mut found = seeds::Seeds::new();
    for target in owners() {
        let inputs = committed("seeds", target).into_iter().filter(|(name, _)| !is_hash(name));
        found.extend(inputs.map(|(name, bytes)| ((target, name), bytes)));
    }
    let names = |seeds: &seeds::Seeds| seeds.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&made));
    made.iter().for_each(|(name, bytes)| assert!(found[name] == *bytes, "{name:?} is not what the program makes"));
}

fn is_hash(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn the_allocator_counts() {
    let (kept, peak) = memory::peak_of(|| drop(vec![7u8; 100_000]));
    assert_eq!((kept, peak / 1000), ((), 100));
    let ((), peak) = memory::peak_of(|| {});
    assert_eq!(peak, 0);
}
