//! Where the stories of `duplicates` and `losses` take place: a log on a simulated machine, with orders in it.

use tidelog::sim::Machine;
use tidelog::{Consumer, ConsumerConfig, EventLog, LogConfig, OffsetReset, ProducerRecord, TopicConfig};

/// How many orders there are.
pub(crate) const ORDERS: usize = 10;

/// Opens the log and sends the orders.
pub(crate) fn open(machine: &Machine) -> tidelog::Result<EventLog> {
    let log = machine.open(LogConfig::new())?;
    // Small segments, because the next life of the machine begins with a copy of its disk.
    for topic in ["orders", "dlq.orders"] {
        log.create_topic(topic, TopicConfig::new().segment_bytes(1 << 16))?;
    }
    for order in 0..ORDERS {
        log.producer().send(ProducerRecord::new("orders", &format!("order {order}")))?;
    }
    log.producer().flush()?;
    Ok(log)
}

/// Somebody who reads all orders.
pub(crate) fn member(log: &EventLog, config: ConsumerConfig) -> tidelog::Result<Consumer> {
    let mut consumer = log.consumer(config.auto_offset_reset(OffsetReset::Earliest))?;
    consumer.subscribe(["orders"])?;
    Ok(consumer)
}
