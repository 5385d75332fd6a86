//! The machine's own limit: what appending to and reading from mapped memory costs without any log.
//!
//! `cargo bench --bench machine`; the other benchmarks print the lines that they need beside their own numbers.

mod limit;

use limit::{Effort, Latencies, Pages, Shape, Table, Walk, append_limit, quick, read_limit};

fn main() {
    let effort = Effort::from_args();
    let shapes = [100, 1024]
        .into_iter()
        .flat_map(|record_bytes| [1, 100].map(|records_per_batch| Shape { record_bytes, records_per_batch }));
    let shapes: Vec<_> = shapes.collect();

    let columns = [("record", 26), ("touched", 10), ("untouched", 10)];
    let table = Table::new("append: copy and CRC-32 into a mapped file, ns per record", &columns);
    for shape in &shapes {
        let cells =
            [Pages::Touched, Pages::Untouched].map(|pages| format!("{:.1}", append_limit(*shape, pages, effort)));
        table.row(&[&[shape.to_string()], cells.as_slice()].concat());
    }

    let columns = [("record", 26), ("lengths only", 12), ("every byte", 12)];
    let table = Table::new("read: a walk over a mapped file, ns per record", &columns);
    for shape in &shapes {
        let cells = [Walk::Lengths, Walk::EveryByte].map(|walk| format!("{:.2}", read_limit(*shape, walk, effort)));
        table.row(&[&[shape.to_string()], cells.as_slice()].concat());
    }

    let columns = [&[("", 26)], Latencies::COLUMNS.as_slice()].concat();
    let table = Table::new("the clock itself: two readings, one after the other", &columns);
    let mut latencies = Latencies::new();
    for _ in 0..if quick() { 10_000 } else { 1_000_000 } {
        latencies.time(|| ());
    }
    table.row(&[&["nothing".to_owned()], latencies.cells().as_slice()].concat());
}
