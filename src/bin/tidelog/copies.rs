//! `tidelog fork` and `tidelog backup`.

use std::path::Path;

use serde_json::json;
use tidelog::Copied;
use tidelog::inspect::Progress;

use crate::args::Arguments;
use crate::failure::Outcome;
use crate::inspect::progress_bar;
use crate::output::{Output, Screen, grouped};
use crate::topics::open_for_reading;

pub(crate) fn fork(arguments: &Arguments, copy: &Path) -> Outcome {
    let copied = open_for_reading(arguments)?.fork(copy)?;
    show(arguments, "fork", &copied)
}

pub(crate) fn backup(arguments: &Arguments, copy: &Path, previous: Option<&Path>) -> Outcome {
    let bar = progress_bar();
    let copied = open_for_reading(arguments)?.backup(copy, previous, |progress: Progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    })?;
    bar.finish_and_clear();
    show(arguments, "backup", &copied)
}

fn show(arguments: &Arguments, kind: &str, copied: &Copied) -> Outcome {
    let mut screen = Screen::new();
    let (shared, files) = (copied.shared as u64, copied.copied as u64);
    match arguments.output {
        Output::Json => screen.json(&json!({
            "path": copied.path.display().to_string(),
            "shared_segments": shared,
            "copied_segments": files,
            "copied_bytes": copied.copied_bytes,
        }))?,
        Output::Text => screen.line(&format!(
            "made {kind} {}: {} segments shared, {} segments with {} bytes copied",
            copied.path.display(),
            grouped(shared),
            grouped(files),
            grouped(copied.copied_bytes)
        ))?,
    }
    screen.flush()
}
