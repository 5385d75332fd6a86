//! The command-line tool of tidelog: a user of the library like any other.
//!
//! | file       | what it does                                                            |
//! |------------|-------------------------------------------------------------------------|
//! | `args`     | what can be said on the command line, in Kafka's spelling too            |
//! | `failure`  | what went wrong, in one line with the next step, and the exit code       |
//! | `output`   | standard output, standard error, tables, JSON, base64                    |
//! | `template` | `--format '%p %o %v'`                                                    |
//! | `moment`   | `--from-time '2h ago'`                                                  |
//! | `topics`, `groups`, `offsets`, `produce`, `consume`, `compact`, `stats`, `copies`, `inspect` | the commands |
//! | `demo`     | the whole model in a few seconds, killed in the middle                   |
//!
//! What only reads opens the log read-only, and so works beside the process that writes it.

mod args;
mod compact;
mod consume;
mod copies;
mod demo;
mod failure;
mod groups;
mod inspect;
mod moment;
mod offsets;
mod output;
mod produce;
mod stats;
mod template;
mod topics;

use std::process::ExitCode;

use crate::args::{Arguments, Command};
use crate::failure::{Failure, Outcome};
use crate::output::complain;

fn main() -> ExitCode {
    let arguments = args::parse();
    match run(&arguments) {
        // Whoever read our output has enough.
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Told { message, code }) => {
            complain(&format!("error: {message}"));
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &Arguments) -> Outcome {
    arguments.cluster.check()?;
    let result = match &arguments.command {
        Command::Topics { action } => topics::run(arguments, action),
        Command::Produce(what) => produce::run(arguments, what),
        Command::Consume(what) => consume::run(arguments, what),
        Command::Groups { action } => groups::run(arguments, action),
        Command::Offsets(what) => offsets::run(arguments, what),
        Command::DeleteRecords(what) => offsets::delete_records(arguments, what),
        Command::Compact(what) => compact::run(arguments, what),
        Command::Stats => stats::run(arguments),
        Command::Fork { copy } => copies::fork(arguments, copy),
        Command::Backup { copy, previous } => copies::backup(arguments, copy, previous.as_deref()),
        Command::Verify => inspect::verify(arguments),
        Command::Dump { file, bytes } => inspect::dump(arguments, file, *bytes),
        Command::Repair { execute } => inspect::repair(arguments, *execute),
        Command::Demo { dir, events } => demo::run(dir.as_deref(), *events, arguments.output),
        Command::DemoProduce(what) => demo::child::produce(&arguments.dir, what),
        Command::DemoConsume(what) => demo::child::consume(&arguments.dir, what),
    };
    result.map_err(|failure| failure.in_directory(&arguments.dir))
}
