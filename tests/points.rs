//! Without the feature `sim` a program pays nothing for the simulation: there is nothing of it in the program.

/// In a constant nothing can be called: without the feature the macro is no call.
#[cfg(not(feature = "sim"))]
const _: () = {
    tidelog::point!("charged");
};

#[test]
fn the_hooks_are_in_a_program_if_it_asks_for_them() {
    let log = tempfile::tempdir().unwrap();
    let log = tidelog::EventLog::open(log.path()).unwrap();
    log.create_topic("orders", tidelog::TopicConfig::new()).unwrap();
    log.producer().send(tidelog::ProducerRecord::new("orders", b"1")).unwrap().wait().unwrap();
    let mut consumer = log.consumer(tidelog::ConsumerConfig::group("billing")).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer.poll(std::time::Duration::ZERO).unwrap();
    consumer.commit().unwrap();

    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    // The name of a module, as it stands in the names of its functions; put together here, so that this is not it.
    let name: Vec<u8> = [b"looked".as_slice(), b"_at"].concat();
    let is_there = program.windows(name.len()).any(|window| window == name);

    assert_eq!(is_there, cfg!(feature = "sim"));
}
