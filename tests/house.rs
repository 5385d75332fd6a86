//! The walls of the house, held by reading the sources: a plan that no test reads is a wish.
//!
//! | rule                                                             | where it is held              |
//! |------------------------------------------------------------------|-------------------------------|
//! | imports go down, or to a sibling, and never through `lib.rs`     | `src`, without `src/bin`      |
//! | `unsafe` only in `region.rs`                                     | `src`, `tests`, `examples`    |
//! | files only in `disk.rs`, and saved failures of simulations       | `src`, without `src/bin`      |
//! | the time only from `clock.rs` and `scheduling.rs`                | `src`, without `src/bin`      |
//! | nobody sleeps                                                    | `src`, `tests`                |
//! | nothing is left for later                                        | everywhere                    |
//! | every promise has its tests                                      | `src/promises.rs`             |
//!
//! The command-line tool in `src/bin` is a user of the library: it reads files and clocks as it likes. `mod tests` at
//! the end of a file may import from any floor. Moving a wall means moving it here too, in the same commit.

use std::fmt;
use std::fs;
use std::path::Path;

/// The floors from the ground up: files and folders of `src`.
const FLOORS: &[&str] = &[
    "types",
    "error",
    "record",
    "env",
    "partitioner",
    "assignor",
    "codec",
    "config",
    "format",
    "partition",
    "topic",
    "table",
    "upkeep",
    "catalog",
    "group",
    "retainer",
    "compactor",
    "inspect",
    "producer",
    "consumer",
    "table_view",
    "offset_tracker",
    "dead_letters",
    "administration",
    "space",
    "copies",
    "event_log",
    "sim",
    "fuzz",
    "promises",
    "lib",
];

/// The one file with `unsafe` in it.
const UNSAFE: &[&str] = &["src/env/storage/region.rs"];

/// The files that touch files: the disk, and where a simulation keeps the failures that it has found.
const FILES: &[&str] = &["src/env/storage/disk.rs", "src/sim/saved.rs"];

/// The files that ask the system for the time: one to tell it, one to wait.
const TIME: &[&str] = &["src/env/clock.rs", "src/env/scheduling.rs"];

#[test]
fn the_house_stands_as_it_was_planned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut violations = Vec::new();
    let mut files = 0;
    for folder in ["src", "tests", "examples", "benches", "fuzz"] {
        for path in rust_files(&root.join(folder)) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            violations.extend(violations_in(&name, &fs::read_to_string(&path).unwrap()));
            files += 1;
        }
    }
    assert!(files > 1, "there is nothing to read in {}", root.display());
    let list: String = violations.iter().map(|violation| format!("\n{violation}")).collect();
    assert!(violations.is_empty(), "{} walls are broken:{list}", violations.len());
}

/// The table of promises names its tests, `FILE::TEST` of `tests/promises` or beside it: each must be there, and each that is
/// in that folder must be of some promise.
#[test]
fn every_promise_names_its_tests_and_they_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("src/promises.rs")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("//! | ") && line.as_bytes()[6].is_ascii_digit()).count();
    assert_eq!(rows, 30, "the table has a row for each fault");
    let named: Vec<&str> = table.split('`').skip(1).step_by(2).filter(|code| is_test_path(code)).collect();
    let tests_of = |path: std::path::PathBuf| {
        let room = path.file_stem().unwrap().to_str().unwrap();
        let source = fs::read_to_string(&path).unwrap();
        let tests = source.split("#[test]\nfn ").skip(1).filter_map(|test| test.split_once('(').map(|(name, _)| name));
        tests.map(|test| format!("{room}::{test}")).collect::<Vec<_>>()
    };
    let there: Vec<String> = rust_files(&root.join("tests/promises")).into_iter().flat_map(tests_of).collect();
    let beside = ["truncation", "compaction", "golden"].map(|room| root.join(format!("tests/{room}.rs")));
    let all: Vec<String> = beside.into_iter().flat_map(tests_of).chain(there.iter().cloned()).collect();
    let missing: Vec<_> = named.iter().filter(|test| !all.iter().any(|other| other == *test)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
    let helper = "processes::a_child_plays_its_part";
    let idle: Vec<_> = there.iter().filter(|test| *test != helper && !named.contains(&test.as_str())).collect();
    assert!(idle.is_empty(), "no promise names them: {idle:#?}");
    for row in 1..=30 {
        assert!(table.contains(&format!("//! {row}. `")), "row {row} has no test");
    }
}

fn is_test_path(code: &str) -> bool {
    let letters =
        |part: &str| part.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit());
    code.split_once("::").is_some_and(|(room, test)| letters(room) && letters(test))
}

/// All Rust files below `folder`, which need not exist, but for what was built there.
fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let below = |path: std::path::PathBuf| {
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path)
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            vec![path]
        } else {
            Vec::new()
        }
    };
    paths.into_iter().flat_map(below).collect()
}

/// A place where a wall is broken.
#[derive(Debug, PartialEq)]
struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// What is wrong with `source`, which is the text of `file`, a path from the root of the repository.
fn violations_in(file: &str, source: &str) -> Vec<Violation> {
    let code = without_comments_and_texts(source);
    let tokens = tokens(&code);
    let paths = paths(&tokens);

    let in_library = file.starts_with("src/") && !file.starts_with("src/bin/");
    let in_tool = file.starts_with("src/bin/");
    let in_tests = file.starts_with("tests/");
    let in_examples = file.starts_with("examples/");

    let mut found = left_for_later(source);
    if in_library {
        found.extend(imports(file, &tokens));
    }
    if (in_library || in_tool || in_tests || in_examples) && !UNSAFE.contains(&file) {
        let words = tokens.iter().filter(|token| token.text == "unsafe");
        found.extend(words.map(|token| (token.line, format!("`unsafe` belongs into {}", UNSAFE.join(", ")))));
    }
    for path in &paths {
        let mut hold = |broken: bool, rule: &str| {
            if broken {
                found.push((path.line, format!("`{path}`: {rule}")));
            }
        };
        hold(in_library && !FILES.contains(&file) && path.is_of_files(), "files are touched in disk.rs only");
        hold(in_library && !TIME.contains(&file) && path.asks_the_time(), "the time comes from the clock of `Env`");
        hold((in_library || in_tool || in_tests) && path.sleeps(), "nobody sleeps; wait for what you are waiting for");
    }
    found.sort();
    found.into_iter().map(|(line, what)| Violation { file: file.to_owned(), line, what }).collect()
}

/// A line and what is wrong there.
type Finding = (usize, String);

fn left_for_later(source: &str) -> Vec<Finding> {
    // Not in one piece, or this file would break its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let lines = source.lines().enumerate();
    let marked =
        lines.filter_map(|(at, line)| marks.iter().find(|mark| line.contains(**mark)).map(|mark| (at + 1, mark)));
    marked.map(|(line, mark)| (line, format!("{mark}: do it, or leave it out"))).collect()
}

/// The name of the floor on which `file` lies: `src/env/clock.rs` on `env`, `src/types.rs` on `types`.
fn floor_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside.split_once('/').map_or_else(|| inside.trim_end_matches(".rs"), |(folder, _)| folder)
}

/// Imports, and paths written out, that do not go down or to a sibling.
fn imports(file: &str, tokens: &[Token<'_>]) -> Vec<Finding> {
    let height = |floor: &str| FLOORS.iter().position(|known| *known == floor);
    let floor = floor_of(file);
    let Some(here) = height(floor) else {
        return vec![(1, format!("`{floor}` has no floor; give it one in tests/house.rs"))];
    };
    // Where `super` is the root of the crate.
    let under_the_roof = !file.trim_start_matches("src/").contains('/') || file == format!("src/{floor}/mod.rs");

    let before_tests = &tokens[..start_of_tests(tokens)];
    let mut found = Vec::new();
    for path in paths(before_tests) {
        let mut hold = |broken: bool, rule: &str| {
            if broken {
                found.push((path.line, format!("`{path}` {rule}")));
            }
        };
        match path.segments.as_slice() {
            ["crate", "*", ..] => hold(true, "is everything that lib.rs re-exports"),
            ["crate", room, ..] => match height(room) {
                None => hold(true, "goes through lib.rs; import from the room that owns it"),
                Some(there) => hold(there > here, &format!("goes up, from `{floor}` to `{room}`")),
            },
            ["super", "super", ..] => hold(true, "climbs blindly; name the room, from `crate`"),
            ["super", ..] => hold(under_the_roof, "goes through lib.rs; import from the room that owns it"),
            _ => {}
        }
    }
    found
}

/// The index of the first token of a `#[cfg(test)] mod tests { .. }` that ends the file, or else of the end.
fn start_of_tests(tokens: &[Token<'_>]) -> usize {
    const HEAD: [&str; 10] = ["#", "[", "cfg", "(", "test", ")", "]", "mod", "tests", "{"];
    let is_head = |window: &[Token<'_>]| window.iter().map(|token| token.text).eq(HEAD);
    let Some(start) = tokens.windows(HEAD.len()).position(is_head) else { return tokens.len() };
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return if at + 1 == tokens.len() { start } else { tokens.len() },
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// A path as it is written in the code, with the groups of an import resolved.
#[derive(Debug, PartialEq)]
struct CodePath<'a> {
    line: usize,
    segments: Vec<&'a str>,
}

impl CodePath<'_> {
    fn holds(&self, part: &[&str]) -> bool {
        self.segments.windows(part.len()).any(|window| window == part)
    }

    fn is_of_files(&self) -> bool {
        let system = self.segments.starts_with(&["std", "os"]) && self.segments.get(3) == Some(&"fs");
        self.segments.starts_with(&["std", "fs"]) || self.segments.starts_with(&["rustix", "fs"]) || system
    }

    fn asks_the_time(&self) -> bool {
        self.holds(&["Instant", "now"]) || self.holds(&["SystemTime"]) || self.segments.contains(&"clock_gettime")
    }

    fn sleeps(&self) -> bool {
        self.holds(&["thread", "sleep"]) || self.holds(&["thread", "sleep_ms"])
    }
}

impl fmt::Display for CodePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments.join("::"))
    }
}

/// Every path in the code, single names included; an import of a group is as many paths as it has leaves.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<CodePath<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is_name() {
            at = path_from(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path whose first name is at `at`, below `prefix`, and returns the index behind it.
fn path_from<'a>(tokens: &[Token<'a>], mut at: usize, prefix: &[&'a str], found: &mut Vec<CodePath<'a>>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'a>| token.text);
    let line = tokens[at].line;
    let mut segments = prefix.to_vec();
    // In a group, `self` is the module that the group is of.
    if prefix.is_empty() || text(at) != "self" {
        segments.push(text(at));
    }
    at += 1;
    while text(at) == "::" {
        match tokens.get(at + 1) {
            Some(next) if next.is_name() || next.text == "*" => {
                segments.push(next.text);
                at += 2;
            }
            Some(next) if next.text == "{" => return group_from(tokens, at + 2, &segments, found),
            _ => break,
        }
    }
    found.push(CodePath { line, segments });
    at
}

/// Reads the group of paths below `prefix` whose first token is at `at`, and returns the index behind its brace.
fn group_from<'a>(tokens: &[Token<'a>], mut at: usize, prefix: &[&'a str], found: &mut Vec<CodePath<'a>>) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text {
            "}" => return at + 1,
            "as" => at += 2,
            "*" => {
                found.push(CodePath { line: token.line, segments: [prefix, &["*"]].concat() });
                at += 1;
            }
            _ if token.is_name() => at = path_from(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

/// A name, a number, `::`, or a single other character.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (at, mut rest) in code.lines().enumerate() {
        while let Some(first) = rest.trim_start().chars().next() {
            rest = rest.trim_start();
            let in_word = |letter: char| letter.is_alphanumeric() || letter == '_';
            let length = if in_word(first) {
                rest.find(|letter| !in_word(letter)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            found.push(Token { line: at + 1, text: &rest[..length] });
            rest = &rest[length..];
        }
    }
    found
}

/// `source` with a space for each character of a comment, a text, or a character literal; lines stay where they are.
fn without_comments_and_texts(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let blank = literal_or_comment(rest, code.chars().next_back());
        if blank == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (gone, behind) = rest.split_at(blank);
            code.extend(gone.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
            rest = behind;
        }
    }
    code
}

/// The length of the comment or literal with which `rest` begins, behind the letter `before`; 0 if it is code.
fn literal_or_comment(rest: &str, before: Option<char>) -> usize {
    let behind = |start: usize, end: &str| rest[start..].find(end).map_or(rest.len(), |at| start + at + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if let Some(behind_tick) = rest.strip_prefix('\'') {
        let mut letters = behind_tick.chars();
        return match (letters.next(), letters.next()) {
            (Some('\\'), _) => quoted(rest, '\''),
            (Some(letter), Some('\'')) => 2 + letter.len_utf8(),
            // A lifetime.
            _ => 0,
        };
    }
    // `r"`, `r#"`, `br##"` and their like, unless this `r` is the end of a longer word.
    if before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_') {
        let hashes = rest.trim_start_matches(['b', 'c']);
        if rest.len() - hashes.len() <= 1 && hashes.starts_with('r') {
            let quote = hashes[1..].trim_start_matches('#');
            if quote.starts_with('"') {
                let end = format!("\"{}", "#".repeat(hashes.len() - 1 - quote.len()));
                return behind(rest.len() - quote.len() + 1, &end);
            }
        }
    }
    0
}

/// The length of a comment that may hold others.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of a literal between two of `quote`, in which a backslash hides what follows.
fn quoted(rest: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            _ if letter == quote => return at + letter.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

mod planted {
    //! Each rule, shown to fail where it must and to be silent where it must.

    use super::*;

    /// What is found in `source`, as `line: what`.
    fn found(file: &str, source: &str) -> Vec<String> {
        violations_in(file, source).iter().map(ToString::to_string).collect()
    }

    fn clean(file: &str, source: &str) {
        assert_eq!(found(file, source), [""; 0], "{source}");
    }

    /// `source` breaks one rule, at this line of `file`, and the message holds `words`.
    fn broken(file: &str, line: usize, words: &str, source: &str) {
        let found = found(file, source);
        assert_eq!(found.len(), 1, "{source}\n{found:?}");
        assert!(found[0].starts_with(&format!("{file}:{line}: ")), "{source}\n{found:?}");
        assert!(found[0].contains(words), "{source}\n{found:?}");
    }

    #[test]
    fn imports_may_go_down_or_sideways() {
        clean(
            "src/producer.rs",
            "use crate::record::ProducerRecord;\nuse crate::{error::Result, types::{self, Offset}};",
        );
        clean("src/env/storage/disk.rs", "use crate::env::storage::region::Region;");
        clean("src/partition/segment.rs", "use super::index::Index;\npub(in crate::partition) struct Segment;");
        clean("src/lib.rs", "mod sim;\npub use crate::sim::World;\npub use event_log::EventLog;");
        clean("src/sim/world.rs", "use crate::event_log::EventLog;");
    }

    #[test]
    fn imports_may_not_go_up() {
        broken("src/format/batch.rs", 2, "from `format` to `partition`", "//! Head.\nuse crate::partition::Partition;");
        broken("src/types.rs", 1, "to `error`", "use crate::error::Error;");
        broken("src/env/mod.rs", 3, "to `catalog`", "use crate::{\n    error::Result,\n    catalog::Catalog,\n};");
    }

    #[test]
    fn a_path_written_out_is_an_import_too() {
        broken(
            "src/types.rs",
            1,
            "crate::error::Error::Closed",
            "fn f() -> u8 { g::<Vec<crate::error::Error::Closed>>() }",
        );
        clean("src/types.rs", "/// See [`crate::error::Error`].\nstruct A(&'static str); // crate::error\n");
    }

    #[test]
    fn imports_may_not_go_through_the_roof() {
        broken("src/consumer.rs", 1, "goes through lib.rs", "use crate::Offset;");
        broken("src/consumer.rs", 1, "goes through lib.rs", "use crate::{types::Timestamp, Offset};");
        broken("src/consumer.rs", 1, "re-exports", "use crate::*;");
        broken("src/consumer.rs", 1, "goes through lib.rs", "use super::Offset;");
        broken("src/env/mod.rs", 1, "goes through lib.rs", "use super::types;");
        broken("src/env/storage/disk.rs", 1, "name the room", "use super::super::clock;");
    }

    #[test]
    fn a_file_without_a_floor_is_named() {
        broken("src/helper.rs", 1, "`helper` has no floor", "");
        broken("src/util/mod.rs", 1, "`util` has no floor", "use crate::types;");
    }

    #[test]
    fn tests_at_the_end_of_a_file_may_import_from_any_floor() {
        let tests = "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::sim::World;\n    fn f() { {} }\n}\n";
        clean("src/types.rs", tests);
        broken("src/types.rs", 1, "to `sim`", &format!("use crate::sim::World; {tests}"));
        // What stands behind them does not hide.
        let found = found("src/types.rs", &format!("{tests}use crate::config::LogConfig;"));
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn unsafe_stays_in_its_room() {
        let source = "fn f() {\n    unsafe { g() }\n}";
        broken("src/partition/segment.rs", 2, "`unsafe` belongs into src/env/storage/region.rs", source);
        broken("src/bin/tidelog/main.rs", 2, "unsafe", source);
        broken("tests/crash.rs", 2, "unsafe", source);
        broken("examples/orders.rs", 1, "unsafe", "unsafe fn f() {}");
        clean("src/env/storage/region.rs", source);
        clean("benches/limit/mod.rs", source);
        clean("src/lib.rs", "#![deny(unsafe_op_in_unsafe_fn)]\n/* unsafe */ const A: &str = \"unsafe { }\";");
    }

    #[test]
    fn files_are_touched_in_one_room() {
        for import in ["use std::fs;", "use std::fs::File;", "use std::{io, fs::{self, File}};", "use rustix::fs as f;"]
        {
            assert!(!found("src/catalog.rs", import).is_empty(), "{import}");
            clean("src/env/storage/disk.rs", import);
            clean("src/bin/tidelog/main.rs", import);
            clean("tests/crash.rs", import);
        }
        broken("src/catalog.rs", 2, "files are touched", "fn f() {\n    std::fs::remove_dir_all(\".\");\n}");
        broken("src/catalog.rs", 1, "files are touched", "use std::os::unix::fs::FileExt;");
        clean("src/catalog.rs", "use std::{fmt, io};\nuse crate::env::storage::Storage;\nfn fs() {}");
    }

    #[test]
    fn the_time_comes_from_the_clock() {
        for source in ["let a = Instant::now();", "std::time::Instant::now()", "use std::time::{Duration, SystemTime};"]
        {
            assert!(!found("src/producer.rs", source).is_empty(), "{source}");
            clean("src/env/clock.rs", source);
            clean("src/env/scheduling.rs", source);
            clean("benches/append.rs", source);
        }
        broken("src/env/storage/disk.rs", 1, "clock", "rustix::time::clock_gettime(id)");
        clean("src/producer.rs", "let now = env.clock.now();\nuse std::time::Duration;");
    }

    #[test]
    fn nobody_sleeps() {
        for source in ["std::thread::sleep(d)", "thread::sleep(d)", "use std::thread::{self, sleep};"] {
            for file in ["src/env/clock.rs", "src/bin/tidelog/main.rs", "tests/groups.rs"] {
                broken(file, 1, "nobody sleeps", source);
            }
        }
        clean("src/env/scheduling.rs", "thread::spawn(f); self.sleepers.load(o); fn sleep() {}");
    }

    #[test]
    fn nothing_is_left_for_later() {
        for mark in ["TO\u{200b}DO", "FIX\u{200b}ME"].map(|mark| mark.replace('\u{200b}', "")) {
            for file in ["src/topic.rs", "tests/a.rs", "benches/a.rs", "examples/a.rs", "fuzz/fuzz_targets/a.rs"] {
                broken(file, 2, "do it", &format!("fn f() {{}}\n// {mark}: the rest"));
            }
        }
    }

    #[test]
    fn comments_and_texts_are_not_code() {
        let source = r####"
            // unsafe '
            /* unsafe /* unsafe */ unsafe " */
            const A: &str = "unsafe \" unsafe // ";
            const B: &str = r#"unsafe " unsafe"#;
            const C: &[u8] = br##"unsafe "# unsafe"##;
            const D: [char; 4] = ['"', '\'', '\\', '\u{22}'];
            fn f<'a>(a: &'a str) -> &'a str { a }
            const E: u8 = b'"';
            unsafe fn g() {}
        "####;
        broken("src/lib.rs", 10, "unsafe", source);
        assert_eq!(without_comments_and_texts("a \"ü\n\" b").lines().count(), 2);
    }

    #[test]
    fn several_violations_are_all_named_in_the_order_of_lines() {
        let found = found("src/types.rs", "use std::fs;\nuse crate::error::Error;\nunsafe fn f() {}");
        let places: Vec<_> = found.iter().map(|violation| violation.split_once(": ").unwrap().0).collect();
        assert_eq!(places, ["src/types.rs:1", "src/types.rs:2", "src/types.rs:3"]);
    }
}
