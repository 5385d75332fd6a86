//! Building blocks for fuzzing what reads, writes or processes an event log.
//!
//! All of them implement [`Arbitrary`], and all of them are plain data that may say anything, so that
//! a fuzzer, or a test that draws from a seed, gets past the checksums to what stands behind.
//!
//! | block         | for whom                                                                                      |
//! |---------------|-----------------------------------------------------------------------------------------------|
//! | [`Record`]    | a consumer or codec of yours: records with and without keys, values, headers                  |
//! | [`Batch`]     | a reader of the format: every field, also those that version 1 reads and does not write       |
//! | [`Segment`]   | the same: a header and batches that follow one another, or nearly; with [`Damage`] behind it  |
//! | [`Directory`] | a tool that opens logs: all files of one: cut, compacted, and a few of them hurt          |
//!
//! Checksums are right unless bytes are damaged after they were computed: a fuzzer cannot guess them, and a reader that
//! skips them for a fuzzer is another reader.
//!
//! ```
//! use arbitrary::{Arbitrary, Unstructured};
//! use tidelog::fuzz::Record;
//!
//! let input = [7; 64]; // from the fuzzer, or from a seed
//! let record = Record::arbitrary(&mut Unstructured::new(&input))?;
//! let _sent = record.to_producer_record("orders"); // what your consumer is going to be given
//! # Ok::<(), arbitrary::Error>(())
//! ```

mod batch;
mod directory;
#[doc(hidden)]
pub mod seams;
mod segment;

use std::borrow::Cow;

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::record::{Header, ProducerRecord};
use crate::types::Timestamp;

pub use crate::fuzz::batch::{Batch, BatchRecord, Content};
pub use crate::fuzz::directory::Directory;
pub use crate::fuzz::segment::{Damage, Segment, SegmentHeader};

/// What somebody may have sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key, if there is one.
    pub key: Option<Vec<u8>>,
    /// The value, if there is one.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch. On the disk it may be anything; `send` refuses what is negative.
    pub timestamp: i64,
}

impl Record {
    /// The same, on its way into a topic. A timestamp that `send` would refuse is left to the clock.
    pub fn to_producer_record<'a>(&'a self, topic: &'a str) -> ProducerRecord<'a> {
        let borrowed = |bytes: &'a Option<Vec<u8>>| bytes.as_deref().map(Cow::Borrowed);
        let mut record = ProducerRecord::from_parts(topic, borrowed(&self.key), borrowed(&self.value));
        let header = |(name, value): &'a (String, Option<Vec<u8>>)| Header {
            name: Cow::Borrowed(name.as_str()),
            value: borrowed(value),
        };
        record.headers = self.headers.iter().map(header).collect();
        record.timestamp = (self.timestamp >= 0).then(|| Timestamp::from_millis(self.timestamp));
        record
    }
}

impl<'a> Arbitrary<'a> for Record {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut headers = Vec::new();
        while headers.len() < 4 && u.ratio(1, 3)? {
            headers.push((some_text(u)?, some_bytes(u)?));
        }
        let timestamp = match u.int_in_range(0..=3)? {
            0 => 0,
            1 => i64::from(u.arbitrary::<u16>()?),
            2 => i64::from(u.arbitrary::<i32>()?),
            _ => u.arbitrary()?,
        };
        Ok(Record { key: some_bytes(u)?, value: some_bytes(u)?, headers, timestamp })
    }
}

/// Absent, empty or short; now and then as long as what is left of the input.
fn some_bytes(u: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
    let most = match u.int_in_range(0..=4)? {
        0 => return Ok(None),
        1 => 0,
        2 | 3 => u.len().min(40),
        _ => u.len(),
    };
    let length = u.int_in_range(0..=most)?;
    Ok(Some(u.bytes(length.min(u.len()))?.to_vec()))
}

fn some_text(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(u.choose(&["", "trace", "content-type", "größe", "\u{10ffff}"])?.to_string())
}
