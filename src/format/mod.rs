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
//! A segment's name is the offset of its first record, in 20 decimal digits, and `.log`. A name that ends in `.new`
//! is a file that was being made when the process died; it holds nothing. Other names are none of the log's.
//! The segments of a partition follow one another: each ends where its successor begins, unless data was lost.
//! The directory of a group is its name with every byte outside `[A-Za-z0-9_-]` as `%` and two hexadecimal digits.
//!
//! # Segments
//!
//! A segment is a header of 128 bytes (see `segment`), then batches (see `batch`), each at a multiple of eight, then
//! zeros up to the end of the file. A batch holds records that were sent together, and live or die together.
//! A length of zero ends the segment, but only if every byte behind it is zero too.
//!
//! # Tables
//!
//! In catalog and groups the last record of a key counts. A record with an empty key says that everything which the table
//! said before the offset in its value (u64) was said again behind it: from there on the table is whole. A table
//! that does not begin at offset 0 and has no such record has lost something.
//!
//! # What to believe
//!
//! A batch is whole if its checksum fits, its base offset is the one that follows its predecessor's last (in a
//! segment's first batch: the segment's base offset), and its epoch is not lower than its predecessor's. What
//! is not whole is no batch, whatever stands behind it.
//!
//! Every batch says how far the partition was *durable* when it was written (`lag`), and so does every segment header.
//! The highest of these figures is the *witness*. Bytes that are no batch are a torn tail, never promised to
//! anybody, if the offset that was due there is at or above the witness; below it they are damage to promised data.
//! Because the last batch has no later witness, *markers* are written when a partition is closed, when it has been idle
//! after a sync, and, into the old segment, when its successor has got its name. The catalog is told where each
//! partition ended when the log is closed, so that a marker that is gone is missed too.
//!
//! No offset is given twice. A partition that has lost its end goes on where it was closed, if the log was not opened
//! since. Otherwise it goes on behind everything that can have been given: 2^28 offsets on, more than a segment can
//! hold; or, if whole segments are gone, at 2^40 times the number of the opening, at least.

pub(crate) mod batch;
pub(crate) mod bytes;
pub(crate) mod catalog;
pub(crate) mod committed;
pub(crate) mod segment;

/// The version of the format that this library writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;
