//! A failing run, for people: a table with a column for each member, and a page with a timeline.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::sim::check::Origin;
use crate::sim::outcome::{Broken, Outcome};
use crate::sim::story::{Event, Happening, Place, Who};

/// No column is wider.
const MOST_WIDTH: usize = 56;

/// A step of a run, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) at: Duration,
    pub(crate) who: Who,
    pub(crate) text: String,
    /// Whether something goes wrong here.
    pub(crate) is_fault: bool,
}

/// The steps of a run that are worth showing. What goes without saying is left out; records that are taken one after the
/// other, with their effects, are one step; what is done again and again is shown once.
pub(crate) fn rows(outcome: &Outcome) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut run: Option<Run> = None;
    for (at, event) in outcome.shown().iter().enumerate() {
        if let (Some(run), Some(row)) = (&mut run, rows.last_mut())
            && run.goes_on(event)
        {
            row.text = run.to_string();
            continue;
        }
        if !is_shown(outcome, at, event) {
            continue;
        }
        run = Run::begin(event);
        let text = run.as_ref().map_or_else(|| event.what.to_string(), ToString::to_string);
        let before = rows.iter().rfind(|row| row.who == event.who);
        if matches!(event.what, Happening::Committed { .. }) && before.is_some_and(|before| before.text == text) {
            continue;
        }
        rows.push(Row { at: event.at, who: event.who, text, is_fault: is_fault(&event.what) });
    }
    without_repetitions(&rows)
}

/// Records that a member takes one after the other, and the effects meanwhile.
struct Run {
    who: Who,
    first: Place,
    last: u64,
    effects: u64,
}

impl Run {
    fn begin(event: &Event) -> Option<Run> {
        match &event.what {
            Happening::Takes { place, .. } => {
                Some(Run { who: event.who, first: place.clone(), last: place.offset, effects: 0 })
            }
            _ => None,
        }
    }

    /// Whether the event belongs to the run, and then it is added.
    fn goes_on(&mut self, event: &Event) -> bool {
        if event.who != self.who {
            return false;
        }
        match &event.what {
            Happening::Takes { place, .. }
                if place.partition == self.first.partition && place.offset == self.last + 1 =>
            {
                self.last = place.offset;
                true
            }
            Happening::Effect { .. } => {
                self.effects += 1;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last == self.first.offset {
            true => write!(f, "take {}", self.first)?,
            false => write!(f, "take {}..{}", self.first.offset, Place { offset: self.last, ..self.first.clone() })?,
        }
        match self.effects {
            0 => Ok(()),
            1 => f.write_str(", effect"),
            effects => write!(f, ", {effects} effects"),
        }
    }
}

/// Steps that follow on the same steps, once and again, are said in one.
fn without_repetitions(rows: &[Row]) -> Vec<Row> {
    /// A longer rhythm is not seen as one.
    const LONGEST: usize = 8;
    let mut kept: Vec<Row> = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let is_same = |one: usize, other: usize, length: usize| {
            other + length <= rows.len()
                && (0..length).all(|step| {
                    let (one, other) = (&rows[one + step], &rows[other + step]);
                    one.who == other.who && one.text == other.text && !one.is_fault
                })
        };
        let rhythm = (1..=LONGEST).find(|length| is_same(at, at + length, *length));
        let Some(length) = rhythm else {
            kept.push(rows[at].clone());
            at += 1;
            continue;
        };
        let times = (1..).take_while(|nth| is_same(at, at + nth * length, length)).count();
        kept.extend_from_slice(&rows[at..at + length]);
        if let Some(last) = kept.last_mut() {
            last.text = format!("{} (and all that {times} times again)", last.text);
        }
        at += (times + 1) * length;
    }
    kept
}

fn is_fault(what: &Happening) -> bool {
    matches!(
        what,
        Happening::Crash
            | Happening::PowerCut(_)
            | Happening::Panic
            | Happening::Panics(_)
            | Happening::Stall(_)
            | Happening::DiskFails(_)
            | Happening::DiskFull
            | Happening::BitFlip(_)
    )
}

fn is_shown(outcome: &Outcome, at: usize, event: &Event) -> bool {
    // A call that is cut off by a fault is shown where it began.
    let is_cut_off = || {
        let next = outcome.shown()[at + 1..].iter().find(|next| next.who == event.who || is_fault(&next.what));
        next.is_some_and(|next| is_fault(&next.what))
    };
    match event.what {
        Happening::Polled(_) | Happening::TakesNoMore | Happening::CommitReturned => false,
        Happening::Polls | Happening::Commits => is_cut_off(),
        // With one member it is all partitions, every time.
        Happening::Assigned { .. } => outcome.has_peers(event.who),
        // A start goes without saying, unless the member alone is started again.
        Happening::Starts => {
            let before = outcome.story[..at].iter().rfind(|before| before.who == event.who);
            before.is_some_and(|before| matches!(before.what, Happening::Panic | Happening::Fails(_)))
        }
        _ => true,
    }
}

/// The report of a failure, but for how to replay it.
pub(crate) fn text(outcome: &Outcome, broken: &Broken, origin: &Origin, runs: u64, tries: usize) -> String {
    let rows = rows(outcome);
    let mut text = format!("a guarantee does not hold: {}\n  {}\n\n", broken.guarantee, broken.says);
    let columns = columns(outcome, &rows);
    let widths: Vec<usize> = columns
        .iter()
        .map(|who| {
            let texts = rows.iter().filter(|row| row.who == *who).map(|row| row.text.chars().count());
            texts.chain([outcome.name(*who).chars().count()]).max().unwrap_or(0).min(MOST_WIDTH)
        })
        .collect();
    let mut line = |time: &str, cells: &mut dyn FnMut(Who) -> String| {
        text.push_str(&format!("  {time:>9}"));
        for (who, width) in columns.iter().zip(&widths) {
            let cell: String = cells(*who).chars().take(*width).collect();
            text.push_str(&format!(" | {cell:<width$}"));
        }
        let kept = text.trim_end().len();
        text.truncate(kept);
        text.push('\n');
    };
    line("time", &mut |who| outcome.name(who).to_owned());
    let mut before = None;
    for row in &rows {
        let time = if before == Some(row.at) { String::new() } else { time(row.at) };
        before = Some(row.at);
        line(&time, &mut |who| if who == row.who { row.text.clone() } else { String::new() });
    }
    let found = match origin {
        Origin::Seed(seed) => format!("found by seed {seed}, in run {runs}"),
        Origin::Schedule(number) => format!("found by schedule {number} of all in the scope"),
        Origin::Saved(file) => format!("saved in {}", file.display()),
        Origin::Bytes => "found by the fuzzer".to_owned(),
    };
    let shortest = if tries == 0 { String::new() } else { format!("; the shortest of {tries} tries") };
    text.push_str(&format!("\n  {} steps; {found}{shortest}\n", rows.len()));
    text
}

fn columns(outcome: &Outcome, rows: &[Row]) -> Vec<Who> {
    let mut columns: Vec<Who> = (0..outcome.names.len()).map(Who::Member).collect();
    if rows.iter().any(|row| row.who == Who::Machine) {
        columns.push(Who::Machine);
    }
    columns
}

fn time(at: Duration) -> String {
    let micros = at.as_micros();
    match micros {
        0 => "0 ms".to_owned(),
        _ if micros.is_multiple_of(1000) => format!("{} ms", micros / 1000),
        _ => format!("{}.{:03} ms", micros / 1000, micros % 1000),
    }
}

/// What to do to see the failure again.
pub(crate) fn how_to_replay(name: &str, origin: &Origin, saved: Option<&Path>) -> String {
    let mut text = String::new();
    match saved {
        _ if matches!(origin, Origin::Saved(_)) => {}
        Some(file) => {
            text.push_str(&format!("  saved as {}, which is run first from now on\n", file.display()));
        }
        None => text.push_str("  not saved\n"),
    }
    if let Origin::Seed(seed) = origin {
        // A test has its name, with its modules before it; anything else has that of its file.
        let test = name
            .rsplit('-')
            .next()
            .filter(|_| !name.contains(".rs"))
            .map_or_else(String::new, |name| format!(" {name}"));
        text.push_str(&format!("  to see the whole run: TIDELOG_SIM_SEED={seed} cargo test{test}\n"));
    }
    text
}

/// Where two runs of one tape part. `None`: they do not.
pub(crate) fn parting(one: &Outcome, other: &Outcome) -> Option<String> {
    let both = one.story.iter().zip(&other.story);
    let same = both.take_while(|(one, other)| one == other).count();
    let said = |outcome: &Outcome| match outcome.story.get(same) {
        Some(event) => format!("{} at {}: {}", outcome.name(event.who), time(event.at), event.what),
        None => "the run had ended".to_owned(),
    };
    let is_same = same == one.story.len() && same == other.story.len();
    (!is_same).then(|| format!("after {same} events they part:\n    first: {}\n    then:  {}", said(one), said(other)))
}

pub(crate) fn not_reproducible(broken: &Broken, origin: &Origin, parting: &str) -> String {
    format!(
        "a guarantee does not hold, and the run cannot be repeated: {}\n  {}\n  found by {origin:?}\n\n  The same choices were \
         made again, and something else happened: {parting}\n  The code under test depends on something that the simulation \
         does not decide: the system's clock, random numbers, the order of a HashMap, a thread of its own. Use sim::now() and \
         sim::sleep(), and maps with an order.\n",
        broken.guarantee, broken.says
    )
}

/// The failure as a page with a timeline: one file that needs nothing else.
///
/// `replay`: what to do to see it again.
pub(crate) fn page(outcome: &Outcome, broken: &Broken, title: &str, replay: &str) -> String {
    let rows = rows(outcome);
    let columns = columns(outcome, &rows);
    let mut cells: BTreeMap<Who, usize> = BTreeMap::new();
    for (at, who) in columns.iter().enumerate() {
        cells.insert(*who, at + 2);
    }
    let mut body = String::new();
    let mut head = String::from("<div class=t style='grid-row:1'>time</div>");
    for who in &columns {
        head.push_str(&format!("<div class=h>{}</div>", escape(outcome.name(*who))));
    }
    let lanes: String = columns
        .iter()
        .enumerate()
        .map(|(at, _)| format!("<i style='grid-column:{};grid-row:2/{}'></i>", at + 2, rows.len() + 2))
        .collect();
    let mut before = None;
    for (at, row) in rows.iter().enumerate() {
        let line = at + 2;
        if before != Some(row.at) {
            body.push_str(&format!("<div class=t style='grid-row:{line}'>{}</div>", time(row.at)));
        }
        before = Some(row.at);
        let kind = if row.is_fault { "f" } else { kind_of(&row.text) };
        let column = cells[&row.who];
        body.push_str(&format!(
            "<div class='s {kind}' style='grid-row:{line};grid-column:{column}'>{}</div>",
            escape(&row.text)
        ));
        if row.is_fault && !row.text.starts_with("STALL") && !row.text.starts_with("PANIC") {
            body.push_str(&format!("<hr style='grid-row:{line};grid-column:2/-1'>"));
        }
    }
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>\
         <style>{STYLE}</style><main><h1>{guarantee}</h1><p class=w>{says}</p><div class=g style='grid-template-columns:6em \
         repeat({count},minmax(9em,1fr))'>{head}{lanes}{body}</div><footer>{steps} steps, the shortest run that breaks the \
         guarantee. <code>{title}</code><pre>{replay}</pre></footer></main></html>\n",
        title = escape(title),
        replay = escape(replay),
        guarantee = escape(broken.guarantee),
        says = escape(&broken.says),
        count = columns.len(),
        steps = rows.len(),
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark;--b:#fbfaf7;--i:#23302f;--l:#d8d4c8;--c:#fff;--a:#1d6f6b;--f:#b3261e}\
@media(prefers-color-scheme:dark){:root{--b:#15191a;--i:#dfe6e4;--l:#334041;--c:#1e2526;--a:#6fc7bf;--f:#ff8a80}}\
body{margin:0;background:var(--b);color:var(--i);font:15px/1.5 system-ui,sans-serif}\
main{max-width:62em;margin:3em auto;padding:0 1.5em}h1{font-size:1.6em;margin:0;color:var(--f)}\
h1::before{content:'does not hold: ';font-weight:400;color:var(--i)}.w{margin:.3em 0 2em;font-size:1.1em}\
.g{display:grid;column-gap:1em;row-gap:.35em;align-items:center;position:relative;overflow-x:auto;padding-bottom:.5em}\
.h{font-weight:600;text-align:center;padding-bottom:.4em;grid-row:1}.t{grid-column:1;text-align:right;font:12px ui-monospace,\
monospace;opacity:.65}.g>i{justify-self:center;align-self:stretch;border-left:2px solid var(--l)}\
.s{justify-self:center;z-index:1;background:var(--c);border:1px solid var(--l);border-radius:.5em;padding:.15em .7em;\
font:13px ui-monospace,monospace;box-shadow:0 1px 2px #0002;overflow-wrap:anywhere}.s.c{border-color:var(--a);color:var(--a)}\
.s.e{background:var(--a);color:var(--b);border-color:var(--a)}.s.f{background:var(--f);color:var(--b);border-color:var(--f);\
font-weight:700}hr{border:0;border-top:2px dashed var(--f);width:100%;opacity:.5;align-self:center}\
footer{margin-top:2.5em;opacity:.7;font-size:.9em}pre{white-space:pre-wrap}";

fn kind_of(text: &str) -> &'static str {
    match text {
        _ if text.starts_with("commit") => "c",
        _ if text.contains("effect") => "e",
        _ => "",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}
