//! Keys and values of the user's own types, on both ends.
#![cfg(all(feature = "bincode", feature = "json", feature = "sim"))]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidelog::sim::Machine;
use tidelog::{
    Bincode, CodecError, Consumer, ConsumerConfig, Encode, Error, EventLog, Json, LogConfig, OffsetReset,
    ProducerRecord, TopicConfig,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Paid {
    cents: u64,
    currency: String,
}

fn paid(cents: u64) -> Paid {
    Paid { cents, currency: "EUR".into() }
}

fn log() -> EventLog {
    let log = Machine::new(1).open(LogConfig::new().background(false)).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    log
}

fn reader(log: &EventLog) -> Consumer {
    log.producer().flush().unwrap();
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer
}

#[test]
fn typed_keys_and_values_come_back_as_they_were_sent() {
    let log = log();
    let (bincode, json) = (Bincode::new(), Json::new());
    let record = ProducerRecord::encoded("orders", &bincode, &paid(1250)).unwrap().encoded_key(&json, &7u32).unwrap();
    log.producer().send(record).unwrap();
    log.producer().send(ProducerRecord::tombstone("orders", b"7")).unwrap();

    let records = reader(&log).poll(Duration::ZERO).unwrap();
    let records: Vec<_> = records.iter().collect();

    assert_eq!(records[0].decode_value::<Paid, _>(&bincode).unwrap(), Some(paid(1250)));
    assert_eq!(records[0].decode_key::<u32, _>(&json).unwrap(), Some(7));
    assert_eq!(records[1].decode_value::<Paid, _>(&bincode).unwrap(), None);
}

#[test]
fn a_value_that_does_not_decode_says_where_it_is_and_the_consumer_goes_on_behind_it() {
    let log = log();
    let json = Json::new();
    log.producer().send(ProducerRecord::encoded("orders", &json, &paid(1)).unwrap()).unwrap();
    log.producer().send(ProducerRecord::new("orders", b"{\"cents\":2,\"currency\":\"EUR\"} and more")).unwrap();
    log.producer().send(ProducerRecord::encoded("orders", &json, &paid(3)).unwrap()).unwrap();

    let mut consumer = reader(&log);
    let records = consumer.poll(Duration::ZERO).unwrap();
    let decoded: Vec<_> = records.iter().map(|record| record.decode_value::<Paid, _>(&json)).collect();

    assert_eq!(decoded[0].as_ref().unwrap(), &Some(paid(1)));
    let Err(Error::Deserialization { partition, offset, .. }) = &decoded[1] else { panic!("{:?}", decoded[1]) };
    assert_eq!((partition.topic(), partition.partition(), offset.get()), ("orders", 0, 1));
    assert_eq!(decoded[2].as_ref().unwrap(), &Some(paid(3)));
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty(), "the position is behind all three");
}

#[test]
fn hostile_bytes_are_an_error_and_not_an_allocation() {
    let log = log();
    // A length of eight exabytes, as bincode writes it.
    log.producer().send(ProducerRecord::new("orders", &[253, 0, 0, 0, 0, 0, 0, 0, 128, 0])).unwrap();

    let records = reader(&log).poll(Duration::ZERO).unwrap();
    let decoded = records.iter().next().unwrap().decode_value::<Vec<u8>, _>(&Bincode::new());

    assert!(matches!(decoded, Err(Error::Deserialization { .. })), "{decoded:?}");
}

struct Panics;

impl Encode<u32> for Panics {
    fn encode(&self, _: &u32, _: &mut Vec<u8>) -> Result<(), CodecError> {
        panic!("planted")
    }
}

#[test]
fn a_codec_that_panics_or_fails_leaves_nothing_behind() {
    let log = log();
    assert!(std::panic::catch_unwind(|| ProducerRecord::encoded("orders", &Panics, &1u32).map(drop)).is_err());
    let too_long = ProducerRecord::encoded("orders", &Json::new().limit_bytes(4), &paid(1));
    assert!(matches!(too_long, Err(Error::Serialization { .. })));

    log.producer().send(ProducerRecord::new("orders", b"1")).unwrap();
    assert_eq!(reader(&log).poll(Duration::ZERO).unwrap().len(), 1);
}
