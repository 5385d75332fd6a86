//! Failures that were saved: text files that a person can read and a repository can keep. The one file of the kit that
//! touches files.
//!
//! ```text
//! # no record lost: group billing is done, and has never processed: 1@orders-0
//! # found by seed 17
//! records 2
//! scope 1 1
//! tape 0 0 3 0 1
//! ```
//!
//! `records`: how many each topic has at most. `scope`: faults and preemptions, if all schedules were tried. `tape`: the
//! choices; zeros follow.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sim::check::{Origin, Plan};
use crate::sim::faults::Scope;
use crate::sim::outcome::Broken;

/// A failure that was saved.
pub(crate) struct Saved {
    pub(crate) file: PathBuf,
    pub(crate) plan: Plan,
}

impl Saved {
    pub(crate) fn text(plan: &Plan, broken: &Broken, origin: &Origin) -> String {
        let says = broken.says.replace('\n', " ");
        let origin = match origin {
            Origin::Seed(seed) => format!("seed {seed}"),
            Origin::Schedule(number) => format!("schedule {number} of the scope"),
            Origin::Saved(_) | Origin::Bytes => "another failure".to_owned(),
        };
        let mut text = format!("# {}: {says}\n# found by {origin}\n", broken.guarantee);
        if plan.most_records != usize::MAX {
            text.push_str(&format!("records {}\n", plan.most_records));
        }
        if let Some(scope) = &plan.scope {
            text.push_str(&format!("scope {} {}\n", scope.faults, scope.preemptions));
        }
        let numbers: Vec<String> = plan.numbers.iter().map(u32::to_string).collect();
        text.push_str(&format!("tape {}\n", numbers.join(" ")));
        text
    }

    /// What a file says. `None`: it is none of ours, or was damaged.
    fn parse(text: &str) -> Option<Plan> {
        let mut plan = Plan { numbers: Vec::new(), scope: None, most_records: usize::MAX };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("records") => plan.most_records = words.next()?.parse().ok()?,
                Some("scope") => {
                    let (faults, preemptions) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                    plan.scope = Some(Scope { faults, preemptions, ..Scope::default() });
                }
                Some("tape") => plan.numbers = words.map(str::parse).collect::<Result<_, _>>().ok()?,
                Some(_) => return None,
                None => {}
            }
        }
        Some(plan)
    }
}

/// The failures of a test that were saved, in the order of their names.
///
/// # Panics
///
/// Panics if a file with its name is not one: a test that runs less than it says helps nobody.
pub(crate) fn load(folder: &Path, name: &str) -> Vec<Saved> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let is_ours = |file: &PathBuf| {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        // The name, a dot, and the number that tells the failures of one test apart.
        file.extension().is_some_and(|extension| extension == "tape")
            && stem.rsplit_once('.').is_some_and(|(test, _)| test == name)
    };
    let read = |file: PathBuf| {
        let plan = fs::read_to_string(&file).ok().as_deref().and_then(Saved::parse);
        let plan = plan.unwrap_or_else(|| panic!("{} is not a saved failure; remove it", file.display()));
        Saved { file, plan }
    };
    files.into_iter().filter(is_ours).map(read).collect()
}

/// Saves a failure. `None`: the folder cannot be written, which the report says.
pub(crate) fn save(folder: &Path, name: &str, text: &str) -> Option<PathBuf> {
    let number = text.bytes().fold(0xcbf2_9ce4_u32, |print, byte| (print ^ u32::from(byte)).wrapping_mul(16_777_619));
    let file = folder.join(format!("{name}.{number:08x}.tape"));
    fs::create_dir_all(folder).and_then(|()| fs::write(&file, text)).ok().map(|()| file)
}

/// Writes a page, and says so in words.
pub(crate) fn write_page(file: &Path, html: &str) -> String {
    match fs::write(file, html) {
        Ok(()) => format!("  timeline: {}\n", file.display()),
        Err(error) => format!("  the timeline could not be written to {}: {error}\n", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again() {
        let plan = Plan {
            numbers: vec![0, 3, 1],
            scope: Some(Scope { faults: 2, preemptions: 3, ..Scope::default() }),
            most_records: 4,
        };
        let broken = Broken { guarantee: "no record lost", says: "two\nlines".to_owned() };

        let text = Saved::text(&plan, &broken, &Origin::Seed(7));
        let read = Saved::parse(&text).unwrap();

        assert_eq!((read.numbers, read.scope, read.most_records), (plan.numbers, plan.scope, plan.most_records));
        assert!(Saved::parse("tape 1 x").is_none() && Saved::parse("nonsense").is_none());
    }
}
