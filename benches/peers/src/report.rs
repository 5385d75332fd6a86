//! The figures as Markdown, as they go into the project's README.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::child::Outcome;
use crate::peer::Syncs;
use crate::roster::{COLUMNS, Column, Contender, Table, Unit};
use crate::work::{Effort, Measured, Row};

/// Names and versions of all packages, as they were built.
const LOCK: &str = include_str!("../Cargo.lock");

/// By how much one must be better to be called ahead: less is noise.
const AHEAD: f64 = 1.05;

/// All outcomes, by row and peer.
#[derive(Default)]
pub(crate) struct Results {
    outcomes: BTreeMap<(&'static str, &'static str), Vec<Outcome>>,
}

impl Results {
    pub(crate) fn add(&mut self, column: &Column, contender: &Contender, outcome: Outcome) {
        self.outcomes.entry((column.key, contender.about.package)).or_default().push(outcome);
    }

    pub(crate) fn last(&self, column: &Column, contender: &Contender) -> Option<&Outcome> {
        self.outcomes.get(&(column.key, contender.about.package))?.last()
    }

    /// The medians, or the first thing that went wrong.
    fn of(&self, column: &Column, contender: &Contender) -> Option<Outcome> {
        let outcomes = self.outcomes.get(&(column.key, contender.about.package))?;
        let mut measured = Vec::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Measured(one) => measured.push(*one),
                other => return Some(other.clone()),
            }
        }
        let middle = |figure: fn(&Measured) -> f64| {
            let mut figures: Vec<f64> = measured.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Some(Outcome::Measured(Measured {
            value: middle(|one| one.value),
            disk: middle(|one| one.disk),
            descriptors: middle(|one| one.descriptors),
            first: middle(|one| one.first),
        }))
    }

    fn value(&self, column: &Column, contender: &Contender) -> Option<f64> {
        match self.of(column, contender)? {
            Outcome::Measured(measured) => Some(measured.value),
            _ => None,
        }
    }
}

pub(crate) fn markdown(
    columns: &[Column],
    contenders: &[Contender],
    results: &Results,
    quick: bool,
    repetitions: usize,
    took: Duration,
) -> String {
    let mut text = head(quick, repetitions, took);
    text.push_str(&words(contenders));
    let effort = Effort::of(quick);
    let titles = [
        (Table::Append, "Append, one thread: ns per record, and bytes on the disk for one of 100".to_owned()),
        (Table::Sync, "Append and sync each, 100 B: records per second".to_owned()),
        (Table::Read, "Read, 100 B, warm, every byte touched: ns per record".to_owned()),
        (
            Table::Open,
            format!("Open up to {} MiB of 1 KiB records after kill -9; 1,000 topics", effort.reopen_bytes >> 20),
        ),
    ];
    for (table, title) in titles {
        let columns: Vec<Column> = columns.iter().filter(|column| column.table == table).copied().collect();
        if !columns.is_empty() {
            let _ = writeln!(text, "\n**{title}**\n");
            text.push_str(&figures(&columns, contenders, results));
            text.push_str(&ahead(&columns, contenders, results));
        }
    }
    text.push_str(&reasons(columns, contenders, results));
    text
}

fn head(quick: bool, repetitions: usize, took: Duration) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([':', ' ', '\t']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let quick = if quick { " **A `--quick` run, to see that it runs: no figures to quote.**" } else { "" };
    format!(
        "Measured on {} in {} s: {model}, {cpus} CPUs, {} {}; medians of {repetitions}.{quick}\n",
        jiff::Zoned::now().date(),
        took.as_secs(),
        std::env::consts::OS,
        kernel.trim(),
    )
}

/// Who is how durable.
fn words(contenders: &[Contender]) -> String {
    let rows = contenders.iter().map(|one| {
        let about = &one.about;
        let version = version(about.package);
        vec![
            format!("{} {version}", about.package).trim().to_owned(),
            about.mode.to_owned(),
            about.kill_takes.to_owned(),
            about.power_cut_takes.to_owned(),
            about.synced.to_owned(),
        ]
    });
    let head = [
        "",
        "where nothing is synced",
        "kill -9 takes",
        "a power cut takes",
        "where each is synced: a power cut takes",
    ];
    format!("\n{}", table(&head.map(str::to_owned), rows))
}

/// The version with which a package was built, from the lock file.
fn version(package: &str) -> &'static str {
    let root = LOCK.split("[[package]]").find(|block| block.contains("name = \"tidelog-peers\"")).unwrap_or("");
    // Where there are several, the root names the one that it means.
    let named = root.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{package} "))?.split('"').next());
    named.unwrap_or_else(|| {
        let block = LOCK.split("[[package]]").find(|block| block.contains(&format!("\nname = \"{package}\"\n")));
        let line = block.and_then(|block| block.lines().find_map(|line| line.strip_prefix("version = ")));
        line.map_or("", |version| version.trim_matches('"'))
    })
}

fn figures(columns: &[Column], contenders: &[Contender], results: &Results) -> String {
    let mut head = vec![String::new()];
    for column in columns {
        head.push(column.heading.to_owned());
        head.extend(extra_headings(column).iter().map(|&heading| heading.to_owned()));
    }
    let rows = contenders.iter().map(|one| {
        let mut row = vec![one.about.package.to_owned()];
        for column in columns {
            let outcome = results.of(column, one);
            row.push(cell(column, one, outcome.as_ref()));
            match outcome {
                Some(Outcome::Measured(measured)) => row.extend(extras(column, &measured)),
                _ => row.extend(extra_headings(column).iter().map(|_| "-".to_owned())),
            }
        }
        row
    });
    table(&head, rows)
}

/// The names of what a row measures beside its figure.
fn extra_headings(column: &Column) -> &'static [&'static str] {
    match column.row {
        Row::Append { record_bytes: 100, records_per_batch: 1 } => &["bytes on disk"],
        Row::Reopen { .. } => &["of MiB"],
        Row::Topics => &["until each has one, ms", "open files", "disk, MiB"],
        _ => &[],
    }
}

fn extras(column: &Column, measured: &Measured) -> Vec<String> {
    match column.row {
        Row::Append { record_bytes: 100, records_per_batch: 1 } if measured.disk > 0.0 => vec![grouped(measured.disk)],
        Row::Append { record_bytes: 100, records_per_batch: 1 } => vec!["-".to_owned()],
        Row::Reopen { .. } => vec![format!("{:.0}", measured.disk / f64::from(1 << 20))],
        Row::Topics => vec![
            grouped(measured.first / 1e6),
            format!("{:.0}", measured.descriptors),
            grouped(measured.disk / f64::from(1 << 20)),
        ],
        _ => Vec::new(),
    }
}

fn cell(column: &Column, contender: &Contender, outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome::Measured(measured)) => {
            let figure = match column.unit {
                Unit::Millis => measured.value / 1e6,
                Unit::NanosPerRecord | Unit::RecordsPerSecond => measured.value,
            };
            let batch = matches!(column.row, Row::Append { records_per_batch: 100, .. });
            let synced = match contender.about.syncs {
                Syncs::AsAsked => false,
                Syncs::Batches => batch,
                Syncs::Always => matches!(column.row, Row::Append { .. } | Row::Follow | Row::Topics),
            };
            format!("{}{}", grouped(figure), if synced { " ˢ" } else { "" })
        }
        Some(Outcome::Failed(_)) => "failed".to_owned(),
        Some(Outcome::Unsupported(_)) | None => "-".to_owned(),
    }
}

/// Three digits that matter, thousands apart.
fn grouped(figure: f64) -> String {
    if figure < 10.0 {
        return format!("{figure:.2}");
    }
    if figure < 100.0 {
        return format!("{figure:.1}");
    }
    let scale = 10f64.powf(figure.log10().floor() - 2.0);
    let digits = format!("{:.0}", (figure / scale).round() * scale);
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Who is ahead of tidelog in which column, and how far.
fn ahead(columns: &[Column], contenders: &[Contender], results: &Results) -> String {
    let find = |package: &str| contenders.iter().find(|one| one.about.package == package);
    let Some(tidelog) = find("tidelog") else { return String::new() };
    let mut text = String::new();
    let mut known = true;
    for column in columns {
        let Some(own) = results.value(column, tidelog) else {
            known = false;
            continue;
        };
        let others = contenders.iter().filter(|one| !["limit", "tidelog"].contains(&one.about.package));
        let mut better: Vec<(f64, &str)> = others
            .filter_map(|one| {
                let value = results.value(column, one)?;
                let times = if column.unit == Unit::RecordsPerSecond { value / own } else { own / value };
                (times > AHEAD).then_some((times, one.about.package))
            })
            .collect();
        better.sort_by(|a, b| b.0.total_cmp(&a.0));
        if !better.is_empty() {
            let names: Vec<String> =
                better.iter().map(|(times, package)| format!("{package} {times:.1} times")).collect();
            let _ = write!(text, " *{}*: {}.", column.heading.split(',').next().unwrap_or_default(), names.join(", "));
        }
    }
    match (text.is_empty(), known) {
        (false, _) => format!("\nAhead of tidelog:{text}\n"),
        (true, true) => "\nNobody is ahead of tidelog.\n".to_owned(),
        (true, false) => String::new(),
    }
}

/// Why there is no figure, where there is none.
fn reasons(columns: &[Column], contenders: &[Contender], results: &Results) -> String {
    let mut by_reason: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for one in contenders {
        for column in COLUMNS.iter().filter(|column| columns.iter().any(|other| other.key == column.key)) {
            if let Some(Outcome::Unsupported(reason) | Outcome::Failed(reason)) = results.of(column, one) {
                by_reason.entry((one.about.package, reason)).or_default().push(column.key);
            }
        }
    }
    let mut text = "\nˢ: it syncs each time, for it has no cheaper mode that survives kill -9.".to_owned();
    if !by_reason.is_empty() {
        text.push_str(" Without a figure:");
        for ((package, reason), keys) in by_reason {
            let _ = write!(text, " {package} ({}): {reason};", keys.join(", "));
        }
        text.pop();
        text.push('.');
    }
    text.push('\n');
    text
}

/// A Markdown table: the first column from the left, the others, if they are figures, from the right.
fn table(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let numbers = |column: usize| {
        column > 0 && rows.iter().any(|row| row[column].starts_with(|first: char| first.is_ascii_digit()))
    };
    let mut text = format!("| {} |\n|", head.join(" | "));
    for column in 0..head.len() {
        text.push_str(if numbers(column) { "---:|" } else { "---|" });
    }
    text.push('\n');
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::roster;

    #[test]
    fn every_peer_has_the_version_that_the_lock_file_says() {
        for one in roster().iter().filter(|one| one.about.package != "limit") {
            let version = version(one.about.package);
            assert!(version.split('.').count() >= 3, "{}: `{version}`", one.about.package);
        }
        assert_eq!(version("limit"), "");
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 1.234, 45.67, 128.4, 999.7, 1234.0, 1_234_567.0];
        let texts = figures.map(grouped);
        assert_eq!(texts, ["0.00", "1.23", "45.7", "128", "1,000", "1,230", "1,230,000"]);
    }

    #[test]
    fn who_is_ahead_is_named_and_the_limit_is_nobody() {
        let contenders = roster();
        let column = COLUMNS[0];
        let mut results = Results::default();
        for (package, value) in [("limit", 1.0), ("tidelog", 100.0), ("redb", 50.0), ("heed", 99.0), ("yaque", 200.0)] {
            let one = contenders.iter().find(|one| one.about.package == package).unwrap();
            results.add(&column, one, Outcome::Measured(Measured { value, ..Measured::default() }));
        }
        assert_eq!(ahead(&[column], &contenders, &results), "\nAhead of tidelog: *100 B*: redb 2.0 times.\n");
    }

    #[test]
    fn one_wrong_repetition_spoils_the_figure() {
        let (column, one) = (COLUMNS[0], roster()[1]);
        let mut results = Results::default();
        results.add(&column, &one, Outcome::Measured(Measured::default()));
        results.add(&column, &one, Outcome::Failed("1 of 2 records came back".into()));
        assert!(matches!(results.of(&column, &one), Some(Outcome::Failed(_))));
    }
}
