//! Does the fuzzer find anything? Mistakes, planted into a copy of the library, and the committed inputs that find them.
//!
//! Each is an edit of the real source: what is replaced, and by what. The library itself has no switch for them, neither in
//! a build of its own nor in one of its users; an edit that no longer fits fails the test. They are all planted into one
//! copy, each behind a question that an environment variable answers, so that it is built once.
//!
//! `cargo test --all-features --test planted -- --ignored --nocapture` builds it, a minute, and prints the table.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

struct Mistake {
    name: &'static str,
    /// The target that finds it.
    target: &'static str,
    file: &'static str,
    /// What stands there once, and what is planted instead; `PLANTED` stands for "this mistake is made".
    from: &'static str,
    to: &'static str,
}

const fn mistake(
    name: &'static str,
    target: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mistake {
    Mistake { name, target, file, from, to }
}

const BATCH: &str = "src/format/batch.rs";
const CATALOG: &str = "src/catalog.rs";
const RECOVERY: &str = "src/partition/recovery.rs";
const SEGMENT: &str = "src/partition/segment.rs";

const MISTAKES: &[Mistake] = &[
    mistake(
        "checksum-skipped",
        "differential",
        BATCH,
        "        if stored != computed {",
        "        if stored != computed && !PLANTED {",
    ),
    mistake("length-believed", "decode", BATCH, "|| length > bytes.len() {", "|| (length > bytes.len() && !PLANTED) {"),
    mistake(
        "trailing-bytes-ignored",
        "forged",
        BATCH,
        "if too_long || padding",
        "if !PLANTED && too_long || !PLANTED && padding",
    ),
    mistake(
        "unknown-attributes-read",
        "forged",
        BATCH,
        "if attributes & !KNOWN != 0 ||",
        "if !PLANTED && attributes & !KNOWN != 0 ||",
    ),
    mistake(
        "offset-deltas-unchecked",
        "forged",
        BATCH,
        "if record.offset < due ||",
        "if !PLANTED && record.offset < due ||",
    ),
    mistake(
        "older-epoch-accepted",
        "differential",
        BATCH,
        "        if batch.epoch() < self.epoch {",
        "        if batch.epoch() < self.epoch && !PLANTED {",
    ),
    mistake(
        "reach-into-the-successor",
        "sealed_segment",
        BATCH,
        "        if batch.next() > self.until {",
        "        if batch.next() > self.until && !PLANTED {",
    ),
    mistake(
        "witness-ignored",
        "active_segment",
        BATCH,
        "            u32::MAX => Offset::ZERO,",
        "            _ if PLANTED => Offset::ZERO,\n            u32::MAX => Offset::ZERO,",
    ),
    mistake(
        "empty-headers-counted",
        "forged",
        BATCH,
        "if count == 0 || !fields.rest().is_empty() {",
        "if !PLANTED && (count == 0 || !fields.rest().is_empty()) {",
    ),
    mistake(
        "zeros-are-the-end",
        "differential",
        SEGMENT,
        "Ok(None) if is_zero(walk.position) =>",
        "Ok(None) if PLANTED || is_zero(walk.position) =>",
    ),
    mistake(
        "nobody-looks-on",
        "active_segment",
        SEGMENT,
        "if holes_before < MAX_HOLES {",
        "if holes_before < MAX_HOLES && !PLANTED {",
    ),
    mistake(
        "index-off-by-one",
        "sealed_segment",
        "src/partition/index.rs",
        "self.entry(at) >> 32 <= ahead;",
        "self.entry(at) >> 32 <= ahead + u64::from(PLANTED);",
    ),
    mistake(
        "no-zeros-behind-a-torn-tail",
        "active_segment",
        RECOVERY,
        "walk.position + torn as u64).fill(0);",
        "walk.position + if PLANTED { 0 } else { torn as u64 }).fill(0);",
    ),
    mistake(
        "foreign-file-accepted",
        "directory",
        RECOVERY,
        "if ours { Ok(header) } else",
        "if ours || PLANTED { Ok(header) } else",
    ),
    mistake(
        "torn-tail-kept",
        "active_segment",
        RECOVERY,
        "if short || (tail.is_some() && next.is_none()) {",
        "if !PLANTED && (short || (tail.is_some() && next.is_none())) {",
    ),
    mistake(
        "header-checksum-skipped",
        "differential",
        "src/format/segment.rs",
        "        if stored != computed {",
        "        if stored != computed && !PLANTED {",
    ),
    mistake(
        "commit-that-goes-on-understood",
        "group",
        "src/format/committed.rs",
        "if !fields.rest().is_empty() {",
        "if !PLANTED && !fields.rest().is_empty() {",
    ),
    mistake(
        "nobody-is-pulled-back",
        "group",
        "src/group/offsets.rs",
        "partition.topic_id() == entry.topic_id && from > to",
        "partition.topic_id() == entry.topic_id && from > to && !PLANTED",
    ),
    mistake(
        "any-number-of-partitions-believed",
        "inspect",
        CATALOG,
        "Fact::Topic(_, topic) if !(1..=MAX_PARTITIONS)",
        "Fact::Topic(_, topic) if !PLANTED && !(1..=MAX_PARTITIONS)",
    ),
    mistake(
        "limit-of-bincode-lifted",
        "codecs",
        "src/codec.rs",
        "bincode::config::standard().with_limit::<LIMIT>();\n        let (value, used) = bincode::serde::decode_from_slice(bytes, config)?;",
        "bincode::config::standard();\n        let (value, used) = if PLANTED { bincode::serde::decode_from_slice(bytes, config)? } else { bincode::serde::decode_from_slice(bytes, config.with_limit::<LIMIT>())? };",
    ),
    mistake(
        "segment-that-does-not-count-followed",
        "directory",
        "src/partition/following.rs",
        "            if !self.follow_roll(&mut writer)? {",
        "            if !self.follow_roll(&mut writer)? && !PLANTED {",
    ),
    mistake(
        "deleted-records-offered",
        "directory",
        RECOVERY,
        "        let start = self.known.start.unwrap_or(first);",
        "        let start = if PLANTED { first } else { self.known.start.unwrap_or(first) };",
    ),
    mistake(
        "pages-not-made-dirty-again",
        "operations",
        RECOVERY,
        "        if unproven {\n            let from = active.segment",
        "        if unproven && !PLANTED {\n            let from = active.segment",
    ),
    mistake(
        "stale-generation-commits",
        "consumer",
        "src/group/coordinator.rs",
        "        let Some((id, instance_id)) = by else {\n            return if self.members.is_empty()",
        "        if PLANTED {\n            return Verdict::Counts;\n        }\n        let Some((id, instance_id)) = by else {\n            return if self.members.is_empty()",
    ),
    mistake(
        "sync-of-a-commit-not-waited-for",
        "consumer",
        "src/group/mod.rs",
        "        self.offsets.deliver(end)",
        "        if PLANTED { Ok(()) } else { self.offsets.deliver(end) }",
    ),
    mistake(
        "two-topics-of-one-id",
        "directory",
        CATALOG,
        "!self.has(*id) && check_name",
        "(PLANTED || !self.has(*id)) && check_name",
    ),
    mistake(
        "cut-ignored-on-opening",
        "directory",
        CATALOG,
        "        if let Some(Fact::Cut(_, _, cut)) = cut { Some(cut) } else { None }",
        "        if let (Some(Fact::Cut(_, _, cut)), false) = (cut, PLANTED) { Some(cut) } else { None }",
    ),
    mistake(
        "leftover-of-a-compaction-read",
        "directory",
        RECOVERY,
        "other.base < compacted.end && replaced",
        "other.base < compacted.end && replaced && !PLANTED",
    ),
    mistake(
        "compacted-end-trusted-beyond-a-cut",
        "directory",
        RECOVERY,
        "        begins.into_iter().chain(self.cut_end(head)).min()",
        "        let cut = self.cut_end(head).filter(|_| !PLANTED || head.compacted().is_none());\n        begins.into_iter().chain(cut).min()",
    ),
    mistake(
        "reader-looks-for-ever",
        "directory",
        "src/partition/following.rs",
        "        if first.is_none() {\n            now.retain",
        "        if first.is_none() && !PLANTED {\n            now.retain",
    ),
    mistake(
        "cut-not-recorded",
        "operations",
        CATALOG,
        "|cut| self.record(&[Fact::Cut(id, number, cut), Fact::End(id, number, end)])",
        "|cut| if PLANTED { Ok(()) } else { self.record(&[Fact::Cut(id, number, cut), Fact::End(id, number, end)]) }",
    ),
    mistake(
        "last-record-of-a-key-compacted",
        "operations",
        "src/partition/compaction.rs",
        "if latest.is_some_and(|latest| latest > record.offset) {",
        "if latest.is_some_and(|latest| latest > record.offset || PLANTED) {",
    ),
];

/// What answers whether a mistake is made.
const SWITCH: &str = r#"
#[doc(hidden)]
pub(crate) fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("TIDELOG_PLANTED").ok()).as_deref() == Some(name)
}
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// A copy of the library with all mistakes in it, and the test that runs the committed inputs.
fn plant() -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    if copy.join("src").exists() {
        for old in ["src", "fuzz", "tests"] {
            fs::remove_dir_all(copy.join(old)).unwrap();
        }
    }
    for folder in ["src", "fuzz/src", "fuzz/seeds", "fuzz/regressions"] {
        copy_dir(&root().join(folder), &copy.join(folder));
    }
    // The tool is no part of it.
    fs::remove_dir_all(copy.join("src/bin")).unwrap();
    fs::create_dir_all(copy.join("tests")).unwrap();
    for file in ["tests/fuzz.rs", "Cargo.lock"] {
        fs::copy(root().join(file), copy.join(file)).unwrap();
    }
    // Only what the one test needs.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (head, _) = manifest.split_once("[dev-dependencies]").unwrap();
    let tail = "[dev-dependencies]\nserde = { version = \"1\", features = [\"derive\"] }\n\n[workspace]\n";
    fs::write(copy.join("Cargo.toml"), format!("{head}{tail}")).unwrap();

    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    for Mistake { name, file, from, to, .. } in MISTAKES {
        let source = sources.entry(file).or_insert_with(|| fs::read_to_string(copy.join(file)).unwrap());
        assert_eq!(source.matches(from).count(), 1, "{name}: {from:?} stands once in {file}");
        *source = source.replace(from, &to.replace("PLANTED", &format!("crate::planted({name:?})")));
    }
    for (file, source) in sources {
        fs::write(copy.join(file), source).unwrap();
    }
    let roof = copy.join("src/lib.rs");
    fs::write(&roof, fs::read_to_string(&roof).unwrap() + SWITCH).unwrap();
    copy
}

/// Builds it; returns the test.
fn build(copy: &Path) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(copy).args(["test", "--offline", "--features", "arbitrary,bincode,json,sim", "--test", "fuzz"]);
    cargo.arg("--no-run").env("CARGO_TARGET_DIR", copy.join("target")).env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    let output = cargo.env_remove("RUSTFLAGS").env("CARGO_INCREMENTAL", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let (_, behind) = said.split_once("Executable tests/fuzz.rs (").expect("cargo says what it has built");
    copy.join(behind.split_once(')').unwrap().0)
}

/// How long the committed inputs may take, of one target or all, which is a second: a mistake may also make the library run
/// in circles. With it all of this ends within ten minutes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the committed inputs of a target, or of all, with a mistake or none. `None`: it did not come to an end.
fn run(test: &Path, target: Option<&str>, mistake: Option<&str>) -> Option<(bool, String)> {
    let mut command = Command::new(test);
    command.args(["--nocapture", "--exact", "no_committed_input_finds_anything"]).env("RUST_BACKTRACE", "0");
    for (variable, value) in [("TIDELOG_TARGET", target), ("TIDELOG_PLANTED", mistake)] {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut printed = child.stdout.take().unwrap();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        printed.read_to_string(&mut text).unwrap();
        // Nobody listens any more if it took too long.
        drop(done.send(text));
    });
    let text = is_done.recv_timeout(PATIENCE).ok();
    if text.is_none() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    text.map(|text| (status.success(), text))
}

/// How many inputs of the target ran until one of them found something; `None`: the process did not outlive it.
fn inputs_until_found(target: &str, printed: &str) -> Option<usize> {
    let names = |folder: &str| {
        // These two share their seeds.
        let owner = if (folder, target) == ("seeds", "inspect") { "directory" } else { target };
        let entries = fs::read_dir(root().join("fuzz").join(folder).join(owner));
        let mut names: Vec<_> = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(move |name| format!("{folder}/{target}/{}", name.to_str().unwrap())).collect::<Vec<_>>()
    };
    let all = [names("seeds"), names("regressions")].concat();
    let first = printed.lines().find_map(|line| line.split_once(" finds something").map(|(before, _)| before))?;
    all.iter().position(|name| first.ends_with(name.as_str())).map(|at| at + 1)
}

#[test]
#[ignore = "builds the library anew, which takes a minute"]
fn every_planted_mistake_is_found_by_the_committed_inputs_of_its_target() {
    let test = build(&plant());
    let (held, printed) = run(&test, None, None).expect("it ends");
    assert!(held, "without a mistake:\n{printed}");

    let mut missed = Vec::new();
    for Mistake { name, target, .. } in MISTAKES {
        let how = match run(&test, Some(target), Some(name)) {
            None => "it does not end".to_owned(),
            Some((true, _)) => {
                missed.push(name);
                continue;
            }
            Some((false, printed)) => match inputs_until_found(target, &printed) {
                Some(inputs) => format!("{inputs} inputs"),
                None => "it is killed".to_owned(),
            },
        };
        println!("| {name} | {target} | {how} |");
    }
    assert!(missed.is_empty(), "nobody finds {missed:?}");
}
