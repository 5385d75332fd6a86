//! The format: every byte that a log leaves on the disk. This is the specification.
//!
//! Version 1. All numbers are little-endian. A reader that holds to these pages can read every log.
//!
//! # Files
//!
//! ```text
//! data/
//! ├── LOCK                                      the number of the process that writes, in decimal
//! ├── RESERVE                                   nothing: room that catalog and groups are given on a full disk
//! ├── catalog/00000000000000000000.log          topics and their configuration      (see `catalog`)
//! ├── groups/billing/00000000000000000000.log   committed offsets of the group       (see `committed`)
//! └── topics/orders/0/00000000000000000000.log  records of partition 0 of `orders`
//! ```
//!
//! There is one kind of file: a *segment* of a partition. Catalog and groups are partitions too, of small records.
//! A segment's name is the offset of its first record, in 20 decimal digits (at most 2^64-1), and `.log`. A name that
//! ends in `.new` is a file that was being made when the process died; it holds nothing. Other names are none of the
//! log's, and what LOCK and RESERVE hold is of no use to a reader. The name of a topic is that of its directory, the
//! number of a partition is in decimal. The directory of a group is its name (UTF-8) with every byte outside
//! `[A-Za-z0-9_-]`, and no other, as `%` and two hexadecimal digits, `a` to `f` in lower case.
//!
//! # Segments
//!
//! A segment is a header of 128 bytes (see `segment`), then batches (see `batch`), each at a multiple of eight, then
//! zeros up to the end of the file. A batch holds records that were sent together, and live or die together.
//! A length of zero ends the segment, but only if every byte behind it is zero too.
//!
//! The segments of a partition follow one another: the first holds the *log start offset*, or begins anywhere in catalog
//! and groups, whose old segments go; each ends where its successor begins. The log start offset is what the catalog says,
//! or else 0: everything below it was deleted on purpose. A file is none of the partition's segments if the next one begins
//! at or below that offset; its removal was interrupted. Records below it, in the first segment, are not shown.
//!
//! The tail of a partition can be *cut*: what the catalog then says is an offset and an epoch, and counts for the segments
//! whose header says an earlier epoch, also for all that follows on these pages. One of them that begins at or above the
//! offset is none of the partition's; its removal was interrupted. The others end at that offset at the latest: no batch
//! reaches beyond it, and once it is due, nothing behind counts and nothing is missing. If all was cut, so that the offset
//! is at or below the log start offset and the witness is not above that, no segment need be there. Later segments have
//! that epoch or a higher one.
//!
//! The *successor* is the file with the next higher name. Its
//! header says which segment it was made behind, and the position at which that one ended; if that is not the file
//! before it, the one that it names is missing, and the file before ends at the base offset of the missing one. A
//! segment that its successor names is read up to the position that is said there: behind it stands nothing but its
//! rolled marker, or what was cut off. Any other, also one whose successor has no whole header, goes to the end of the file.
//!
//! A file whose header would be whole in another place is *foreign*. It is none of the partition's segments either if the
//! file before it that is not foreign, read as if those that are foreign and behind it were not there, is a segment with a
//! whole header and goes on behind the offset in the foreign one's name: a copy that somebody has put there ends nothing.
//!
//! # Compacted segments
//!
//! Compaction leaves the records out of which there is a later one with the same key; what stays keeps its offset. It
//! makes one segment of one or more that follow one another, in a file that then takes the name of the first of them; the
//! others are removed afterwards. A *compacted* segment is one whose header says where it ends (see `segment`). A file is
//! none of the partition's segments if one before it ends behind its base offset, and either the file's header says the same
//! epoch or an earlier one, or it would be whole in no place: its removal was interrupted. But if the tail was cut since, and
//! so the compacted segment is of an earlier epoch than the cut, only files that begin before the cut and whose header is
//! whole are none of the partition's: another may have been made behind a cut, of which the catalog says the last alone.
//!
//! When it was made, everything in it was durable, and so was the name of the next segment: it counts as one that a rolled
//! marker ends. It ends at its end offset, whatever its successor says; if that is of a later epoch, or has no whole header,
//! what it says counts if it is less, because a tail was cut off in between. A compacted segment is read up to the end of the file.
//! What its successor names is not missing if it lies in the compacted segment. Compaction does not put more than 2^28 offsets
//! into one segment, unless they were in one before: it is what a segment has room for.
//!
//! # Tables
//!
//! In catalog and groups the last record of a key counts. A record with an empty key says that everything which the
//! table said before the offset in its value (u64) was said again behind it: from there on the table is whole. A table
//! that does not begin at offset 0 and has no such record whose value is at or above its first offset has lost
//! something. A record without a value removes its key.
//!
//! # What to believe
//!
//! A batch is whole if all of this holds; what is not whole is no batch, whatever stands behind it:
//!
//! - its length is a multiple of eight, at least 44, and ends inside of the segment;
//! - its checksum fits;
//! - its fields and records keep the rules of `batch`: what is refused there is no batch, whatever its checksum;
//! - its base offset is the one that is *due*: the predecessor's base offset plus span; for a segment's first batch, the
//!   segment's base offset;
//! - it does not reach beyond the offset at which the segment ends, where a successor says that;
//! - its epoch is not lower than the predecessor's; for a segment's first batch, than that in the segment's header.
//!
//! Behind bytes that are no batch a reader looks on, at every multiple of eight, for the next batch that is whole but
//! for its base offset: that may be higher than the one that is due, by one for every eight bytes passed over at the
//! most, because a record takes no less; in a compacted segment, by any number. The offsets between are missing. If there is no such batch, the segment has no
//! more. (So that the work stays linear, it is not looked for behind 64 such places in a segment; nor any further once
//! bytes which have a possible length, and such a base offset, epoch and reach, but are not whole, were summed up, and their
//! lengths come to four times the bytes of the segment.)
//!
//! Every batch says how far the partition was *durable* when it was written (`lag`), and so does every segment header.
//! The highest of these figures, of all the segments of the partition and with what the catalog says of its end and its
//! start, is the *witness*. Bytes that are no batch, and offsets that are missing, are a torn tail, never promised to anybody, if
//! the offset that was due there is at or above the witness: then nothing counts from there on, no batch that stands
//! behind it and no later segment. Below the witness they are damage to promised data, and what is whole behind them
//! counts. Zeros at the end of the newest segment are damage too if the offset that is due there is below the
//! witness. A partition that the catalog knows was made with its first segment: its log start offset is missing if there is none.
//! Bytes that are no batch in a segment that has got to the offset at which its successor begins were a marker: no record
//! is lost with them, and the successor counts in any case.
//!
//! A segment whose header is not whole holds no record and says nothing. Its offsets are damage whatever the witness is,
//! up to where it ends: its successor says that, even one that does not count itself. How many the newest held nobody knows.
//!
//! A rolled marker was written when all of its segment was durable, and the name of the next one. It ends a segment if it
//! is its last batch; or, in one that its successor names, if it stands at the position that is said there, is whole,
//! and its base offset is the successor's. It counts for the witness like any batch. And in a segment that it ends, what
//! is no batch is damage whatever the witness is; so are the offsets from its base offset on, up to where the next
//! segment that is there begins, or up to where nobody knows: a segment that began there is gone. What comes behind it counts.
//!
//! Because the last batch has no later witness, *markers* are written when a partition is closed, when it has been idle
//! after a sync, and, into the old segment, when its successor has got its name. The catalog is told where each
//! partition ended when the log is closed, so that a marker that is gone is missed too.
//!
//! No offset is given twice but those that were cut off. A partition that has lost its end goes on where it was closed, if the log was not opened
//! since. Otherwise it goes on behind everything that can have been given: 2^28 offsets on, more than a segment can
//! hold; or, if whole segments are gone, at 2^40 times the number of the opening, at least.

pub(crate) mod batch;
pub(crate) mod bytes;
pub(crate) mod catalog;
pub(crate) mod committed;
pub(crate) mod segment;
#[cfg(feature = "arbitrary")]
pub(crate) mod work;

/// The version of the format that this library writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;
