//! `tidelog compact`.

use serde_json::json;
use tidelog::{Compacted, CompactionProgress, LogConfig};

use crate::args::{Arguments, Compact};
use crate::failure::Outcome;
use crate::inspect::progress_bar;
use crate::offsets::partitions;
use crate::output::{Output, Screen, grouped};
use crate::topics::open_for_reading;

pub(crate) fn run(arguments: &Arguments, what: &Compact) -> Outcome {
    let topic = what.topic.name();
    let log = if what.dry_run {
        open_for_reading(arguments)?
    } else {
        let mut config = LogConfig::new().create(false).background(false);
        if let Some(bytes) = what.memory {
            config = config.compaction_memory(bytes);
        }
        crate::topics::open_with(arguments, config)?
    };
    let mut screen = Screen::new();
    for name in partitions(&log, topic, &what.partitions)? {
        let done = if what.dry_run {
            log.plan_compaction(&name)?
        } else {
            let bar = progress_bar();
            let done = log.compact(&name, |progress: &CompactionProgress| {
                bar.set_length(progress.total_bytes);
                bar.set_position(progress.done_bytes);
            });
            bar.finish_and_clear();
            done?
        };
        show(&mut screen, arguments.output, what.dry_run, &done)?;
    }
    log.close()?;
    screen.flush()
}

fn show(screen: &mut Screen, output: Output, dry_run: bool, done: &Compacted) -> Outcome {
    let removed = done.superseded + done.tombstones + done.keyless;
    if output == Output::Json {
        return screen.json(&json!({
            "topic": done.partition.topic(),
            "partition": done.partition.partition(),
            "dry_run": dry_run,
            "clean_end": done.clean_end.get(),
            "passes": done.passes,
            "removed": removed,
            "superseded": done.superseded,
            "tombstones": done.tombstones,
            "keyless": done.keyless,
            "records": done.records,
            "segments_before": done.segments_before,
            "segments_after": done.segments_after,
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
        }));
    }
    let (partition, records) = (&done.partition, done.records);
    let kinds = format!(
        "{} superseded, {} expired tombstones, {} without key",
        grouped(done.superseded),
        grouped(done.tombstones),
        grouped(done.keyless)
    );
    let (removed, records) = (grouped(removed), grouped(records));
    if dry_run {
        return screen.line(&format!(
            "{partition}: would remove {removed} records ({kinds}) and keep {records} below offset {}; {} bytes now",
            done.clean_end,
            grouped(done.bytes_before)
        ));
    }
    screen.line(&format!(
        "{partition}: removed {removed} records ({kinds}), kept {records} below offset {}; {} segments of {} bytes became {} of {}",
        done.clean_end,
        done.segments_before,
        grouped(done.bytes_before),
        done.segments_after,
        grouped(done.bytes_after)
    ))
}
