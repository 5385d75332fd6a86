//! Typed keys and values: how a type of the program becomes the bytes of a record, and the way back.
//!
//! | codec     | types                    | feature   | refuses                                               |
//! |-----------|--------------------------|-----------|-------------------------------------------------------|
//! | `Raw`     | anything that is bytes   |           | nothing                                               |
//! | `Utf8`    | anything that is text    |           | bytes that are not UTF-8                              |
//! | `Bincode` | what serde can serialize | `bincode` | more than its limit, bytes behind the value           |
//! | `Json`    | what serde can serialize | `json`    | more than its limit, text behind the value            |
//!
//! The log itself knows bytes only. A codec runs before anything is written and after everything is read, so one that
//! fails or panics leaves no trace in the log. Any type that implements [`Encode`] or [`Decode`] is a codec.

use std::borrow::Cow;
#[cfg(feature = "json")]
use std::io;

use crate::error::{Error, Result};
use crate::record::ProducerRecord;
use crate::types::{Offset, TopicPartition};

/// What a codec says went wrong.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Turns values into bytes. Kafka: `Serializer`.
///
/// ```
/// use tidelog::{CodecError, Decode, Encode, ProducerRecord};
///
/// /// Numbers as Kafka's `LongSerializer` writes them.
/// struct Long;
///
/// impl Encode<i64> for Long {
///     fn encode(&self, value: &i64, out: &mut Vec<u8>) -> Result<(), CodecError> {
///         out.extend_from_slice(&value.to_be_bytes());
///         Ok(())
///     }
/// }
///
/// impl Decode<i64> for Long {
///     fn decode(&self, bytes: &[u8]) -> Result<i64, CodecError> {
///         Ok(i64::from_be_bytes(bytes.try_into()?))
///     }
/// }
///
/// let record = ProducerRecord::encoded("temperatures", &Long, &-7)?;
/// assert_eq!(record.value_bytes(), Some(&[255, 255, 255, 255, 255, 255, 255, 249][..]));
/// # Ok::<(), tidelog::Error>(())
/// ```
pub trait Encode<T: ?Sized> {
    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    ///
    /// When there are no bytes for this value. What was appended by then does not count.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// Turns bytes into values. Kafka: `Deserializer`. See [`Encode`] for an example.
pub trait Decode<T> {
    /// The value that these bytes, all of them, stand for.
    ///
    /// The bytes may be anything: whoever can send to a topic chooses them.
    ///
    /// # Errors
    ///
    /// When there is no value for these bytes.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// Bytes as they are: for code that is generic over its codec. Kafka: `ByteArraySerializer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl<T: AsRef<[u8]> + ?Sized> Encode<T> for Raw {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.as_ref());
        Ok(())
    }
}

impl Decode<Vec<u8>> for Raw {
    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

/// Text as UTF-8. Kafka: `StringSerializer`.
///
/// ```
/// use tidelog::{Decode, ProducerRecord, Utf8};
///
/// let record = ProducerRecord::encoded("orders", &Utf8, "paid 12.50 €")?.encoded_key(&Utf8, "user-7")?;
/// assert_eq!(Utf8.decode(record.value_bytes().unwrap()).unwrap(), "paid 12.50 €");
/// # Ok::<(), tidelog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl<T: AsRef<str> + ?Sized> Encode<T> for Utf8 {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.as_ref().as_bytes());
        Ok(())
    }
}

impl Decode<String> for Utf8 {
    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        Ok(str::from_utf8(bytes)?.to_owned())
    }
}

/// The limit of a codec that was given none: Kafka's default for the largest record, `max.request.size`.
#[cfg(any(feature = "bincode", feature = "json"))]
const DEFAULT_LIMIT_BYTES: usize = 1 << 20;

/// What serde can serialize, in bincode 2 (`config::standard()`): small, quick, and no field can be added later.
///
/// Always with a limit, in bytes, because without one ten hostile bytes abort the process: they announce a string that
/// no memory can hold. The limit counts every number, and the length of everything that has one, at its full width,
/// because that is how bincode counts when it decodes. It holds in both directions alike: what can be encoded can be
/// decoded. Default: 1 MiB.
///
/// Bincode bounds neither how deep a value nests nor how many values of no bytes stand in a row. Do not use it to decode
/// a type that contains itself (a tree), or a list of `()`, from somebody whom you do not trust; [`Json`] bounds both.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidelog::{Bincode, Decode, ProducerRecord};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Paid {
///     user: u64,
///     cents: i64,
/// }
///
/// let codec = Bincode::new(); // or Bincode::with_limit::<{ 16 << 20 }>()
/// let record = ProducerRecord::encoded("orders", &codec, &Paid { user: 7, cents: 1250 })?;
///
/// let paid: Paid = codec.decode(record.value_bytes().unwrap()).unwrap();
/// assert_eq!(paid, Paid { user: 7, cents: 1250 });
/// # Ok::<(), tidelog::Error>(())
/// ```
#[cfg(feature = "bincode")]
#[cfg_attr(docsrs, doc(cfg(feature = "bincode")))]
#[derive(Clone, Copy, Debug)]
pub struct Bincode<const LIMIT: usize = DEFAULT_LIMIT_BYTES>(());

#[cfg(feature = "bincode")]
impl Bincode {
    /// The codec with the default limit, 1 MiB.
    pub const fn new() -> Self {
        Bincode(())
    }

    /// The codec with a limit of your own, in bytes. Bincode has it in the type.
    pub const fn with_limit<const LIMIT: usize>() -> Bincode<LIMIT> {
        Bincode(())
    }
}

#[cfg(feature = "bincode")]
impl<const LIMIT: usize> Default for Bincode<LIMIT> {
    fn default() -> Self {
        Bincode(())
    }
}

/// How many times the bytes of a value that bincode wrote its full width can be: a `u128` in one byte takes sixteen.
#[cfg(feature = "bincode")]
const BINCODE_LARGEST_GROWTH: usize = 16;

#[cfg(feature = "bincode")]
impl<const LIMIT: usize, T: serde::Serialize + ?Sized> Encode<T> for Bincode<LIMIT> {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        bincode::serde::encode_into_writer(value, Bounded::new(out, LIMIT), bincode::config::standard())?;
        if out.len() - start > LIMIT / BINCODE_LARGEST_GROWTH {
            // Near the limit, one more pass counts what decoding will count.
            let full_width = bincode::config::standard().with_fixed_int_encoding();
            bincode::serde::encode_into_writer(value, Bounded::counting(LIMIT), full_width)?;
        }
        Ok(())
    }
}

#[cfg(feature = "bincode")]
impl<const LIMIT: usize, T: serde::de::DeserializeOwned> Decode<T> for Bincode<LIMIT> {
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<LIMIT>();
        let (value, used) = bincode::serde::decode_from_slice(bytes, config)?;
        if used < bytes.len() {
            return Err(format!("{} bytes stand behind the value", bytes.len() - used).into());
        }
        Ok(value)
    }
}

/// What serde can serialize, as JSON text without white space.
///
/// With a limit, in bytes of text, that holds in both directions. Default: 1 MiB. Values may nest 128 deep. Behind the
/// value, nothing but white space may follow. JSON has no NaN and no infinity: serde_json writes `null`.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use tidelog::{Json, ProducerRecord};
///
/// let codec = Json::new().limit_bytes(64 << 10);
/// let record = ProducerRecord::encoded("orders", &codec, &BTreeMap::from([("cents", 1250)]))?;
/// assert_eq!(record.value_bytes(), Some(&br#"{"cents":1250}"#[..]));
/// # Ok::<(), tidelog::Error>(())
/// ```
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
#[derive(Clone, Copy, Debug)]
pub struct Json {
    limit_bytes: usize,
}

#[cfg(feature = "json")]
impl Json {
    /// The codec with the default limit, 1 MiB.
    pub const fn new() -> Self {
        Json { limit_bytes: DEFAULT_LIMIT_BYTES }
    }

    /// The most bytes that a value may take, encoded.
    #[must_use]
    pub const fn limit_bytes(mut self, bytes: usize) -> Self {
        self.limit_bytes = bytes;
        self
    }
}

#[cfg(feature = "json")]
impl Default for Json {
    fn default() -> Self {
        Json::new()
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize + ?Sized> Encode<T> for Json {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(Bounded::new(out, self.limit_bytes), value)?)
    }
}

#[cfg(feature = "json")]
impl<T: serde::de::DeserializeOwned> Decode<T> for Json {
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        if bytes.len() > self.limit_bytes {
            return Err(format!("{} bytes are over the codec's limit of {}", bytes.len(), self.limit_bytes).into());
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl<'a> ProducerRecord<'a> {
    /// A record with this value, encoded, and, for now, no key.
    ///
    /// ```
    /// use tidelog::{ProducerRecord, Utf8};
    ///
    /// let record = ProducerRecord::encoded("orders", &Utf8, "paid 12.50")?.encoded_key(&Utf8, "user-7")?;
    /// assert_eq!(record.key_bytes(), Some(&b"user-7"[..]));
    /// # Ok::<(), tidelog::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Serialization`] with what the codec said.
    pub fn encoded<T: ?Sized>(topic: &'a str, codec: &(impl Encode<T> + ?Sized), value: &T) -> Result<Self> {
        Ok(Self::from_parts(topic, None, Some(encode(codec, value)?)))
    }

    /// A record with this key, encoded, and without a value: in a compacted topic it deletes the key.
    ///
    /// # Errors
    ///
    /// [`Error::Serialization`] with what the codec said.
    pub fn encoded_tombstone<T: ?Sized>(topic: &'a str, codec: &(impl Encode<T> + ?Sized), key: &T) -> Result<Self> {
        Ok(Self::from_parts(topic, Some(encode(codec, key)?), None))
    }

    /// Gives the record a key, encoded. Records of one key go to one partition and keep their order, so the codec
    /// must turn equal keys into equal bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Serialization`] with what the codec said.
    pub fn encoded_key<T: ?Sized>(mut self, codec: &(impl Encode<T> + ?Sized), key: &T) -> Result<Self> {
        self.key = Some(encode(codec, key)?);
        Ok(self)
    }
}

fn encode<T: ?Sized>(codec: &(impl Encode<T> + ?Sized), value: &T) -> Result<Cow<'static, [u8]>> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).map_err(|source| Error::Serialization { source })?;
    Ok(Cow::Owned(bytes))
}

/// The value that the key or value of the record at `offset` stands for, or `None` if there is no key or value.
/// `partition` is asked for only if the codec fails.
pub(crate) fn decode_at<T>(
    codec: &(impl Decode<T> + ?Sized),
    partition: impl FnOnce() -> TopicPartition,
    offset: Offset,
    bytes: Option<&[u8]>,
) -> Result<Option<T>> {
    let decoded = bytes.map(|bytes| codec.decode(bytes)).transpose();
    decoded.map_err(|source| Error::Deserialization { partition: partition(), offset, source })
}

/// Takes bytes up to a limit and refuses the rest, so that an endless value costs no more memory than the largest.
#[cfg(any(feature = "bincode", feature = "json"))]
struct Bounded<'a> {
    /// Where the bytes go; `None` only counts them.
    out: Option<&'a mut Vec<u8>>,
    left: usize,
    limit: usize,
}

#[cfg(any(feature = "bincode", feature = "json"))]
impl<'a> Bounded<'a> {
    fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        Bounded { out: Some(out), left: limit, limit }
    }

    #[cfg(feature = "bincode")]
    fn counting(limit: usize) -> Self {
        Bounded { out: None, left: limit, limit }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => return Err(format!("the value is over the codec's limit of {} bytes", self.limit)),
        }
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
        Ok(())
    }
}

#[cfg(feature = "json")]
impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "bincode")]
impl bincode::enc::write::Writer for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.take(bytes).map_err(bincode::error::EncodeError::OtherString)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A codec that can do nothing.
    struct Broken;

    impl<T: ?Sized> Encode<T> for Broken {
        fn encode(&self, _: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
            out.push(1);
            Err("out of order".into())
        }
    }

    impl<T> Decode<T> for Broken {
        fn decode(&self, _: &[u8]) -> Result<T, CodecError> {
            Err("out of order".into())
        }
    }

    fn decoded<T>(codec: &impl Decode<T>, bytes: Option<&[u8]>) -> Result<Option<T>> {
        decode_at(codec, || TopicPartition::new("orders", 2), Offset::new(41), bytes)
    }

    #[test]
    fn plain_text_and_bytes_come_back_as_they_were() {
        let record = ProducerRecord::encoded("orders", &Utf8, "paid").unwrap().encoded_key(&Raw, &[0, 255]).unwrap();
        assert_eq!(record.topic(), "orders");
        assert_eq!(decoded(&Utf8, record.value_bytes()).unwrap(), Some("paid".to_owned()));
        assert_eq!(decoded(&Raw, record.key_bytes()).unwrap(), Some(vec![0, 255]));
        assert!(decoded(&Utf8, Some(&[0, 255])).is_err());
    }

    #[test]
    fn what_is_not_there_decodes_to_nothing_and_is_not_what_is_empty() {
        let tombstone = ProducerRecord::encoded_tombstone("orders", &Utf8, "user-7").unwrap();
        assert_eq!(tombstone.key_bytes(), Some(&b"user-7"[..]));
        assert_eq!(decoded(&Utf8, tombstone.value_bytes()).unwrap(), None);
        assert_eq!(decoded(&Utf8, Some(b"")).unwrap(), Some(String::new()));
    }

    #[test]
    fn a_codec_that_fails_is_quoted_and_the_record_is_named() {
        let records = [
            ProducerRecord::encoded("orders", &Broken, "paid"),
            ProducerRecord::encoded_tombstone("orders", &Broken, "user-7"),
            ProducerRecord::new("orders", b"paid").encoded_key(&Broken, "user-7"),
        ];
        for record in records {
            let error = record.unwrap_err();
            assert!(matches!(error, Error::Serialization { .. }), "{error:?}");
            assert_eq!(error.to_string(), "cannot encode: out of order");
        }

        let error = decoded::<String>(&Broken, Some(b"x")).unwrap_err();
        assert_eq!(error.to_string(), "cannot decode offset 41 of orders-2: out of order; seek past it to go on");
        match error {
            Error::Deserialization { partition, offset, .. } => {
                assert_eq!((partition, offset), (TopicPartition::new("orders", 2), Offset::new(41)));
            }
            error => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_codec_may_be_chosen_at_run_time() {
        let codecs: [Box<dyn Encode<str>>; 2] = [Box::new(Utf8), Box::new(Raw)];
        for codec in codecs {
            assert_eq!(ProducerRecord::encoded("orders", &*codec, "paid").unwrap().value_bytes(), Some(&b"paid"[..]));
        }
    }

    /// What every codec for serde's types must do.
    #[cfg(any(feature = "bincode", feature = "json"))]
    mod serde_types {
        use std::collections::BTreeMap;
        use std::fmt::Debug;

        use proptest::prelude::*;
        use serde::de::DeserializeOwned;
        use serde::{Deserialize, Serialize};

        use super::*;

        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        enum Event {
            Opened,
            Paid { user: u64, cents: i128, note: Option<String> },
            Tagged(BTreeMap<String, Vec<u32>>, char, bool),
            Measured(Vec<(i16, f64)>),
        }

        fn event() -> impl Strategy<Value = Event> {
            let paid = (any::<u64>(), any::<i128>(), any::<Option<String>>());
            let tagged = prop::collection::btree_map(any::<String>(), any::<Vec<u32>>(), 0..4);
            let measured = (any::<i16>(), -1.0e9..1.0e9f64).prop_map(|(at, value)| (at, value.round()));
            prop_oneof![
                Just(Event::Opened),
                paid.prop_map(|(user, cents, note)| Event::Paid { user, cents, note }),
                (tagged, any::<char>(), any::<bool>()).prop_map(|(tags, mark, new)| Event::Tagged(tags, mark, new)),
                prop::collection::vec(measured, 0..20).prop_map(Event::Measured),
            ]
        }

        fn bytes_of<T: Serialize + ?Sized>(codec: &impl Encode<T>, value: &T) -> Result<Vec<u8>, CodecError> {
            let mut bytes = Vec::new();
            codec.encode(value, &mut bytes).map(|()| bytes)
        }

        /// Encodes behind what is there already, decodes, and refuses each shorter and one longer encoding.
        fn holds_its_promises<T, C>(codec: &C, value: &T)
        where
            T: Serialize + DeserializeOwned + PartialEq + Debug,
            C: Encode<T> + Decode<T>,
        {
            let mut bytes = b"before".to_vec();
            codec.encode(value, &mut bytes).unwrap();
            let encoded = bytes.strip_prefix(b"before").unwrap();
            assert_eq!(&codec.decode(encoded).unwrap(), value);

            for end in 0..encoded.len() {
                assert!(codec.decode(&encoded[..end]).is_err(), "{value:?} in {end} bytes");
            }
            for extra in [0, b'0', 255] {
                assert!(codec.decode(&[encoded, &[extra]].concat()).is_err(), "{value:?} with {extra} behind");
            }
        }

        #[cfg(feature = "bincode")]
        mod with_bincode {
            use super::*;

            /// A varint of nine bytes that announces a string of 2^63 - 1, and one byte of it.
            const HOSTILE: [u8; 10] = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, b'a'];

            proptest! {
                #[test]
                fn values_come_back_as_they_were(event in event()) {
                    holds_its_promises(&Bincode::new(), &event);
                }

                #[test]
                fn no_bytes_abort_the_process(bytes in any::<Vec<u8>>()) {
                    let decoded: Result<Event, _> = Bincode::new().decode(&bytes);
                    if let Ok(event) = decoded {
                        bytes_of(&Bincode::new(), &event).unwrap();
                    }
                }

                #[test]
                fn what_can_be_encoded_can_be_decoded(
                    numbers in prop::collection::vec(prop_oneof![Just(0u128), any::<u128>()], 0..40),
                    text in ".{0,300}",
                ) {
                    let codec = Bincode::with_limit::<256>();
                    let value = (numbers, text);
                    match bytes_of(&codec, &value) {
                        Ok(bytes) => {
                            let decoded: (Vec<u128>, String) = codec.decode(&bytes).unwrap();
                            prop_assert_eq!(decoded, value);
                        }
                        Err(_) => {
                            let bytes = bytes_of(&Bincode::new(), &value).unwrap();
                            let decoded: Result<(Vec<u128>, String), _> = codec.decode(&bytes);
                            prop_assert!(decoded.is_err(), "only the encoder refuses {:?}", value);
                        }
                    }
                }
            }

            #[test]
            fn ten_hostile_bytes_are_an_error_and_not_the_end_of_the_process() {
                let text: Result<String, _> = Bincode::new().decode(&HOSTILE);
                assert!(text.unwrap_err().to_string().contains("LimitExceeded"));
                let numbers: Result<Vec<u64>, _> = Bincode::new().decode(&HOSTILE);
                assert!(numbers.is_err());
                let map: Result<BTreeMap<String, String>, _> = Bincode::new().decode(&HOSTILE);
                assert!(map.is_err());
            }

            #[test]
            fn a_value_over_the_limit_is_refused_before_it_is_built() {
                let codec = Bincode::with_limit::<1024>();
                // The length counts eight bytes.
                bytes_of(&codec, &"x".repeat(1016)).unwrap();
                let mut out = Vec::new();
                let error = codec.encode(&"x".repeat(1017), &mut out).unwrap_err();
                assert!(error.to_string().contains("over the codec's limit of 1024 bytes"), "{error}");
                let error = codec.encode(&vec!["x".repeat(100); 1_000_000], &mut out).unwrap_err();
                assert!(error.to_string().contains("limit"), "{error}");
                assert!(out.capacity() < 8192, "{}", out.capacity());

                let default = Bincode::new();
                bytes_of(&default, &vec![1u8; DEFAULT_LIMIT_BYTES - 8]).unwrap();
                assert!(bytes_of(&default, &vec![1u8; DEFAULT_LIMIT_BYTES - 7]).is_err());
            }
        }

        #[cfg(feature = "json")]
        mod with_json {
            use super::*;

            proptest! {
                #[test]
                fn values_come_back_as_they_were(event in event()) {
                    holds_its_promises(&Json::new(), &event);
                }

                #[test]
                fn no_text_aborts_the_process(text in r#"[\[\]{}",:0-9a-zA-Z\\ ]{0,60}"#) {
                    let decoded: Result<Event, _> = Json::new().decode(text.as_bytes());
                    if let Ok(event) = decoded {
                        bytes_of(&Json::new(), &event).unwrap();
                    }
                }
            }

            #[test]
            fn ten_thousand_brackets_are_an_error_and_not_the_end_of_the_process() {
                let decoded: Result<serde_json::Value, _> = Json::new().decode("[".repeat(10_000).as_bytes());
                assert!(decoded.unwrap_err().to_string().contains("recursion limit"));
            }

            #[test]
            fn a_value_over_the_limit_is_refused_in_both_directions() {
                let codec = Json::new().limit_bytes(1024);
                // Two quotation marks stand around the text.
                let largest = bytes_of(&codec, &"x".repeat(1022)).unwrap();
                let decoded: String = codec.decode(&largest).unwrap();
                assert_eq!(decoded, "x".repeat(1022));

                let mut out = Vec::new();
                let error = codec.encode(&"x".repeat(1023), &mut out).unwrap_err();
                assert!(error.to_string().contains("over the codec's limit of 1024 bytes"), "{error}");
                assert!(out.capacity() < 8192, "{}", out.capacity());
                let larger = bytes_of(&Json::new(), &"x".repeat(1023)).unwrap();
                let decoded: Result<String, _> = codec.decode(&larger);
                assert_eq!(decoded.unwrap_err().to_string(), "1025 bytes are over the codec's limit of 1024");
            }

            #[test]
            fn white_space_may_stand_behind_the_value_and_nothing_else() {
                assert_eq!(Decode::<u32>::decode(&Json::new(), b"7 \n").unwrap(), 7);
                assert!(Decode::<u32>::decode(&Json::new(), b"7 8").is_err());
            }
        }
    }
}
