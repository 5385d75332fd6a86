//! A reference decoder: slow, obvious, streaming, written from the specification alone (the rustdoc of `src/format`).
//!
//! It shares no code with the library, not even its types: two decoders that agree by sharing a mistake agree on nothing.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes that are read from the front, a few at a time. `None`: there are not so many.
pub struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Stream<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Stream { bytes, at: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, bytes: u32) -> Option<u128> {
        let mut number = 0;
        for place in 0..bytes {
            number |= u128::from(self.byte()?) << (8 * place);
        }
        Some(number)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|number| number as u32)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.number(8).map(|number| number as u64)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.number(16)
    }

    /// So many bytes, counted first: a length may say anything.
    fn bytes(&mut self, length: u32) -> Option<Vec<u8>> {
        if u64::from(length) > self.left() as u64 {
            return None;
        }
        (0..length).map(|_| self.byte()).collect()
    }

    pub fn text(&mut self) -> Option<String> {
        let length = self.u32()?;
        String::from_utf8(self.bytes(length)?).ok()
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether nothing is left but zeros.
    fn only_zeros_left(&self) -> bool {
        self.bytes[self.at..].iter().all(|byte| *byte == 0)
    }
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// zlib's `crc32(start, bytes)`.
pub fn crc32(start: u32, bytes: &[u8]) -> u32 {
    let next = |crc: u32, byte: &u8| CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    !bytes.iter().fold(!start, next)
}

// A batch --------------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: u64,
    pub timestamp: i64,
    pub append_time: bool,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub position: u64,
    pub length: u64,
    pub base: u64,
    pub next: u64,
    pub epoch: u32,
    /// Everything below was durable when it was written; 0: it does not say.
    pub durable_end: u64,
    pub marker: Option<u32>,
    pub records: Vec<Record>,
}

const ABSENT: u32 = u32::MAX;
/// The marker which says that the next segment has its name.
const ROLLED: u32 = 3;

/// What stands at the front of these bytes, if that is a batch, whatever its base offset and epoch.
pub fn batch(bytes: &[u8], salt: u32) -> Option<Batch> {
    let mut head = Stream::new(bytes);
    let (length, crc) = (head.u32()?, head.u32()?);
    if length < 44 || length % 8 != 0 || length as usize > bytes.len() {
        return None;
    }
    let body = &bytes[8..length as usize];
    if crc32(length ^ salt, body) != crc {
        return None;
    }
    let mut fields = Stream::new(body);
    let (base, base_timestamp) = (fields.u64()?, fields.u64()? as i64);
    let (count, span, epoch) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (lag, attributes) = (fields.u32()?, fields.u32()?);
    let attribute = |bit: u32| attributes >> bit & 1 == 1;
    let width = attributes >> 8 & 3;
    let refused = attributes & 0b111 != 0 || attribute(4) || width == 3 || attributes >> 12 != 0;
    let next = base.checked_add(u64::from(span))?;
    if refused {
        return None;
    }
    let durable_end = if lag == u32::MAX { 0 } else { base.saturating_sub(u64::from(lag)) };
    let mut batch =
        Batch { position: 0, length: u64::from(length), base, next, epoch, durable_end, marker: None, records: vec![] };
    if attribute(5) {
        let kind = fields.u32()?;
        batch.marker = Some(kind);
        let sound = attributes == 32 && count == 0 && span == 0 && (1..=3).contains(&kind);
        return (sound && fields.only_zeros_left()).then_some(batch);
    }
    let sparse = attribute(10);
    if span == 0 || count > span || (!sparse && count != 0 && count != span) {
        return None;
    }
    let extensions = if attribute(6) { 8 } else { 0 } + if attribute(7) { 16 } else { 0 };
    fields.bytes(extensions)?;
    let mut least = 0;
    for number in 0..count {
        let delta = match width {
            0 => 0,
            1 => i64::from(fields.u32()? as i32),
            _ => fields.u64()? as i64,
        };
        let ahead = if sparse { fields.u32()? } else { number };
        if ahead < least || ahead >= span {
            return None;
        }
        least = ahead + 1;
        let headers_length = if attribute(11) { fields.u32()? } else { 0 };
        let (key_length, value_length) = (fields.u32()?, fields.u32()?);
        let headers = headers(&fields.bytes(headers_length)?)?;
        let key = if key_length == ABSENT { None } else { Some(fields.bytes(key_length)?) };
        let value = if value_length == ABSENT { None } else { Some(fields.bytes(value_length)?) };
        batch.records.push(Record {
            offset: base + u64::from(ahead),
            timestamp: base_timestamp.wrapping_add(delta),
            append_time: attribute(3),
            key,
            value,
            headers,
        });
    }
    let padded = fields.only_zeros_left() && (fields.left() < 8 || count == 0);
    padded.then_some(batch)
}

fn headers(bytes: &[u8]) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let mut headers = Vec::new();
    if bytes.is_empty() {
        return Some(headers);
    }
    let mut fields = Stream::new(bytes);
    let count = fields.u32()?;
    for _ in 0..count {
        let (name_length, value_length) = (fields.u32()?, fields.u32()?);
        let name = String::from_utf8(fields.bytes(name_length)?).ok()?;
        let value = if value_length == ABSENT { None } else { Some(fields.bytes(value_length)?) };
        headers.push((name, value));
    }
    (count > 0 && fields.left() == 0).then_some(headers)
}

// A segment ------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub log_id: u128,
    pub topic_id: u128,
    pub partition: u32,
    pub epoch: u32,
    pub base: u64,
    pub predecessor: Option<(u64, u64)>,
    pub durable_end: u64,
    /// Of a compacted segment: where it ends.
    pub compacted_end: Option<u64>,
    pub crc: u32,
}

pub const HEADER_BYTES: u64 = 128;

/// The header of a segment, wherever it lies.
pub fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_BYTES as usize)?;
    let mut fields = Stream::new(bytes);
    let magic = (0..8).map(|_| fields.byte()).collect::<Option<Vec<u8>>>()?;
    let (version, crc) = (fields.u32()?, fields.u32()?);
    if magic != b"tidelog\0" || version != 1 || crc32(version, &bytes[16..]) != crc {
        return None;
    }
    let (log_id, topic_id) = (fields.u128()?, fields.u128()?);
    let (partition, epoch) = (fields.u32()?, fields.u32()?);
    let (base, before, position, durable_end) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let predecessor = (before != u64::MAX).then_some((before, position));
    let (end, clean_end) = (fields.u64()?, fields.u64()?);
    let sound = if end == 0 { clean_end == 0 } else { end > base };
    let compacted_end = (end != 0).then_some(end);
    if !sound {
        return None;
    }
    let header = Header { log_id, topic_id, partition, epoch, base, predecessor, durable_end, compacted_end, crc };
    fields.only_zeros_left().then_some(header)
}

/// Offsets that are due at `position` and are not there; whole batches go on with `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub position: u64,
    pub first: u64,
    pub next: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub batches: Vec<Batch>,
    pub holes: Vec<Hole>,
    /// Behind the last whole batch: the position and the offset that is due there.
    pub end: (u64, u64),
    /// Whether something stands there that is not zero.
    pub torn: bool,
    /// The highest that the header or a batch says.
    pub witness: u64,
    /// Whether a rolled marker ends it.
    pub rolled: bool,
}

/// What bytes say of themselves that may be a batch.
struct Claim {
    length: u64,
    base: u64,
    span: u64,
    epoch: u32,
}

fn claim(bytes: &[u8]) -> Option<Claim> {
    let mut fields = Stream::new(bytes);
    let (length, _crc, base, _timestamp) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.u64()?);
    let (_count, span, epoch) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let sound = length >= 44 && length.is_multiple_of(8) && length as usize <= bytes.len();
    sound.then_some(Claim { length: u64::from(length), base, span: u64::from(span), epoch })
}

/// The whole batches of a segment up to the byte `end` and the offset `until`.
pub fn segment(bytes: &[u8], header: &Header, end: u64, until: u64) -> Segment {
    let bytes = &bytes[..bytes.len().min(usize::try_from(end).unwrap_or(usize::MAX))];
    let mut segment = Segment { end: (HEADER_BYTES, header.base), witness: header.durable_end, ..Segment::default() };
    let (mut epoch, until) = (header.epoch, header.compacted_end.unwrap_or(u64::MAX).min(until));
    loop {
        let (position, due) = segment.end;
        let rest = bytes.get(position as usize..).unwrap_or_default();
        if rest.iter().all(|byte| *byte == 0) {
            return segment;
        }
        let furthest = if segment.holes.len() < 64 { rest.len() } else { 1 };
        let mut next = None;
        // How many bytes may still be summed up for nothing.
        let mut left = 4 * bytes.len() as u64;
        for passed in (0..furthest).step_by(8) {
            if passed > 0 && left == 0 {
                break;
            }
            let Some(claim) = claim(&rest[passed..]) else { continue };
            // There may have been more records than there are bytes, once; but what is due here is due here.
            let any = header.compacted_end.is_some() && passed > 0;
            let fits = claim.base >= due && (any || claim.base - due <= passed as u64 / 8);
            if !fits || claim.epoch < epoch || claim.base.saturating_add(claim.span) > until {
                continue;
            }
            if let Some(found) = batch(&rest[passed..], header.crc) {
                next = Some(Batch { position: position + passed as u64, ..found });
                break;
            }
            if passed > 0 {
                left = left.saturating_sub(claim.length);
            }
        }
        let Some(found) = next else {
            segment.torn = true;
            return segment;
        };
        if found.position > position {
            segment.holes.push(Hole { position, first: due, next: found.base });
        }
        epoch = found.epoch;
        segment.end = (found.position + found.length, found.next);
        segment.witness = segment.witness.max(found.durable_end);
        segment.batches.push(found);
    }
}

// A partition ----------------------------------------------------------------------------------------------------------

/// Whose files they are: log id, topic id, partition.
pub type Home = (u128, u128, u32);

/// What a partition holds, and what it has lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    pub records: Vec<Record>,
    /// The offsets of promised records that are not there. `None`: up to wherever the log goes on.
    pub damage: Vec<(u64, Option<u64>)>,
    /// Whether a tail does not count, that was never promised.
    pub torn: bool,
}

/// A file: the offset in its name, its bytes, its header if that is whole.
type File<'a> = (u64, &'a [u8], Option<Header>);

/// Up to which byte and which offset a file goes, by what the next one says.
fn bounds((base, bytes, header): &File<'_>, next: Option<&File<'_>>) -> (u64, Option<u64>) {
    let length = bytes.len() as u64;
    let (byte, offset) = match next {
        None => (length, None),
        Some((next_base, _, next_header)) => match next_header.and_then(|header| header.predecessor) {
            Some((named, position)) if named == *base => (length.min(position), Some(*next_base)),
            Some((named, _)) if *base < named && named < *next_base => (length, Some(named)),
            _ => (length, Some(*next_base)),
        },
    };
    let Some((end, header)) = header.as_ref().and_then(|header| Some((header.compacted_end?, header))) else {
        return (byte, offset);
    };
    // The successor of a compacted segment cuts it short unless its header says that it is of no later epoch.
    let later = next.is_some_and(|(_, _, next)| next.as_ref().is_none_or(|next| next.epoch > header.epoch));
    (length, Some(offset.filter(|_| later).map_or(end, |begins| begins.min(end))))
}

/// Leaves out the foreign files whose names are offsets that the segment before them holds. `cut_of`: where it was cut off.
fn drop_strays(found: &mut Vec<File<'_>>, foreign: &BTreeSet<u64>, cut_of: impl Fn(&Option<Header>) -> Option<u64>) {
    let strays: Vec<u64> = (0..found.len())
        .filter(|at| foreign.contains(&found[*at].0))
        .filter(|at| {
            let of_nobody = |(base, ..): &&File<'_>| foreign.contains(base);
            let before = found[..*at].iter().rfind(|file| !of_nobody(file));
            let is_cut = |(base, _, header): &File<'_>| cut_of(header).is_some_and(|end| *base >= end);
            let next = found[*at..].iter().find(|file| !of_nobody(file) && !is_cut(file));
            before.is_some_and(|file| {
                let (byte, offset) = bounds(file, next);
                let offset = offset.into_iter().chain(cut_of(&file.2)).min();
                let read = file.2.as_ref().map(|header| segment(file.1, header, byte, offset.unwrap_or(u64::MAX)));
                read.is_some_and(|read| read.end.1 > found[*at].0)
            })
        })
        .map(|at| found[at].0)
        .collect();
    found.retain(|(base, ..)| !strays.contains(base));
}

/// Files by their names. `closed_at`: where the catalog says that it ended; `start`: where it must begin, because
/// everything below was deleted on purpose.
pub fn partition(
    files: &BTreeMap<&str, &[u8]>,
    home: Home,
    closed_at: u64,
    start: Option<u64>,
    cut: Option<(u64, u32)>,
) -> Partition {
    let mut found: Vec<File<'_>> = Vec::new();
    let mut foreign = BTreeSet::new();
    for (name, bytes) in files {
        let Some(base) = base_of(name) else { continue };
        let whole = header(bytes).filter(|_| bytes.len() as u64 <= 1 << 31);
        let ours = whole.filter(|header| {
            let place = (header.log_id, header.topic_id, header.partition);
            place == home && header.base == base
        });
        if whole.is_some() && ours.is_none() {
            foreign.insert(base);
        }
        found.push((base, bytes, ours));
    }
    found.sort_by_key(|(base, ..)| *base);
    // Where what older segments hold was cut off. Those that begin there do not count.
    let cut_of = |header: &Option<Header>| {
        let header = header.as_ref()?;
        cut.filter(|(_, epoch)| header.epoch < *epoch).map(|(end, _)| end)
    };
    // What a compacted segment stands for is none of the partition's, even if it is still there. What is of a later epoch
    // came behind a cut; and if there was a cut since, so may what says no epoch.
    let mut compacted: Vec<(u64, u32)> = Vec::new();
    found.retain(|(base, _, header)| {
        let replaced = compacted.iter().any(|(end, epoch)| {
            let cut = cut.filter(|(_, cut)| epoch < cut);
            let older = match header {
                Some(header) => header.epoch <= *epoch && cut.is_none_or(|(at, _)| *base < at),
                None => cut.is_none(),
            };
            base < end && older
        });
        let stays = !replaced || foreign.contains(base);
        if let Some((end, header)) = header.as_ref().and_then(|header| Some((header.compacted_end?, header)))
            && stays
        {
            compacted.push((end, header.epoch));
        }
        stays
    });
    drop_strays(&mut found, &foreign, cut_of);
    // What lies in front of the segment that holds the start may still be there, and does not count.
    while let (Some(start), [_, (second, ..), ..]) = (start, &found[..])
        && *second <= start
    {
        found.remove(0);
    }
    found.retain(|(base, _, header)| cut_of(header).is_none_or(|end| *base < end));

    // Up to which offset each goes, by what its successor says. The last: as far as it does.
    let mut ends: Vec<Option<u64>> = Vec::new();
    let mut segments: Vec<Option<Segment>> = Vec::new();
    for (at, file) in found.iter().enumerate() {
        let (byte, offset) = bounds(file, found.get(at + 1));
        let offset = offset.into_iter().chain(cut_of(&file.2)).min();
        let compacted_end = file.2.as_ref().and_then(|header| header.compacted_end);
        ends.push(offset);
        let (base, bytes, header) = file;
        let named = found.get(at + 1).and_then(|(next_base, _, next_header)| {
            let (named, position) = next_header.as_ref()?.predecessor?;
            (named == *base && compacted_end.is_none()).then_some((position, *next_base))
        });
        segments.push(header.as_ref().map(|header| {
            let mut whole = segment(bytes, header, byte, offset.unwrap_or(u64::MAX));
            let marked = whole.batches.last().is_some_and(|batch| batch.marker == Some(ROLLED));
            // Whatever was compacted was durable, and had a successor.
            whole.rolled = marked || compacted_end.is_some();
            if let Some((position, next_base)) = named
                && let Some(rest) = usize::try_from(position).ok().and_then(|position| bytes.get(position..))
                && let Some(marker) = batch(rest, header.crc)
                && marker.marker == Some(ROLLED)
                && marker.base == next_base
            {
                whole.rolled = true;
                whole.witness = whole.witness.max(next_base);
            }
            whole
        }));
    }
    let said = segments.iter().flatten().map(|segment| segment.witness).max().unwrap_or(0);
    let witness = said.max(closed_at).max(start.unwrap_or(0));

    let mut held = Partition::default();
    if let Some(start) = start {
        match found.first() {
            Some((base, ..)) if start < *base => held.damage.push((start, Some(*base))),
            // All that there was may have been cut off.
            None if cut.is_none_or(|(end, _)| start < end || start < witness) => held.damage.push((start, None)),
            _ => {}
        }
    }
    for (at, whole) in segments.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| Some((ends[before]?, &segments[before])));
        if let Some((before, last)) = before.filter(|(before, _)| *before < found[at].0) {
            let rolled = last.as_ref().is_some_and(|last| last.rolled);
            if before >= witness && !rolled {
                held.torn = true;
                break;
            }
            held.damage.push((before, Some(found[at].0)));
        }
        let Some(whole) = whole else {
            held.damage.push((found[at].0, ends[at]));
            continue;
        };
        let mut until = u64::MAX;
        for hole in &whole.holes {
            let marker = ends[at].is_some_and(|end| hole.first >= end);
            if hole.first >= witness && !marker && !whole.rolled {
                held.torn = true;
                until = hole.position;
                break;
            }
            held.damage.push((hole.first, Some(hole.next)));
        }
        let batches = whole.batches.iter().filter(|batch| batch.position < until);
        held.records.extend(batches.flat_map(|batch| batch.records.clone()));
        if held.torn {
            break;
        }
        let (_, due) = whole.end;
        match ends[at] {
            // It got to where its successor begins; what else stands there was a marker.
            Some(end) if due >= end => {}
            Some(end) if due < witness || whole.rolled => held.damage.push((due, Some(end))),
            None if due < witness => held.damage.push((due, None)),
            None if whole.rolled => held.damage.push((due, None)),
            None if !whole.torn => {}
            _ => {
                held.torn = true;
                break;
            }
        }
        if at + 1 == found.len()
            && let Some(end) = found[at].2.as_ref().and_then(|header| header.compacted_end)
            && cut_of(&found[at].2).is_none_or(|cut| cut > end)
        {
            match held.damage.last_mut() {
                Some((_, next)) if *next == Some(end) => *next = None,
                _ => held.damage.push((end, None)),
            }
        }
    }
    // What came behind a cut, if nothing of that is left.
    let last = found.last().and_then(|(_, _, header)| cut_of(header));
    held.damage.extend(last.filter(|end| *end < witness && !held.torn).map(|end| (end, None)));
    held.from(start.unwrap_or(0))
}

impl Partition {
    /// What is left of it from this offset on.
    fn from(mut self, start: u64) -> Partition {
        self.records.retain(|record| record.offset >= start);
        self.damage.retain(|(_, next)| next.is_none_or(|next| next > start));
        for (first, _) in &mut self.damage {
            *first = start.max(*first);
        }
        self
    }
}

/// The base offset that the name of a segment says.
pub fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

// Tables ---------------------------------------------------------------------------------------------------------------

/// What a table says: the last value of each key that has one. An empty key is about the table itself.
pub fn table(records: &[Record]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut said = BTreeMap::new();
    for record in records {
        let key = record.key.clone().unwrap_or_default();
        if key.is_empty() {
            continue;
        }
        match &record.value {
            Some(value) => said.insert(key, value.clone()),
            None => said.remove(&key),
        };
    }
    said
}

/// Topic, partition, topic id, offset, note of an entry of a group; `None`: it is not understood.
pub fn committed(key: &[u8], value: &[u8]) -> Option<(String, u32, u128, u64, String)> {
    let key = std::str::from_utf8(key).ok()?;
    let (topic, partition) = key.rsplit_once('/')?;
    let partition = partition.parse().ok()?;
    let mut fields = Stream::new(value);
    let (topic_id, offset, note) = (fields.u128()?, fields.u64()?, fields.text()?);
    (fields.left() == 0).then(|| (topic.to_owned(), partition, topic_id, offset, note))
}

/// FNV-1a, 128 bits, of the name of a group.
pub fn group_id(name: &str) -> u128 {
    let mut hash: u128 = 0x6c62272e07bb014262b821756295c58d;
    for byte in name.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul((1 << 88) + 0x13b);
    }
    hash
}
