//! `tidelog verify`, `tidelog dump` and `tidelog repair`.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidelog::inspect::{self, DumpItem, Finding, FindingClass, Mend, Progress};

use crate::args::Arguments;
use crate::failure::{Failure, Outcome, TOOL};
use crate::output::{Output, Screen, complain, grouped};

/// Reads everything and writes every finding.
pub(crate) fn verify(arguments: &Arguments) -> Outcome {
    let bar = progress_bar();
    let report = inspect::verify(&arguments.dir, |progress: Progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    })?;
    bar.finish_and_clear();
    let mut screen = Screen::new();
    for finding in &report.findings {
        match arguments.output {
            Output::Text => screen.line(&finding.to_string())?,
            Output::Json => screen.json(&finding_as_json(finding))?,
        }
    }
    let (segments, bytes, records) = (report.segments as u64, report.bytes, report.records);
    match arguments.output {
        Output::Text => screen.line(&format!(
            "{} segments, {} bytes, {} records: {}",
            grouped(segments),
            grouped(bytes),
            grouped(records),
            if report.is_sound() { "sound" } else { "not sound" }
        ))?,
        Output::Json => screen.json(&json!({
            "segments": segments, "bytes": bytes, "records": records, "sound": report.is_sound(),
        }))?,
    }
    screen.flush()?;
    match report.findings.iter().map(|finding| finding.class).filter(|class| !class.is_harmless()).min() {
        None => Ok(()),
        Some(class) => {
            let next = format!("`{TOOL} repair` says what can be mended and what is lost, and changes nothing");
            Err(Failure::found(exit_code(class), format!("promised data is {}; {next}", said(class))))
        }
    }
}

/// The exit code of the gravest finding.
fn exit_code(class: FindingClass) -> u8 {
    match class {
        FindingClass::Missing => 6,
        FindingClass::Foreign => 7,
        FindingClass::Catalog => 8,
        FindingClass::Committed => 9,
        _ => 4,
    }
}

fn said(class: FindingClass) -> &'static str {
    match class {
        FindingClass::Missing => "missing",
        FindingClass::Foreign => "replaced by a foreign file",
        FindingClass::Catalog => "not in the catalog as it should be",
        FindingClass::Committed => "committed as it should not be",
        _ => "damaged",
    }
}

fn finding_as_json(finding: &Finding) -> Value {
    json!({
        "class": finding.class.name(),
        "place": finding.place,
        "path": finding.path.display().to_string(),
        "position": finding.position,
        "offsets": [finding.offsets.start.get(), finding.offsets.end.get()],
        "message": finding.message,
    })
}

/// A bar on standard error, if somebody looks.
pub(crate) fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}").expect("the template is right");
    ProgressBar::new(0).with_style(style)
}

/// Explains a file: its headers, batches and records; `bytes`: every field of them.
pub(crate) fn dump(arguments: &Arguments, what: &Path, bytes: bool) -> Outcome {
    let path = find(&arguments.dir, what);
    let mut screen = Screen::new();
    let mut written: Outcome = Ok(());
    inspect::dump(&path, |item| {
        let wanted = bytes || item.depth == 0 || item.flaw.is_some() || item.name == "record" || item.depth == 2;
        if wanted && written.is_ok() {
            written = match arguments.output {
                Output::Text => screen.line(&item_as_text(item)),
                Output::Json => screen.json(&item_as_json(item)),
            };
        }
    })?;
    written?;
    screen.flush()
}

/// The file as it was named, or below the directory of the log; of a directory the first segment.
fn find(dir: &Path, what: &Path) -> PathBuf {
    let below = dir.join(what);
    let path = if what.exists() || !below.exists() { what.to_path_buf() } else { below };
    if !path.is_dir() {
        return path;
    }
    let segments = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
    segments.filter(|path| path.extension().is_some_and(|extension| extension == "log")).min().unwrap_or(path)
}

fn item_as_text(item: &DumpItem) -> String {
    let indent = "  ".repeat(item.depth.into());
    let flaw = item.flaw.map_or(String::new(), |flaw| format!("  !! {flaw}"));
    let end = item.position + item.length;
    format!("{:>10}..{end:<10} {indent}{}: {}{flaw}", item.position, item.name, item.value)
}

fn item_as_json(item: &DumpItem) -> Value {
    json!({
        "position": item.position,
        "length": item.length,
        "depth": item.depth,
        "name": item.name,
        "value": item.value,
        "flaw": item.flaw.map(|flaw| flaw.to_string()),
    })
}

/// Says what can be mended; mends it if told to.
pub(crate) fn repair(arguments: &Arguments, execute: bool) -> Outcome {
    let report = inspect::repair(&arguments.dir, execute)?;
    let mut screen = Screen::new();
    for mend in &report.mends {
        match arguments.output {
            Output::Text => screen.line(&mend_as_text(mend))?,
            Output::Json => screen.json(&json!({
                "place": mend.place,
                "path": mend.path.display().to_string(),
                "action": mend.action,
                "lost": [mend.lost.start.get(), mend.lost.end.get()],
                "done": execute,
            }))?,
        }
    }
    screen.flush()?;
    for reason in &report.beyond {
        complain(&format!("cannot be mended: {reason}"));
    }
    match &report.backup {
        Some(backup) => complain(&format!("the files as they were are in {}", backup.display())),
        None if report.mends.is_empty() => complain("nothing to mend"),
        None if execute => {}
        None => complain("nothing was changed; --execute does it, and copies what it changes aside first"),
    }
    if report.beyond.is_empty() { Ok(()) } else { Err(Failure::damaged("not everything can be mended")) }
}

fn mend_as_text(mend: &Mend) -> String {
    let lost = match mend.lost.end.since(mend.lost.start) {
        0 => "no offset is lost".to_owned(),
        count => format!("lost for good: offsets {}..{} ({})", mend.lost.start, mend.lost.end, grouped(count)),
    };
    format!("{}: {}: {}; {lost}", mend.place, mend.path.display(), mend.action)
}
