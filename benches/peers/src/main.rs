//! tidelog beside others that a program could link: the same work, the same bytes, read back.
//!
//! `cargo run --release` measures everything in about 11 minutes and prints Markdown; `-- --quick` does less of
//! the same, to see that it runs. `--only append-100,redb` takes these rows and peers alone, `--list` names them, and
//! `--directory DIR` says where the files go (beside the program otherwise: on a disk, if the build is on one).
//!
//! - **One process for each figure.** A peer cannot disturb another, and one that hangs or dies is a cell of the table.
//! - **Repetitions go round.** Each row is measured of one peer after the other, and then all over again, so that a noisy
//!   minute touches all alike; the figure is the median.
//! - **All is read back.** Outside of what is timed, each record is compared with what was appended: order, bytes, count.
//!   Only what cannot be read back in the time is checked by the number in each record, as it comes.
//! - **The slow do less.** A piece of work ends after half a second; the figure is then that of the records until
//!   there. What is opened again is what was written in five seconds.
//! - **The cheapest mode that survives kill -9** is what is measured where nothing is synced, and where one has no such
//!   mode, its syncs are part of the figure.

mod child;
// The machine's own limit, shared with the benchmarks of the library.
#[path = "../../limit/mod.rs"]
mod limit;
mod peer;
mod peers;
mod records;
mod report;
mod roster;
mod work;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::child::{Outcome, Parent};
use crate::peer::Result;
use crate::report::Results;
use crate::roster::{COLUMNS, Column, Contender, roster};
use crate::work::Effort;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some(child::FLAG) => child::run(&arguments[1..]),
        _ => Arguments::parse(&arguments).and_then(|arguments| compare(&arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Arguments {
    quick: bool,
    list: bool,
    repetitions: usize,
    only: Vec<String>,
    directory: Option<PathBuf>,
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Self> {
        let mut parsed = Arguments { quick: false, list: false, repetitions: 3, only: Vec::new(), directory: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--quick" => parsed.quick = true,
                "--list" => parsed.list = true,
                "--repetitions" => parsed.repetitions = value()?.parse()?,
                "--only" => parsed.only.extend(value()?.split(',').map(str::to_owned)),
                "--directory" => parsed.directory = Some(value()?.into()),
                _ => {
                    let known = "--quick, --list, --repetitions N, --only A,B and --directory DIR";
                    return Err(format!("`{word}` is unknown; there are {known}").into());
                }
            }
        }
        if parsed.repetitions == 0 {
            return Err("--repetitions wants at least 1".into());
        }
        Ok(parsed)
    }

    /// The rows and peers that are asked for: those that are named, or all of a kind of which none is named.
    fn chosen(&self) -> Result<(Vec<Column>, Vec<Contender>)> {
        let named = |name: &str| self.only.iter().any(|only| only == name);
        let unknown = self.only.iter().find(|only| {
            !COLUMNS.iter().any(|column| column.key == *only) && !roster().iter().any(|one| one.about.package == *only)
        });
        if let Some(only) = unknown {
            return Err(format!("there is no row and no peer `{only}`; --list names them").into());
        }
        let mut columns = COLUMNS.to_vec();
        if columns.iter().any(|column| named(column.key)) {
            columns.retain(|column| named(column.key));
        }
        let mut contenders = roster();
        if contenders.iter().any(|one| named(one.about.package)) {
            contenders.retain(|one| named(one.about.package));
        }
        Ok((columns, contenders))
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let (columns, contenders) = arguments.chosen()?;
    if arguments.list {
        println!("rows: {}", columns.iter().map(|column| column.key).collect::<Vec<_>>().join(" "));
        println!("peers: {}", contenders.iter().map(|one| one.about.package).collect::<Vec<_>>().join(" "));
        return Ok(());
    }
    let start = Instant::now();
    let parent = Parent::new(arguments.directory.as_deref(), arguments.quick)?;
    let mut results = Results::default();
    for column in &columns {
        for repetition in 0..arguments.repetitions {
            for one in &contenders {
                // What cannot be done cannot be done again.
                if !matches!(results.last(column, one), Some(Outcome::Unsupported(_))) {
                    let outcome = parent.measure(column, one)?;
                    let seconds = start.elapsed().as_secs();
                    eprintln!("{seconds:>4} s  {} {} {}: {outcome:?}", column.key, repetition + 1, one.about.package);
                    results.add(column, one, outcome);
                }
            }
        }
    }
    let took = start.elapsed();
    print!("{}", report::markdown(&columns, &contenders, &results, arguments.quick, arguments.repetitions, took));
    Ok(())
}

impl Effort {
    fn of(quick: bool) -> &'static Effort {
        if quick { &Effort::QUICK } else { &Effort::FULL }
    }
}
