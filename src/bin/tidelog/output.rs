//! What the tool writes: to standard output what was asked for, to standard error everything else.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// So large that a fast reader costs few system calls.
const BUFFER_BYTES: usize = 256 << 10;

/// Standard output, which may be closed at any time.
pub(crate) struct Screen {
    out: BufWriter<StdoutLock<'static>>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Screen { out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()) }
    }

    pub(crate) fn line(&mut self, line: &str) -> Outcome {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    pub(crate) fn json(&mut self, value: &Value) -> Outcome {
        self.line(&value.to_string())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.out.write_all(bytes).map_err(Failure::of_stdout)
    }

    /// Hands everything to whoever reads.
    pub(crate) fn flush(&mut self) -> Outcome {
        self.out.flush().map_err(Failure::of_stdout)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What must arrive was flushed; the rest belongs to a command that failed, and says so itself.
        drop(self.out.flush());
    }
}

/// Writes a line to standard error. If nobody listens there, there is nobody to tell.
pub(crate) fn complain(line: &str) {
    drop(writeln!(io::stderr(), "tidelog: {line}"));
}

/// A table in plain text: numbers to the right, all else to the left, two spaces between columns.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// `columns`: titles; those that begin with `>` are of numbers.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let right = columns.iter().map(|title| title.starts_with('>')).collect();
        let titles = columns.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        Table { rows: vec![titles], right }
    }

    pub(crate) fn row<S: ToString>(&mut self, cells: &[S]) {
        assert_eq!(cells.len(), self.right.len(), "a row has as many cells as there are columns");
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// The lines, each behind `indent`.
    pub(crate) fn lines(&self, indent: &str) -> Vec<String> {
        let letters = |cell: &String| cell.chars().count();
        let width = |column: usize| self.rows.iter().map(|row| letters(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).zip(&self.right).map(|((cell, width), right)| {
                if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            format!("{indent}{}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// A number that can be read: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many a second, in words; a whole number, because nobody reads the rest.
pub(crate) fn per_second(count: u64, seconds: f64) -> u64 {
    // Less than a microsecond is no measurement. A rate is far below 2^53, where `f64` is exact.
    (count as f64 / seconds.max(1e-6)).round() as u64
}

/// Bytes in JSON: text if they are, else `{"base64": ".."}`; `null` if there are none.
pub(crate) fn json_bytes(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => json!({ "base64": base64(bytes) }),
    }
}

/// RFC 4648, §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_table_puts_numbers_to_the_right_and_ends_no_line_with_spaces() {
        let mut table = Table::new(&["NAME", ">LAG", "NOTE"]);
        table.row(&["größer", "7", "x"]);
        table.row(&["a", "12345", ""]);
        assert_eq!(table.lines("  "), ["  NAME      LAG  NOTE", "  größer      7  x", "  a       12345"]);
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        let text: Vec<_> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(text, ["0", "999", "1,000", "1,234,567"]);
    }
}
