//! Explains a segment file, byte by byte.

use std::path::Path;

use crate::env::Env;
use crate::env::storage::Access;
use crate::error::{Error, Flaw, Result};
use crate::format::batch::{Batch, Marker, RecordView, Walk, headers};
use crate::format::catalog::Fact;
use crate::format::committed;
use crate::format::segment::{self, CATALOG_ID, HEADER_BYTES, Header};
use crate::inspect::survey;
use crate::partition::Met;
use crate::types::Offset;

/// Some bytes of a file and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpItem {
    /// Where they begin.
    pub position: u64,
    /// How many they are.
    pub length: u64,
    /// 0 for a header, a batch, or bytes that are neither; 1 for their fields and records; 2 for the fields of a record.
    pub depth: u8,
    /// What they are.
    pub name: &'static str,
    /// What they say.
    pub value: String,
    /// What is wrong with them, if something is.
    pub flaw: Option<Flaw>,
}

/// Explains the segment file at `path`, from its first byte to its last: `each` is given every header, batch and
/// record, and the fields of each behind it. Changes nothing, and needs no log that opens.
///
/// # Errors
///
/// [`Io`](Error::Io) if the file cannot be read. Whatever is wrong with its bytes is told to `each`.
pub fn dump(path: impl AsRef<Path>, mut each: impl FnMut(&DumpItem)) -> Result<()> {
    let path = path.as_ref();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| {
        Error::io("open", || path)(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "this is not the path of a file",
        ))
    })?;
    let env = Env::real(dir, false)?;
    let Some((_, pen)) = survey::map(&env, Path::new(name), Access::Read)? else { return Ok(()) };
    let of_a_group = path.components().any(|part| part.as_os_str() == crate::catalog::GROUPS);
    dump_bytes(
        pen.unread(0..pen.region().valid()),
        segment::base_of_file_name(&name.to_string_lossy()),
        of_a_group,
        &mut each,
    );
    Ok(())
}

pub(crate) fn dump_bytes(bytes: &[u8], named: Option<Offset>, of_a_group: bool, each: &mut impl FnMut(&DumpItem)) {
    let header = Header::decode(bytes);
    dump_header(bytes, &header, named, each);
    let Ok(header) = header else { return };
    let kind = match header.identity.topic {
        CATALOG_ID => TableKind::Catalog,
        _ if of_a_group => TableKind::Group,
        _ => TableKind::None,
    };
    let mut walk = Walk::begin(&header, segment::salt(bytes));
    let mut holes = 0;
    loop {
        let position = walk.position;
        match Met::next(&mut walk, bytes, holes) {
            Met::Batch(batch) => dump_batch(&batch, position, kind, each),
            Met::Hole(hole) => {
                holes += 1;
                let value = format!("offset {} was due; whole batches go on with {}", hole.first, hole.next);
                each(&item(position, hole.end - position, 0, "no batch", value, Some(hole.flaw)));
            }
            Met::End(flaw) => return dump_end(bytes, &walk, flaw, each),
        }
    }
}

/// What stands behind the last whole batch, and the zeros behind that.
fn dump_end(bytes: &[u8], walk: &Walk, flaw: Option<Flaw>, each: &mut impl FnMut(&DumpItem)) {
    let rest = bytes.get(walk.position as usize..).unwrap_or_default();
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if flaw.is_some() {
        let value = format!("offset {} was due; no whole batch follows", walk.due);
        each(&item(walk.position, used as u64, 0, "no batch", value, flaw));
    }
    if used < rest.len() {
        each(&item(walk.position + used as u64, (rest.len() - used) as u64, 0, "free", "zeros".into(), None));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TableKind {
    None,
    Catalog,
    Group,
}

fn item(position: u64, length: u64, depth: u8, name: &'static str, value: String, flaw: Option<Flaw>) -> DumpItem {
    DumpItem { position, length, depth, name, value, flaw }
}

fn dump_header(bytes: &[u8], header: &Result<Header, Flaw>, named: Option<Offset>, each: &mut impl FnMut(&DumpItem)) {
    let length = HEADER_BYTES.min(bytes.len() as u64);
    let header = match header {
        Ok(header) => header,
        Err(flaw) => return each(&item(0, length, 0, "header", "not one of this version".into(), Some(*flaw))),
    };
    let misplaced = named.is_some_and(|named| named != header.base).then_some(Flaw::Foreign);
    each(&item(0, length, 0, "header", format!("segment from offset {}", header.base), misplaced));
    let predecessor = header.predecessor.map_or_else(
        || ("none: this is the first".to_owned(), "0".to_owned()),
        |before| (before.base.to_string(), before.end_position.to_string()),
    );
    let (end, clean_end) = header.compacted.map_or_else(
        || ("0: not compacted".to_owned(), "0".to_owned()),
        |compacted| (compacted.end.to_string(), compacted.clean_end.to_string()),
    );
    let fields = [
        (0, 8, "magic", "tidelog".to_owned()),
        (8, 4, "version", crate::format::VERSION.to_string()),
        (12, 4, "crc", format!("{:08x}, the salt of the batches", segment::salt(bytes))),
        (16, 16, "log id", format!("{:032x}", header.identity.log)),
        (32, 16, "topic id", format!("{:032x}", header.identity.topic)),
        (48, 4, "partition", header.identity.partition.to_string()),
        (52, 4, "epoch", header.epoch.to_string()),
        (56, 8, "base offset", header.base.to_string()),
        (64, 8, "predecessor base", predecessor.0),
        (72, 8, "predecessor position", predecessor.1),
        (80, 8, "durable end", header.durable_end.to_string()),
        (88, 8, "end offset", end),
        (96, 8, "clean end", clean_end),
        (104, 24, "reserved", "zeros".to_owned()),
    ];
    for (position, length, name, value) in fields {
        each(&item(position, length, 1, name, value, None));
    }
}

fn dump_batch(batch: &Batch<'_>, position: u64, kind: TableKind, each: &mut impl FnMut(&DumpItem)) {
    let offsets = format!("offsets {}..{}", batch.base(), batch.next());
    let (name, value) = match (batch.marker(), batch.count()) {
        (Some(Marker::Synced), _) => ("marker", format!("synced up to {}", batch.base())),
        (Some(Marker::Closed), _) => ("marker", format!("closed at {}", batch.base())),
        (Some(Marker::Rolled), _) => ("marker", format!("rolled: the next segment begins at {}", batch.base())),
        (None, 0) => ("gap", offsets),
        (None, count) => ("batch", format!("{offsets}, {count} record{}", if count == 1 { "" } else { "s" })),
    };
    each(&item(position, batch.length(), 0, name, value, None));
    let fields = [
        (0, 4, "length", batch.length().to_string()),
        (4, 4, "crc", format!("{:08x}, fits", batch.crc())),
        (8, 8, "base offset", batch.base().to_string()),
        (16, 8, "base timestamp", batch.base_timestamp().to_string()),
        (24, 4, "count", batch.count().to_string()),
        (28, 4, "span", batch.next().since(batch.base()).to_string()),
        (32, 4, "epoch", batch.epoch().to_string()),
        (36, 4, "lag", format!("durable up to {}", batch.durable_end())),
        (40, 4, "attributes", format!("{:#06x}", batch.attributes())),
    ];
    for (at, length, name, value) in fields {
        each(&item(position + at, length, 1, name, value, None));
    }
    if let Some(horizon) = batch.delete_horizon() {
        each(&item(position + 44, 8, 1, "delete horizon", horizon.to_string(), None));
    }
    for (at, length, record) in batch.placed_records() {
        dump_record(position + at, length, &record, kind, each);
    }
}

fn dump_record(position: u64, length: u64, record: &RecordView<'_>, kind: TableKind, each: &mut impl FnMut(&DumpItem)) {
    let value = format!("offset {}, timestamp {}", record.offset, record.timestamp);
    each(&item(position, length, 1, "record", value, None));
    // Key and value lie at the end of the record, headers before them.
    let value_bytes = record.value.map_or(0, <[u8]>::len) as u64;
    let key_bytes = record.key.map_or(0, <[u8]>::len) as u64;
    let end = position + length;
    for (name, value) in headers(record.headers) {
        let at = end - value_bytes - key_bytes - record.headers.len() as u64;
        let text = format!("{name} = {}", value.map_or("none".to_owned(), text));
        each(&item(at, record.headers.len() as u64, 2, "header", text, None));
    }
    let key = record.key.map_or("none".to_owned(), text);
    each(&item(end - value_bytes - key_bytes, key_bytes, 2, "key", key, None));
    let (meaning, flaw) = meaning(record, kind);
    each(&item(end - value_bytes, value_bytes, 2, "value", meaning, flaw));
}

/// What the value of a record says: in a table, in words.
fn meaning(record: &RecordView<'_>, kind: TableKind) -> (String, Option<Flaw>) {
    let key = record.key.unwrap_or_default();
    let decoded = match (kind, record.value) {
        (TableKind::None, value) => return (value.map_or("none".to_owned(), text), None),
        (TableKind::Catalog, value) => Fact::decode(key, value).map(|fact| format!("{fact:?}")),
        (TableKind::Group, None) => Ok("removed".to_owned()),
        (TableKind::Group, Some(value)) => committed::decode_value(value).map(|committed| {
            let metadata = &committed.offset.metadata;
            format!(
                "committed {}, metadata {metadata:?}, topic id {:032x}",
                committed.offset.offset, committed.topic_id
            )
        }),
    };
    match decoded {
        Ok(meaning) => (meaning, None),
        Err(flaw) => (record.value.map_or("none".to_owned(), text), Some(flaw)),
    }
}

/// The longest that key and value are shown.
const SHOWN_BYTES: usize = 200;

/// Bytes for people: as text if that is what they are, and not too long.
fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if shown.len() < bytes.len() {
        format!(" and {} bytes more", bytes.len() - shown.len())
    } else {
        String::new()
    };
    match std::str::from_utf8(shown) {
        Ok(text) => format!("{text:?}{more}"),
        Err(error) if error.error_len().is_none() && !more.is_empty() => {
            format!("{:?}{more}", String::from_utf8_lossy(&shown[..error.valid_up_to()]))
        }
        Err(_) => {
            let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("0x{digits}{more}")
        }
    }
}
