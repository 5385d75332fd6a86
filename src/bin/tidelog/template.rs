//! `--format`: what a record looks like in text.
//!
//! | in the template | is replaced by                                             |
//! |-----------------|------------------------------------------------------------|
//! | `%t` `%p` `%o`  | topic, partition, offset                                   |
//! | `%k` `%v`       | the bytes of key and value as they are; `null` without any |
//! | `%T` `%D`       | timestamp, in milliseconds since 1970 and as RFC 3339      |
//! | `%h`            | headers, as `name=value,name=value`                        |
//! | `%%` `\n` `\t` `\0` `\\` | a percent sign, line feed, tab, zero byte, backslash |
//!
//! A line feed follows each record. The letters are kcat's where kcat has them.

use tidelog::{ConsumerRecord, Timestamp};

/// What stands for a key or a value that is not there, as in Kafka.
const NULL: &[u8] = b"null";

/// A template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Millis,
    Date,
    Headers,
}

impl Template {
    /// The value alone.
    pub(crate) fn value() -> Self {
        Template { parts: vec![Part::Value] }
    }

    /// Takes a template apart; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let part = match letter {
                '%' => match letters.next() {
                    Some('%') => Part::Text(b"%".to_vec()),
                    Some('t') => Part::Topic,
                    Some('p') => Part::Partition,
                    Some('o') => Part::Offset,
                    Some('k') => Part::Key,
                    Some('v' | 's') => Part::Value,
                    Some('T') => Part::Millis,
                    Some('D') => Part::Date,
                    Some('h') => Part::Headers,
                    other => {
                        let found = other.map(String::from).unwrap_or_default();
                        return Err(format!("`%{found}` means nothing; there are %t %p %o %k %v %T %D %h and %%"));
                    }
                },
                '\\' => match letters.next() {
                    Some('n') => Part::Text(b"\n".to_vec()),
                    Some('t') => Part::Text(b"\t".to_vec()),
                    Some('0') => Part::Text(b"\0".to_vec()),
                    Some('\\') => Part::Text(b"\\".to_vec()),
                    other => {
                        let found = other.map(String::from).unwrap_or_default();
                        return Err(format!("`\\{found}` means nothing; there are \\n \\t \\0 and \\\\"));
                    }
                },
                other => Part::Text(other.to_string().into_bytes()),
            };
            match part {
                Part::Text(text) => plain.extend(text),
                part => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(part);
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts })
    }

    /// Writes a record and a line feed behind what is in `line`.
    pub(crate) fn write(&self, record: &ConsumerRecord<'_>, line: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => line.extend_from_slice(text),
                Part::Topic => line.extend_from_slice(record.topic().as_bytes()),
                Part::Partition => line.extend_from_slice(record.partition().to_string().as_bytes()),
                Part::Offset => line.extend_from_slice(record.offset().to_string().as_bytes()),
                Part::Key => line.extend_from_slice(record.key().unwrap_or(NULL)),
                Part::Value => line.extend_from_slice(record.value().unwrap_or(NULL)),
                Part::Millis => line.extend_from_slice(record.timestamp().to_string().as_bytes()),
                Part::Date => line.extend_from_slice(date(record.timestamp()).as_bytes()),
                Part::Headers => {
                    for (at, (name, value)) in record.headers().enumerate() {
                        if at > 0 {
                            line.push(b',');
                        }
                        line.extend_from_slice(name.as_bytes());
                        line.push(b'=');
                        line.extend_from_slice(value.unwrap_or(NULL));
                    }
                }
            }
        }
        line.push(b'\n');
    }
}

/// A timestamp as RFC 3339 writes it; what lies outside of its years stays a number.
fn date(timestamp: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(timestamp.as_millis()) {
        Ok(date) => format!("{date:.3}"),
        Err(_) => timestamp.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_taken_apart() {
        let text = |text: &str| Part::Text(text.as_bytes().to_vec());
        let template = Template::parse("%t-%p@%o:\\t%k 100%% %v\\\\").unwrap();
        let expected = [
            Part::Topic,
            text("-"),
            Part::Partition,
            text("@"),
            Part::Offset,
            text(":\t"),
            Part::Key,
            text(" 100% "),
            Part::Value,
            text("\\"),
        ];
        assert_eq!(template.parts, expected);
    }

    #[test]
    fn what_means_nothing_is_an_error_that_says_what_there_is() {
        for (template, part) in [("%x", "`%x`"), ("a%", "`%`"), ("\\q", "`\\q`")] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.starts_with(part), "{error}");
        }
    }

    #[test]
    fn dates_are_of_rfc_3339() {
        assert_eq!(date(Timestamp::from_millis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(date(Timestamp::from_millis(i64::MAX)), i64::MAX.to_string());
    }
}
