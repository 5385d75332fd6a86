//! A failing run, for people: a table with a column for each member, and a page with a timeline.

use std::fmt;
use std::iter;
use std::mem;
use std::path::Path;
use std::time::Duration;

use crate::sim::check::Origin;
use crate::sim::outcome::{Broken, Outcome};
use crate::sim::story::{Event, Happening, Place, Who};

/// No line of the table is longer: that of a terminal as it was always made.
const MOST_WIDTH: usize = 80;
/// No column is made narrower than this to reach that.
const LEAST_WIDTH: usize = 12;
/// What stands before the first column.
const TIME_WIDTH: usize = 11;

/// A step of a run, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) at: Duration,
    pub(crate) who: Who,
    pub(crate) text: String,
    /// Whether something goes wrong here.
    pub(crate) is_fault: bool,
    /// Whether the process dies of it.
    ends_life: bool,
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
        let ends_life = matches!(event.what, Happening::Crash | Happening::PowerCut(_));
        rows.push(Row { at: event.at, who: event.who, text, is_fault: is_fault(&event.what), ends_life });
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
    let widest = |who: &Who| {
        let texts = rows.iter().filter(|row| row.who == *who).map(|row| row.text.chars().count());
        texts.chain([outcome.name(*who).chars().count()]).max().unwrap_or(0)
    };
    let widths = narrowed(columns.iter().map(widest).collect());
    let mut line = |time: &str, cells: &[&str]| {
        text.push_str(&format!("  {time:>9}"));
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(&format!(" | {cell:<width$}"));
        }
        let kept = text.trim_end().len();
        text.truncate(kept);
        text.push('\n');
    };
    line("time", &columns.iter().map(|who| outcome.name(*who)).collect::<Vec<_>>());
    let mut before = None;
    for row in &rows {
        let mut time = if before == Some(row.at) { String::new() } else { time(row.at) };
        before = Some(row.at);
        let column = columns.iter().position(|who| *who == row.who).unwrap_or_default();
        for part in wrapped(&row.text, widths[column]) {
            let mut cells = vec![""; columns.len()];
            cells[column] = &part;
            line(&mem::take(&mut time), &cells);
        }
    }
    let found = match origin {
        Origin::Seed(seed) => format!("found by seed {seed}, in run {runs}"),
        Origin::Schedule(number) => format!("found by schedule {number} of all in the scope"),
        Origin::Saved(file) => format!("saved in {}", file.display()),
        Origin::Bytes => "found by the fuzzer".to_owned(),
    };
    let shortest = if tries == 0 { String::new() } else { format!("; the shortest of {tries} tries") };
    text.push_str(&format!("\n  {}; {found}{shortest}\n", count_of(&rows)));
    text
}

fn count_of(rows: &[Row]) -> String {
    if rows.len() == 1 { "1 step".to_owned() } else { format!("{} steps", rows.len()) }
}

/// Takes from the widest columns until the table is no wider than it may be.
fn narrowed(mut widths: Vec<usize>) -> Vec<usize> {
    let room = MOST_WIDTH.saturating_sub(TIME_WIDTH + " | ".len() * widths.len());
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST_WIDTH => *widest -= 1,
            _ => break,
        }
    }
    widths
}

/// A text in lines of so many characters, broken between words where that is possible; what follows the first is indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is one");
            let is_first = line.trim().is_empty();
            let left = width.saturating_sub(line.chars().count() + usize::from(!is_first));
            if word.len() <= left {
                line.push_str(if is_first { "" } else { " " });
                line.extend(word);
                break;
            }
            if is_first {
                // Longer than a line.
                line.extend(word.drain(..left.max(1)));
            }
            lines.push(INDENT.to_owned());
        }
    }
    lines
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
/// `test`: what was tested. `replay`: what to do to see it again.
pub(crate) fn page(outcome: &Outcome, broken: &Broken, test: &str, replay: &str) -> String {
    let rows = rows(outcome);
    let columns = columns(outcome, &rows);
    let names: String = columns.iter().map(|who| format!("<b class=h>{}</b>", escape(outcome.name(*who)))).collect();
    let replay: Vec<&str> = replay.lines().map(str::trim).collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{test}: \
         {guarantee}</title><style>{STYLE}</style><main><p>{test}</p><h1>{guarantee}</h1><p class=w>{says}</p><div class=g \
         style='--n:{count}'><b class='h t'>time</b>{names}{lanes}{steps}</div>{LEGEND}<footer>{number}\n<pre>{replay}\
         </pre></footer></main></html>\n",
        test = escape(test),
        guarantee = escape(broken.guarantee),
        says = escape(&broken.says),
        count = columns.len(),
        lanes = lanes(&rows, &columns),
        steps = steps(&rows, &columns, outcome.is_broken_at_its_end()),
        number = count_of(&rows),
        replay = escape(&replay.join("\n")),
    )
}

/// The line of the page's grid that a row is on, below the names.
fn line_of(row: usize) -> usize {
    row + 2
}

/// A lane for each column, with a gap where the process is down.
fn lanes(rows: &[Row], columns: &[Who]) -> String {
    let mut lives: Vec<_> = iter::once(0..rows.len()).collect();
    for (at, row) in rows.iter().enumerate() {
        if let Some(life) = lives.last_mut() {
            match (row.ends_life, row.text.as_str()) {
                (true, _) => life.end = life.end.min(at),
                (_, "restart") => lives.push(at + 1..rows.len()),
                _ => {}
            }
        }
    }
    let lane = |column: usize, from: usize, to: usize| {
        format!("<i style='grid-area:{}/{}/{}'></i>", line_of(from), column + 2, line_of(to))
    };
    let mut lanes = String::new();
    for (column, who) in columns.iter().enumerate() {
        match who {
            Who::Machine => lanes.push_str(&lane(column, 0, rows.len())),
            Who::Member(_) => {
                let lived = lives.iter().filter(|life| !life.is_empty());
                lanes.extend(lived.map(|life| lane(column, life.start, life.end)));
            }
        }
    }
    lanes
}

/// What happens, each at its time and in its lane. `broken`: the last of it breaks the guarantee.
fn steps(rows: &[Row], columns: &[Who], broken: bool) -> String {
    let mut steps = String::new();
    let mut before = None;
    for (at, row) in rows.iter().enumerate() {
        let line = line_of(at);
        if before != Some(row.at) {
            let jump = if before.is_some() { " j" } else { "" };
            steps.push_str(&format!("<span class='t{jump}' style='grid-row:{line}'>{}</span>", time(row.at)));
        }
        before = Some(row.at);
        if row.ends_life {
            steps.push_str(&format!("<hr style='grid-row:{line}'>"));
        }
        let column = columns.iter().position(|who| *who == row.who).unwrap_or_default() + 2;
        let here = if broken && at + 1 == rows.len() { " x" } else { "" };
        // A line is broken between words, and not behind the hyphen of a name.
        let words: Vec<String> = row.text.split(' ').map(|word| format!("<span>{}</span>", escape(word))).collect();
        let kind = kind_of(row);
        steps.push_str(&format!(
            "<div class='s {kind}{here}' style='grid-area:{line}/{column}'>{}</div>",
            words.join(" ")
        ));
    }
    steps
}

/// How a step looks: its colour, and a sign for who does not see that.
fn kind_of(row: &Row) -> &'static str {
    match row.text.split([' ', ',']).next().unwrap_or_default() {
        _ if row.is_fault => "f",
        "commit" => "c",
        "assigned" => "a",
        "restart" | "start" => "r",
        "take" if row.text.contains("effect") => "e",
        "take" => "k",
        _ => "",
    }
}

const LEGEND: &str = "<p class=l><span class='s f'>fault</span> <span class='s a'>rebalance</span> <span class='s k'>record \
taken</span> <span class='s e'>with effects outside</span> <span class='s c'>commit</span> <span class='s r'>started \
again</span></p>";

const STYLE: &str = "\
:root{color-scheme:light dark;--b:#fbfaf7;--i:#23302f;--l:#c9c4b5;--c:#fff;--a:#1d6f6b;--f:#b3261e;--r:#8a5a00}\
@media(prefers-color-scheme:dark){:root{--b:#15191a;--i:#dfe6e4;--l:#465556;--c:#1e2526;--a:#6fc7bf;--f:#ff8a80;--r:#e8b44f}}\
*{box-sizing:border-box}body{margin:0;background:var(--b);color:var(--i);font:15px/1.5 system-ui,sans-serif}\
main{max-width:70em;margin:2.5em auto;padding:0 1.5em}main>p{margin:0}h1{font-size:1.7em;line-height:1.25;margin:.1em 0;\
color:var(--f)}h1::before{content:'does not hold: ';font-weight:400;color:var(--i)}main>.w{margin:.3em 0 1.8em;\
font-size:1.15em;overflow-wrap:anywhere}\
.g{display:grid;grid-template-columns:max-content repeat(var(--n),minmax(8.5em,1fr));gap:.4em 1em;align-items:end;\
overflow-x:auto;padding:0 .2em .6em 0}.h{text-align:center;grid-row:1}.t{grid-column:1;text-align:right;white-space:nowrap;\
font:12px/1.9 ui-monospace,monospace;opacity:.75}.t.j{padding-top:1.6em}\
.g>i{justify-self:center;align-self:stretch;margin:-.2em 0;border-left:2px solid var(--l)}\
.s{justify-self:center;z-index:1;background:var(--c);border:1px solid var(--l);border-radius:.5em;padding:.15em .6em;\
font:13px/1.45 ui-monospace,monospace}.s>span{display:inline-block;max-width:100%;overflow-wrap:anywhere}\
.s::before{opacity:.85;margin-right:.45em}.k::before{content:'\\25B8'}.e::before{content:'\\25CF'}.c::before{content:'\\2713'}\
.a::before{content:'\\21C4'}.r::before{content:'\\21BB'}.f::before{content:'\\2716'}.c{border-color:var(--a);color:var(--a)}\
.e{background:var(--a);color:var(--b);border-color:var(--a)}.a{border:1px dashed var(--r);color:var(--r)}\
.f{background:var(--f);color:var(--b);border-color:var(--f);font-weight:700}.x{outline:3px solid var(--f);outline-offset:2px}\
.x::after{content:'here';color:var(--f);background:var(--c);font-weight:700;margin-left:.6em;padding:0 .3em}\
hr{grid-column:2/-1;border:0;border-top:2px dashed var(--f);width:100%;margin:0;opacity:.6;align-self:center}\
main>.l{margin-top:1.6em;opacity:.85}.l .s{display:inline-block;font-size:12px;margin:.15em 0}\
footer{margin:1em 0 3em;opacity:.8;font-size:.9em}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.4em 0}\
@media(max-width:40em){main{margin:1em auto;padding:0 .8em}h1{font-size:1.3em}.g{gap:.35em .4em}.s{font-size:11.5px;\
padding:.1em .4em}}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_between_words_and_a_long_word_anywhere() {
        assert_eq!(wrapped("take 0@orders-0", 40), ["take 0@orders-0"]);
        assert_eq!(
            wrapped("assigned (generation 1) orders-0 orders-1", 25),
            ["assigned (generation 1)", "  orders-0 orders-1"]
        );
        assert_eq!(wrapped("fail abcdefghijklmnop", 8), ["fail", "  abcdef", "  ghijkl", "  mnop"]);
        assert_eq!(wrapped("abcdefghijkl", 8), ["abcdefgh", "  ijkl"]);
    }

    #[test]
    fn a_table_is_no_wider_than_a_terminal_where_that_is_possible() {
        assert_eq!(narrowed(vec![41, 41, 8]), [26, 26, 8]);
        assert_eq!(narrowed(vec![30, 20]), [30, 20]);
        assert_eq!(narrowed(vec![40; 9]), [12; 9]);
    }
}
