//! Where the room on the disk is.

use std::fmt;
use std::path::Path;

use crate::catalog::Catalog;
use crate::env::storage::Access;
use crate::group::Groups;
use crate::partition::Partition;
use crate::table::RESERVE;
use crate::types::TopicPartition;

/// What takes room on the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// The records of a partition.
    Partition(TopicPartition),
    /// What a group has committed.
    Group(String),
    /// What the log knows of itself.
    Catalog,
    /// Room that is kept so that groups can commit on a full disk.
    Reserve,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Partition(partition) => write!(f, "{partition}"),
            Place::Group(group) => write!(f, "group {group}"),
            Place::Catalog => f.write_str("catalog"),
            Place::Reserve => f.write_str("reserve"),
        }
    }
}

/// How much room something takes on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceUse {
    /// What it is.
    pub place: Place,
    /// How many segment files there are.
    pub segments: usize,
    /// How many offsets lie between the first that can be read and the end.
    pub records: u64,
    /// The bytes of batches and headers in the segments, those of deleted records too as long as their segment is there.
    pub bytes: u64,
    /// What the files take of the disk, with the room that is prepared for records to come.
    pub disk_bytes: u64,
    /// Of a compacted topic: the bytes of the segments that hold something which was never compacted, without the one that
    /// is appended to.
    pub dirty_bytes: Option<u64>,
}

/// All that takes room: topics in the order of their names, groups, the log's own.
pub(crate) fn space(catalog: &Catalog, groups: &Groups) -> Vec<SpaceUse> {
    let mut all = Vec::new();
    for topic in catalog.topics() {
        let compacts = topic.config().cleanup_policy.compacts();
        all.extend(topic.partitions().iter().map(|one| {
            let dirty_bytes = compacts.then(|| one.clean_end().1);
            SpaceUse { dirty_bytes, ..of_partition(Place::Partition(one.name().clone()), one) }
        }));
    }
    let of_group = |table: &Partition| of_partition(Place::Group(table.name().topic().to_owned()), table);
    all.extend(groups.partitions().iter().map(|table| of_group(table)));
    all.push(of_partition(Place::Catalog, catalog.table()));
    let reserve = catalog.env().storage.open(Path::new(RESERVE), Access::Read);
    let disk_bytes = reserve.and_then(|file| file.room()).unwrap_or(0);
    all.push(SpaceUse { place: Place::Reserve, segments: 0, records: 0, bytes: 0, disk_bytes, dirty_bytes: None });
    all
}

fn of_partition(place: Place, partition: &Partition) -> SpaceUse {
    let (segments, disk_bytes) = partition.space();
    let records = partition.log_end().since(partition.log_start());
    SpaceUse { place, segments, records, bytes: partition.used_bytes(), disk_bytes, dirty_bytes: None }
}
