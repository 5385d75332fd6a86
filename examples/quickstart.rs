//! The whole model on one screen: a topic, a producer, a consumer of a group, a commit.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::time::Duration;

use tidelog::{ConsumerConfig, EventLog, OffsetReset, ProducerRecord, TopicConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let log = EventLog::open(directory.path())?;
    log.create_topic("orders", TopicConfig::new().partitions(3))?;

    // Records of one key go to one partition, and stay in order there.
    let producer = log.producer();
    for (user, order) in [("ada", "tea"), ("bob", "coffee"), ("ada", "cake"), ("cleo", "water"), ("bob", "cake")] {
        producer.send(ProducerRecord::new("orders", order).key(user))?;
    }
    // One sync for all of them; from here on they survive a power cut. (They survived the process already.)
    producer.flush()?;

    let config = ConsumerConfig::group("kitchen").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config)?;
    consumer.subscribe(["orders"])?;
    let records = consumer.poll(Duration::from_millis(100))?;
    for record in &records {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        println!("{}@{}  {}: {}", record.topic_partition(), record.offset(), text(record.key()), text(record.value()));
    }
    assert_eq!(records.len(), 5);
    // The group goes on behind them, in this process or in the next.
    consumer.commit()?;
    consumer.close()?;

    for offset in log.describe_group("kitchen")?.offsets {
        let next = offset.committed.unwrap_or_default();
        println!("kitchen goes on at {}@{next}, {} to go", offset.partition, offset.lag);
    }
    log.close()?;
    Ok(())
}
