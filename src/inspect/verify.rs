//! Reads every byte of a log and reports every finding.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::catalog::{drop_doubles, holds_records, plausible};
use crate::env::Env;
use crate::env::storage::Access;
use crate::error::{Error, Flaw, Result};
use crate::format::batch::Batch;
use crate::format::catalog::{Cut, Fact, TopicFact};
use crate::format::committed::{self, Committed};
use crate::format::segment::{HEADER_BYTES, Identity, group_id};
use crate::inspect::survey::{self, Place, PlaceKind, Surveyed};
use crate::inspect::{Finding, FindingClass, Progress};
use crate::types::{Offset, TopicPartition};

/// What a verification found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segment files that were read.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whole records, those of catalog and groups too.
    pub records: u64,
    /// Everything that somebody should know.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing that was promised is lost, foreign or out of place.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.class.is_harmless())
    }
}

/// Reads every byte of the log in a directory and reports everything that is not as it should be. Changes nothing,
/// takes no lock, and does not need a log that opens; `progress` is called after each file.
///
/// Beside a process that writes, what is being written may show as a torn tail.
///
/// # Errors
///
/// [`NotALog`](Error::NotALog) if there is neither catalog nor topics; [`Io`](Error::Io) if a file cannot be read.
pub fn verify(path: impl AsRef<Path>, progress: impl FnMut(Progress)) -> Result<VerifyReport> {
    verify_in(&Env::real(path.as_ref(), false)?, progress)
}

pub(crate) fn verify_in(env: &Env, mut progress: impl FnMut(Progress)) -> Result<VerifyReport> {
    let places = survey::places(env)?;
    if places.is_empty() {
        return Err(Error::NotALog { path: env.storage.root().to_path_buf() });
    }
    let mut verification = Verification::new(env, &places)?;
    let recorded = recorded(env, &places)?;
    for place in &places {
        let partition = verification.read_place(place, recorded.get(&place.name).copied(), &mut progress)?;
        verification.partitions.insert(place.name.clone(), partition);
    }
    verification.check_catalog(&places)?;
    verification.check_groups(&places)?;
    Ok(verification.report)
}

/// What the segments of a place hold together.
#[derive(Debug)]
pub(super) struct PlaceSurvey {
    /// Whose segments these are; `None` if no header says so.
    pub(super) identity: Option<Identity>,
    pub(super) segments: Vec<Surveyed>,
    /// Foreign files whose names are offsets that the segment before them holds.
    strays: Vec<Surveyed>,
    /// The highest durable end offset that any segment says, or the catalog.
    pub(super) witness: Offset,
    /// Everything below was deleted on purpose.
    pub(super) start: Offset,
    /// Where the place was cut last.
    pub(super) cut: Option<Cut>,
    /// Whether all that there was has been cut off on purpose, so that no segment is missed.
    all_cut: bool,
}

impl PlaceSurvey {
    /// The foreign files that the next opening sets aside: strays, and what stands behind the end.
    pub(super) fn set_aside(&self) -> impl Iterator<Item = &Surveyed> {
        self.segments[self.counted()..].iter().chain(&self.strays).filter(|segment| segment.is_foreign())
    }

    /// How many of the segments count: behind a torn tail none does, and opening the log for writing removes them.
    pub(super) fn counted(&self) -> usize {
        let torn = |at: usize| {
            let segment = &self.segments[at];
            let successor = self.segments.get(at + 1)?;
            let end = segment.until(Some(successor))?;
            let holes = segment.holes.iter().map(|(hole, _)| hole.first).filter(|first| *first < end);
            let gap = (end < successor.base).then_some(end);
            let short = (segment.header.is_ok() && segment.next < end).then_some(segment.next);
            let torn = |offset: Offset| segment.is_torn_at(offset, self.witness);
            holes.chain(gap).chain(short).any(torn).then_some(at + 1)
        };
        (0..self.segments.len()).find_map(torn).unwrap_or(self.segments.len())
    }
}

/// What the catalog says of a place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recorded {
    /// The log that all places belong to.
    log: Option<u128>,
    /// Whose segments lie there; `None`: it does not know the place.
    identity: Option<Identity>,
    /// Everything below was deleted on purpose.
    start: Offset,
    /// Everything below was durable when the log was closed last.
    end: Offset,
    /// Where it was cut last.
    cut: Option<Cut>,
}

/// What the catalog says of the places beside its own, by their names: whose they are, where they begin, and where they
/// ended when the log was closed last. Of what it has lost it says nothing, except for the log, which all headers say.
pub(super) fn recorded(env: &Env, places: &[Place]) -> Result<BTreeMap<String, Recorded>> {
    let (mut topics, mut by_id, mut log) = (BTreeMap::new(), BTreeMap::<_, Recorded>::new(), None);
    if let Some(catalog) = places.iter().find(|place| place.kind == PlaceKind::Catalog) {
        let catalog = survey_place(env, catalog, None, |_| {})?;
        log = catalog.identity.map(|identity| identity.log);
        for (key, value, ..) in last_values(env, &catalog)? {
            match Fact::decode(&key, Some(&value)) {
                Ok(Fact::Topic(name, fact)) => drop(topics.insert(name, fact)),
                Ok(Fact::End(id, partition, end)) => by_id.entry((id, partition)).or_default().end = end,
                Ok(Fact::Start(id, partition, start)) => by_id.entry((id, partition)).or_default().start = start,
                Ok(Fact::Cut(id, partition, cut)) => by_id.entry((id, partition)).or_default().cut = Some(cut),
                _ => {}
            }
        }
    }
    drop_doubles(&mut topics);
    if log.is_none() {
        log = survey::log_of(env, places)?;
    }
    let mut recorded = BTreeMap::new();
    for place in places {
        let id = match &place.kind {
            PlaceKind::Catalog => continue,
            PlaceKind::Group(group) => Some((group_id(group), 0)),
            PlaceKind::Partition { topic, number } => topics.get(topic).map(|fact| (fact.id, *number)),
        };
        let said = id.and_then(|id| by_id.get(&id)).copied().unwrap_or_default();
        let identity = log.zip(id).map(|(log, (topic, partition))| Identity { log, topic, partition });
        recorded.insert(place.name.clone(), Recorded { log, identity, ..said });
    }
    Ok(recorded)
}

/// Surveys all segments of a place. Each is told where its successor says that it ended. `recorded`: what the catalog
/// says; segments that hold nothing but what was deleted or cut off on purpose are left out, the next opening removes them.
pub(super) fn survey_place(
    env: &Env,
    place: &Place,
    recorded: Option<Recorded>,
    mut each: impl FnMut(&Surveyed),
) -> Result<PlaceSurvey> {
    let Recorded { log, identity, start, end, cut } = recorded.unwrap_or_default();
    let files = survey::segment_files(env, &place.dir)?;
    let identity = match identity {
        Some(identity) => Some(identity),
        None => survey::identity_of(env, place, &files, log)?,
    };
    let files = survey::drop_replaced(env, identity, files, cut)?;
    let (mut segments, mut strays): (Vec<Surveyed>, Vec<Surveyed>) = Default::default();
    for file in files.into_iter().rev() {
        let successor = segments.iter().rfind(|segment| !segment.is_foreign());
        let mut surveyed = survey::survey(env, identity, file.clone(), successor, cut)?;
        if !surveyed.is_foreign() {
            while segments.last().is_some_and(|next| next.is_foreign() && next.base < surveyed.next) {
                strays.extend(segments.pop());
            }
            if segments.last().is_some_and(Surveyed::is_foreign) {
                surveyed = survey::survey(env, identity, file, segments.last(), cut)?;
            }
        }
        if surveyed.cut.is_some_and(|cut| surveyed.base >= cut.end) {
            continue;
        }
        each(&surveyed);
        segments.push(surveyed);
    }
    segments.reverse();
    let deleted = segments.partition_point(|segment| segment.base <= start).saturating_sub(1);
    segments.drain(..deleted);
    let witness = segments.iter().map(|segment| segment.witness).fold(start.max(end), Offset::max);
    let all_cut = cut.is_some_and(|cut| cut.end <= start) && witness <= start;
    Ok(PlaceSurvey { identity, segments, strays, witness, start, cut, all_cut })
}

struct Verification<'a> {
    env: &'a Env,
    report: VerifyReport,
    progress: Progress,
    partitions: BTreeMap<String, PlaceSurvey>,
    topics: BTreeMap<String, TopicFact>,
}

impl<'a> Verification<'a> {
    fn new(env: &'a Env, places: &[Place]) -> Result<Self> {
        let mut total_bytes = 0;
        for place in places {
            for (_, path) in survey::segment_files(env, &place.dir)? {
                total_bytes += survey::map(env, &path, Access::Read)?.map_or(0, |(_, pen)| pen.region().valid());
            }
        }
        let progress = Progress { done_bytes: 0, total_bytes };
        let (report, partitions, topics) = (VerifyReport::default(), BTreeMap::new(), BTreeMap::new());
        Ok(Verification { env, report, progress, partitions, topics })
    }

    fn read_place(
        &mut self,
        place: &Place,
        recorded: Option<Recorded>,
        progress: &mut impl FnMut(Progress),
    ) -> Result<PlaceSurvey> {
        let mut position = self.progress;
        let survey = survey_place(self.env, place, recorded, |segment| {
            position.done_bytes += segment.length;
            progress(position);
        })?;
        self.progress = position;
        self.report.segments += survey.segments.len();
        self.report.bytes += survey.segments.iter().map(|segment| segment.length).sum::<u64>();
        self.report.records += survey.segments.iter().map(|segment| segment.records).sum::<u64>();
        let report = &mut self.report.findings;
        let mut find = |class, path: &Path, position, offsets, message: String| {
            let path = self.env.storage.root().join(path);
            report.push(Finding { class, place: place.name.clone(), offsets, path, position, message });
        };
        if survey.segments.is_empty() && !survey.all_cut {
            let message = "no segment is left; how many records there were, nothing says".to_owned();
            find(FindingClass::Missing, &place.dir, 0, Offset::ZERO..Offset::ZERO, message);
        }
        if !matches!(place.kind, PlaceKind::Partition { .. })
            && let Some(lost) = lost_front(self.env, &survey)?
        {
            let message = "the beginning of the table is not there, and nothing says it again".to_owned();
            find(FindingClass::Missing, &survey.segments[0].path, 0, lost, message);
        }
        let (counted, torn_off) = survey.segments.split_at(survey.counted());
        for (at, segment) in counted.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| &counted[before]);
            check_segment(place, &survey, before, segment, survey.segments.get(at + 1), &mut find);
        }
        for segment in torn_off.iter().filter(|segment| !segment.is_foreign()) {
            let message = "it stands behind a torn tail, and opening the log removes it".to_owned();
            find(FindingClass::TornTail, &segment.path, 0, segment.base..segment.base, message);
        }
        for segment in survey.set_aside() {
            let message = format!("{}; opening the log sets it aside", Flaw::Foreign);
            find(FindingClass::Foreign, &segment.path, 0, segment.base..segment.base, message);
        }
        Ok(survey)
    }

    /// The facts of the catalog against the directories.
    fn check_catalog(&mut self, places: &[Place]) -> Result<()> {
        let Some(place) = places.iter().find(|place| place.kind == PlaceKind::Catalog) else {
            let message = "there is no catalog; opening the log rebuilds it from the directories of the topics";
            self.find(FindingClass::Catalog, "catalog", Path::new("catalog"), message.to_owned());
            return Ok(());
        };
        for (key, value, path, _) in last_values(self.env, &self.partitions[&place.name])? {
            match Fact::decode(&key, Some(&value)).and_then(plausible) {
                Ok(Fact::Topic(name, fact)) => drop(self.topics.insert(name, fact)),
                Ok(Fact::Group(group)) if !self.partitions.contains_key(&format!("group {group}")) => {
                    let dir = Path::new("groups").join(committed::directory_name(&group));
                    let message = "the directory of a group that the catalog knows is not there".to_owned();
                    self.find(FindingClass::Missing, &format!("group {group}"), &dir, message);
                }
                Ok(_) => {}
                Err(flaw) => {
                    let message = format!("the entry {:?} makes no sense: {flaw}", String::from_utf8_lossy(&key));
                    self.find(FindingClass::Catalog, "catalog", &path, message);
                }
            }
        }
        for topic in drop_doubles(&mut self.topics) {
            let message = "it has the id of another topic; opening the log leaves it alone".to_owned();
            self.find(FindingClass::Catalog, &topic, &Path::new("topics").join(&topic), message);
        }
        let topics = self.topics.clone();
        for (topic, fact) in &topics {
            let there = |number: &u32| self.partitions.contains_key(&format!("{topic}-{number}"));
            let gone: Vec<u32> = (0..fact.partitions).filter(|number| !there(number)).collect();
            for number in gone {
                let dir = PathBuf::from("topics").join(topic).join(number.to_string());
                let message = "the directory of a partition that the catalog knows is not there".to_owned();
                self.find(FindingClass::Missing, &format!("{topic}-{number}"), &dir, message);
            }
        }
        for place in places {
            if let PlaceKind::Partition { topic, number } = &place.kind {
                let message = match topics.get(topic) {
                    None => "the catalog does not know this topic",
                    Some(fact) if *number >= fact.partitions => "the catalog knows fewer partitions of this topic",
                    Some(_) => continue,
                };
                self.find(FindingClass::Catalog, &place.name, &place.dir, message.to_owned());
            }
        }
        self.check_strangers(places)
    }

    /// The directories of topics without a partition, which are no places: opening the log reports those that hold records.
    fn check_strangers(&mut self, places: &[Place]) -> Result<()> {
        for (name, dir) in survey::topics(self.env)? {
            let is_place = |place: &Place| place.dir.parent() == Some(&dir);
            if !self.topics.contains_key(&name) && !places.iter().any(is_place) && holds_records(self.env, &dir)? {
                let message = "the catalog does not know this topic, and no partition is in its directory".to_owned();
                self.find(FindingClass::Catalog, &name, &dir, message);
            }
        }
        Ok(())
    }

    /// The committed offsets of the groups against the ends of the partitions.
    fn check_groups(&mut self, places: &[Place]) -> Result<()> {
        for place in places.iter().filter(|place| matches!(place.kind, PlaceKind::Group(_))) {
            for (key, value, path, _) in last_values(self.env, &self.partitions[&place.name])? {
                let decoded =
                    committed::decode_key(&key).and_then(|partition| Ok((partition, committed::decode_value(&value)?)));
                match decoded {
                    Ok((partition, committed)) => self.check_committed(place, &path, &partition, &committed),
                    Err(flaw) => {
                        let message = format!("the entry {:?} makes no sense: {flaw}", String::from_utf8_lossy(&key));
                        self.find(FindingClass::Committed, &place.name, &path, message);
                    }
                }
            }
        }
        Ok(())
    }

    fn check_committed(&mut self, place: &Place, path: &Path, partition: &TopicPartition, committed: &Committed) {
        let of_this_topic = self.topics.get(partition.topic()).is_some_and(|fact| fact.id == committed.topic_id);
        let Some(survey) = self.partitions.get(&partition.to_string()).filter(|_| of_this_topic) else { return };
        let end = survey.segments.last().map_or(Offset::ZERO, |segment| segment.next).max(survey.witness);
        let offset = committed.offset.offset;
        if offset > end {
            let message = format!("{offset} is committed for {partition}, which ends at {end}; opening pulls it back");
            self.find(FindingClass::Committed, &place.name, path, message);
        }
    }

    fn find(&mut self, class: FindingClass, place: &str, path: &Path, message: String) {
        let (path, offsets) = (self.env.storage.root().join(path), Offset::ZERO..Offset::ZERO);
        self.report.findings.push(Finding { class, place: place.to_owned(), offsets, path, position: 0, message });
    }
}

/// Everything that can be wrong with a segment, by itself and between its neighbours.
fn check_segment(
    place: &Place,
    survey: &PlaceSurvey,
    before: Option<&Surveyed>,
    segment: &Surveyed,
    successor: Option<&Surveyed>,
    find: &mut impl FnMut(FindingClass, &Path, u64, Range<Offset>, String),
) {
    let path = &segment.path;
    let named = segment.until(successor);
    let until = named.unwrap_or(segment.next.max(survey.witness));
    match &segment.header {
        Ok(_) => {}
        Err(Flaw::Foreign) => {
            find(FindingClass::Foreign, path, 0, segment.base..until, Flaw::Foreign.to_string());
            return;
        }
        Err(flaw) => {
            let class = if *flaw == Flaw::Missing { FindingClass::Missing } else { FindingClass::Damaged };
            find(class, path, 0, segment.base..until, format!("the header: {flaw}"));
            return;
        }
    }
    let first_of_topic = before.is_none() && matches!(place.kind, PlaceKind::Partition { .. });
    if first_of_topic && segment.base > survey.start {
        let gone = path.with_file_name(crate::format::segment::file_name(survey.start));
        let message = "the first segment is not there".to_owned();
        find(FindingClass::Missing, &gone, 0, survey.start..segment.base, message);
    }
    if let Some(gap) = before.and_then(|before| before.until(Some(segment))).filter(|gap| *gap < segment.base) {
        let gone = path.with_file_name(crate::format::segment::file_name(gap));
        find(FindingClass::Missing, &gone, 0, gap..segment.base, "the segment is not there".to_owned());
    }
    for (hole, _) in &segment.holes {
        let torn = segment.is_torn_at(hole.first, survey.witness);
        let class = if torn { FindingClass::TornTail } else { FindingClass::Damaged };
        find(class, path, hole.start, hole.first..hole.next, hole.flaw.to_string());
    }
    check_end(segment, survey.witness, successor, find);
}

/// Where a segment ends against where it should.
fn check_end(
    segment: &Surveyed,
    witness: Offset,
    successor: Option<&Surveyed>,
    find: &mut impl FnMut(FindingClass, &Path, u64, Range<Offset>, String),
) {
    let path = &segment.path;
    let named = segment.until(successor);
    let promised = segment.promised(named, witness);
    if segment.next < promised {
        let cut_short = segment.end_position(successor) > Some(segment.length);
        let flaw = segment.tail.filter(|_| !cut_short).unwrap_or(Flaw::Missing);
        let class = if flaw == Flaw::Missing { FindingClass::Missing } else { FindingClass::Damaged };
        find(class, path, segment.end, segment.next..named.unwrap_or(promised), flaw.to_string());
    } else if let Some(flaw) = segment.tail.filter(|_| !segment.rolled) {
        let message = format!("{flaw}; it was never promised, and opening the log cuts it");
        find(FindingClass::TornTail, path, segment.end, segment.next..segment.next, message);
    }
    let behind_roll = segment.rolled && named.is_none() && segment.next >= promised;
    if behind_roll || segment.misses_successor(successor) || segment.lost_behind_cut(successor, witness).is_some() {
        let next = named.unwrap_or(segment.next);
        let gone = path.with_file_name(crate::format::segment::file_name(next));
        let message = "the segment is not there, and how much it held is not known".to_owned();
        find(FindingClass::Missing, &gone, 0, next..next.saturating_advance(1), message);
    }
}

/// An entry of a table: key, value, and where it stands.
type TableEntry = (Vec<u8>, Vec<u8>, PathBuf, u64);

/// The offsets in front of a table that are missing: it begins behind them, and was not said again from there on.
pub(super) fn lost_front(env: &Env, survey: &PlaceSurvey) -> Result<Option<Range<Offset>>> {
    let start = survey.segments.first().map_or(Offset::ZERO, |segment| segment.base);
    let again = |(key, ..): &TableEntry| key.is_empty();
    let whole_from = match table_values(env, survey)?.into_iter().find(again) {
        Some((_, value, ..)) => Offset::new(value.try_into().map_or(0, u64::from_le_bytes)),
        None => Offset::ZERO,
    };
    Ok((whole_from < start).then_some(Offset::ZERO..start))
}

/// The last value of each key of a table.
fn last_values(env: &Env, survey: &PlaceSurvey) -> Result<Vec<TableEntry>> {
    let mut values = table_values(env, survey)?;
    // The end of a rewrite says nothing of its own.
    values.retain(|(key, ..)| !key.is_empty());
    Ok(values)
}

/// The last value of each key of a table and, without a key, where it was said again last, by reading its whole batches.
fn table_values(env: &Env, survey: &PlaceSurvey) -> Result<Vec<TableEntry>> {
    let mut values: BTreeMap<Vec<u8>, (Vec<u8>, PathBuf, u64)> = BTreeMap::new();
    for segment in survey.segments.iter().filter(|segment| segment.header.is_ok()) {
        let Some((_, pen)) = survey::map(env, &segment.path, Access::Read)? else { continue };
        let bytes = pen.unread(0..segment.end.min(pen.region().valid()));
        let mut position = HEADER_BYTES;
        while position < segment.end {
            if let Some((hole, _)) = segment.holes.iter().find(|(hole, _)| hole.start == position) {
                position = hole.end;
                continue;
            }
            let Ok(Some(batch)) = Batch::at(&bytes[position as usize..]) else { break };
            for record in batch.records() {
                let key = record.key.unwrap_or_default().to_vec();
                match record.value {
                    Some(value) => drop(values.insert(key, (value.to_vec(), segment.path.clone(), position))),
                    None => drop(values.remove(&key)),
                }
            }
            position += batch.length();
        }
    }
    Ok(values.into_iter().map(|(key, (value, path, position))| (key, value, path, position)).collect())
}
