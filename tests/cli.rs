//! The command-line tool, from outside: what goes in comes out, and what is said is said in the right place.

mod tool;

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};
use tidelog::EventLog;
use tool::{Ended, Place};

/// The objects of JSON lines.
fn objects(out: &[u8]) -> Vec<Value> {
    let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// A log with the topic `orders` of 3 partitions.
fn with_orders() -> Place {
    let place = Place::new();
    place.run(&["topics", "create", "orders", "--partitions", "3"]).out();
    place
}

#[track_caller]
fn failed(ended: &Ended, code: i32, error: &str) {
    assert_eq!(ended.err, error);
    assert_eq!(ended.code, Some(code));
    assert_eq!(ended.out, b"");
}

#[test]
fn lines_come_back_byte_for_byte() {
    let place = Place::new();
    let lines =
        b"plain\n\n\r\nwith a carriage return\r\n\xff\xfe\x00 no text\n\ttab\n  \n\xc3\xa9\nlast, without a line feed";

    let told = place.run_with(&["produce", "orders", "--create-topic"], lines).text();
    let out = place.run(&["consume", "orders"]).out();

    assert!(told.starts_with("sent 9 records to orders: 73 bytes in 0."), "{told}");
    assert_eq!(out, [&lines[..], b"\n"].concat());
}

#[test]
fn no_lines_are_no_records_and_a_line_feed_alone_is_one() {
    let place = with_orders();
    assert!(place.run(&["produce", "orders"]).text().starts_with("sent 0 records to orders: 0 bytes in "));
    let ended = place.run(&["consume", "orders"]);
    assert_eq!((ended.code, ended.out), (Some(0), Vec::new()));
    assert_eq!(ended.err, "tidelog: note: there is nothing to read in orders yet\n");

    place.run_with(&["produce", "orders"], b"\n").out();
    assert_eq!(place.run(&["consume", "orders"]).out(), b"\n");
}

#[test]
fn a_file_is_sent_like_standard_input() {
    let place = with_orders();
    let file = place.path().join("lines.txt");
    std::fs::write(&file, "a\nb\n").unwrap();
    let file = file.to_str().unwrap();
    place.run(&["produce", "orders", "--file", file, "--partition", "2"]).out();
    assert_eq!(place.run(&["consume", "orders", "--format", "%p %o %v"]).out(), b"2 0 a\n2 1 b\n");

    let missing = format!("{file}.not");
    let error = format!("tidelog: error: cannot open {missing}: No such file or directory (os error 2)\n");
    failed(&place.run(&["produce", "orders", "--file", &missing]), 1, &error);
}

#[test]
fn keys_stand_before_a_separator() {
    let place = with_orders();
    let told = place.run_with(&["produce", "orders", "--key-separator", "::"], b"k::v::w\n::\nno key\n").text();
    assert!(told.ends_with("; 1 without a key\n"), "{told}");
    let out = place.run(&["consume", "orders", "--format", "%k=%v"]).text();
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["=", "k=v::w", "null=no key"]);
}

#[test]
fn keys_are_the_first_group_of_a_regular_expression_or_all_of_it() {
    let place = with_orders();
    let lines = b"sshd[17]: a\nsshd[18]: \xff\nsshd: none\n";
    place.run_with(&["produce", "orders", "--key-regex", r"\[(\d+)\]", "--partition", "0"], lines).out();
    place.run_with(&["produce", "orders", "--key-regex", r"\[\d+\]", "--partition", "1"], lines).out();
    let out = place.run(&["consume", "orders", "--partition", "0", "--format", "%k|%v"]).out();
    assert_eq!(out, b"17|sshd[17]: a\n18|sshd[18]: \xff\nnull|sshd: none\n");
    let out = place.run(&["consume", "orders", "--partition", "1", "--format", "%k"]).out();
    assert_eq!(out, b"[17]\n[18]\nnull\n");
}

#[test]
fn json_keeps_what_is_no_text_and_headers_in_order() {
    let place = with_orders();
    let words = ["produce", "orders", "--key-separator", ":", "--header", "a=1", "--header", "b=x=y", "--header", "a="];
    let told = place.run_with(&[&words[..], &["--partition", "1", "--output", "json"]].concat(), b"k:\xff\nv\n").out();
    let told = &objects(&told)[0];
    assert_eq!((&told["topic"], &told["records"], &told["without_key"]), (&json!("orders"), &json!(2), &json!(1)));

    let mut records = objects(&place.run(&["consume", "orders", "--output", "json"]).out());
    for record in &mut records {
        assert!(record["timestamp"].take().as_i64().unwrap() > 1_600_000_000_000);
    }
    let headers = json!([["a", "1"], ["b", "x=y"], ["a", ""]]);
    let expected = [
        json!({"topic": "orders", "partition": 1, "offset": 0, "timestamp": null, "key": "k",
            "value": {"base64": "/w=="}, "headers": headers}),
        json!({"topic": "orders", "partition": 1, "offset": 1, "timestamp": null, "key": null,
            "value": "v", "headers": headers}),
    ];
    assert_eq!(records, expected);
    assert_eq!(
        place.run(&["consume", "orders", "--format", "json"]).out(),
        place.run(&["consume", "orders", "--output", "json"]).out()
    );
}

#[test]
fn acknowledgements_say_where_each_record_is() {
    let place = with_orders();
    let ended = place.run_with(&["produce", "orders", "--partition", "2", "--acks"], b"a\nb\n");
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"orders 2 0\norders 2 1\n"[..]));
    assert!(ended.err.starts_with("tidelog: sent 2 records to orders: 2 bytes in "), "{}", ended.err);
    let words = ["produce", "orders", "--partition", "2", "--acks", "--output", "json"];
    let acks = objects(&place.run_with(&words, b"c\n").out);
    assert_eq!(acks, [json!({"topic": "orders", "partition": 2, "offset": 2})]);
}

#[test]
fn a_reader_follows_what_another_process_sends() {
    let place = with_orders();
    let mut producer = place.start(&["produce", "orders", "--partition", "0", "--acks"]);
    let mut reader = place.start(&["consume", "orders", "--follow", "--from-beginning", "--format", "%o %v"]);
    for offset in 0..20 {
        producer.write(format!("line {offset}\n").as_bytes());
        assert_eq!(producer.line().unwrap(), format!("orders 0 {offset}").into_bytes());
        assert_eq!(reader.line().unwrap(), format!("{offset} line {offset}").into_bytes());
    }
    assert_eq!(producer.end(), (Vec::new(), Some(0)));
    let (rest, was_killed) = reader.kill();
    assert!(rest.is_empty() && was_killed);
}

#[test]
fn following_ends_after_as_many_records_as_were_asked_for_or_when_nothing_comes() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "0"], b"a\nb\nc\n").out();
    let words = ["consume", "orders", "--follow", "--from-beginning"];
    assert_eq!(place.run(&[&words[..], &["--max-messages", "2"]].concat()).out(), b"a\nb\n");
    assert_eq!(place.run(&[&words[..], &["--timeout-ms", "20"]].concat()).out(), b"a\nb\nc\n");
    // From the end on there is nothing.
    assert_eq!(place.run(&["consume", "orders", "-f", "--timeout-ms", "20"]).out(), b"");
}

#[test]
fn an_offset_is_where_reading_starts() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "0"], b"a\nb\nc\n").out();
    let from = |offset: &str| place.run(&["consume", "orders", "--partition", "0", "--offset", offset]);
    assert_eq!(from("1").out(), b"b\nc\n");
    assert_eq!(from("earliest").out(), b"a\nb\nc\n");
    for end in ["3", "latest"] {
        let ended = from(end);
        assert_eq!((ended.code, ended.out), (Some(0), Vec::new()));
        assert_eq!(ended.err, "tidelog: note: there is nothing to read from there on; --follow waits for more\n");
    }
    failed(&from("4"), 1, "tidelog: error: offset 4 of orders-0 is out of range: it holds 0..3\n");
}

#[test]
fn a_group_resumes_where_it_has_committed() {
    let place = with_orders();
    let lines = b"a\nb\nc\nd\n";
    place.run_with(&["produce", "orders", "--partition", "1"], lines).out();
    let words = ["consume", "orders", "--group", "billing", "--from-beginning"];
    assert_eq!(place.run(&[&words[..], &["--max-messages", "1"]].concat()).out(), b"a\n");
    assert_eq!(place.run(&[&words[..], &["--max-messages", "2"]].concat()).out(), b"b\nc\n");

    let expected = "\
TOPIC   PARTITION  COMMITTED  END  LAG  LOST  METADATA
orders          0          0    0    0     0
orders          1          3    4    1     0
orders          2          0    0    0     0
";
    assert_eq!(place.run(&["groups", "describe", "billing"]).text(), expected);
    let group = &objects(&place.run(&["groups", "describe", "billing", "--output", "json"]).out())[0];
    let second =
        json!({"topic": "orders", "partition": 1, "committed": 3, "end": 4, "lag": 1, "lost": 0, "metadata": ""});
    assert_eq!((&group["group"], &group["partitions"][1]), (&json!("billing"), &second));

    assert_eq!(place.run(&words).out(), b"d\n");
    let ended = place.run(&words);
    assert_eq!(ended.err, "tidelog: note: group billing has read all that there is in orders\n");
    assert_eq!((ended.code, ended.out), (Some(0), Vec::new()));
}

#[test]
fn a_group_is_moved_when_it_is_told_to_execute_and_deleted() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "1"], b"a\nb\nc\nd\n").out();
    place.run(&["consume", "orders", "--group", "billing", "--from-beginning"]).out();
    let kafkas = ["groups", "--bootstrap-server", "x", "--group", "billing", "--reset-offsets", "--topic", "orders:1"];

    let planned = place.run(&[&kafkas[..], &["--shift-by", "-3", "--dry-run"]].concat());
    assert!(planned.err.ends_with("tidelog: note: nothing was moved; add --execute to move it\n"), "{}", planned.err);
    let table = "TOPIC   PARTITION  COMMITTED  NEW\norders          1          4    1\n";
    assert_eq!((planned.code, planned.out), (Some(0), table.as_bytes().to_vec()));
    let words =
        ["groups", "reset-offsets", "billing", "--all-topics", "--to-offset", "2", "--execute", "--output", "json"];
    let moved = objects(&place.run(&words).out());
    let second = json!({"group": "billing", "topic": "orders", "partition": 1, "from": 4, "to": 2, "executed": true});
    assert_eq!((moved.len(), &moved[1]), (3, &second));
    assert_eq!(place.run(&["consume", "orders", "--group", "billing"]).out(), b"c\nd\n");

    let new = |to: &[&str]| {
        let words = ["groups", "reset-offsets", "billing", "--topic", "orders:1", "--output", "json"];
        objects(&place.run(&[&words, to].concat()).out)[0]["to"].clone()
    };
    for since in
        [["--to-datetime", "2h ago"], ["--to-datetime", "0"], ["--by-duration", "PT2H"], ["--by-duration", "2h"]]
    {
        assert_eq!(new(&since), 0, "all records are younger: {since:?}");
    }
    assert_eq!(new(&["--to-datetime", "2999-01-01T00:00:00Z"]), 4, "none is");

    let deleted = place.run(&["groups", "delete-offsets", "billing", "--topic", "orders:0,2"]);
    assert_eq!(deleted.text(), "deleted what group billing had committed for orders-0, orders-2\n");
    let left = "TOPIC   PARTITION  COMMITTED  END  LAG  LOST  METADATA\norders          1          4    4    0     0\n";
    assert_eq!(place.run(&["groups", "describe", "billing"]).text(), left);
    assert_eq!(place.run(&["groups", "--delete", "--group", "billing"]).text(), "deleted group billing\n");
    assert_eq!(place.run(&["groups", "list"]).out(), b"");
    assert_eq!(place.run(&["groups", "delete", "billing"]).code, Some(5));
    for nonsense in [
        &["groups", "describe", "billing", "--members"][..],
        &["groups", "reset-offsets", "billing", "--all-topics"],
        &["groups", "reset-offsets", "billing", "--to-latest"],
        &["groups", "reset-offsets", "billing", "--all-topics", "--to-latest", "--to-earliest"],
        &["groups", "reset-offsets", "billing", "--all-topics", "--by-duration", "2h ago"],
        &["groups", "delete-offsets", "billing"],
    ] {
        assert_eq!(place.run(nonsense).code, Some(2), "{nonsense:?}");
    }
}

#[test]
fn a_new_group_starts_at_the_end_and_keeps_that_place() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "1"], b"before\n").out();
    let words = ["consume", "orders", "--group", "late"];
    let ended = place.run(&words);
    assert_eq!(
        ended.err,
        "tidelog: note: group late is new and starts at the end; it gets what is sent from now on \
         (--from-beginning reads all)\n"
    );
    place.run_with(&["produce", "orders", "--partition", "1"], b"after\n").out();
    assert_eq!(place.run(&words).out(), b"after\n");
    assert_eq!(place.run(&["groups", "list"]).text(), "late\n");
    assert_eq!(objects(&place.run(&["groups", "list", "--output", "json"]).out()), [json!({"group": "late"})]);
}

#[test]
fn topics_are_described() {
    let place = with_orders();
    place.run(&["topics", "create", "fast", "--durability", "os", "--config", "segment.bytes=8192"]).out();
    place.run_with(&["produce", "fast"], b"a\nb\n").out();
    assert_eq!(place.run(&["topics", "list"]).text(), "fast\norders\n");
    let described = |topic: &str, durability: &str, segment_bytes: u32, ends: &[u32]| {
        let row = |(number, end): (usize, &u32)| {
            format!("{number:>11}      0    {end}        {end}        {end}         1   4096\n")
        };
        let rows: String = ends.iter().enumerate().map(row).collect();
        format!(
            "\
{topic}
  cleanup.policy                   delete
  delete.retention.ms              86400000
  durability                       {durability}
  max.compaction.lag.ms            -1
  max.message.bytes                1048576
  message.timestamp.after.max.ms   -1
  message.timestamp.before.max.ms  -1
  message.timestamp.type           CreateTime
  min.cleanable.dirty.ratio        0.5
  min.compaction.lag.ms            0
  partition.max.bytes              -1
  retention.bytes                  -1
  retention.groups
  retention.ms                     -1
  retention.records                -1
  segment.bytes                    {segment_bytes}
  segment.ms                       -1
  when.full                        refuse

  PARTITION  START  END  VISIBLE  DURABLE  SEGMENTS  BYTES
{rows}"
        )
    };
    let (fast, orders) = (described("fast", "os", 8192, &[2]), described("orders", "sync", 64 << 20, &[0, 0, 0]));
    assert_eq!(place.run(&["topics", "describe"]).text(), format!("{fast}\n{orders}"));
    let topic = &objects(&place.run(&["topics", "describe", "fast", "--output", "json"]).out())[0];
    assert_eq!((&topic["topic"], &topic["config"]["durability"]), (&json!("fast"), &json!("os")));
    assert_eq!(topic["partitions"][0]["log_end"], json!(2));
}

#[test]
fn topics_are_altered_and_a_dry_run_says_what_would_go() {
    let place = Place::new();
    place.run(&["topics", "create", "orders", "--segment-bytes", "4096"]).out();
    let lines = "x".repeat(700) + "\n";
    place.run_with(&["produce", "orders"], lines.repeat(15).as_bytes()).out();
    let words = ["topics", "alter", "orders", "--config", "retention.records=7", "--partitions", "2"];
    let expected = "\
would change retention.records of orders from \"-1\" to \"7\"
would change partitions of orders from \"1\" to \"2\"
orders-0 no longer keeps 5 records before offset 5: 1 segments, 3,888 bytes
";
    assert_eq!(place.run(&[&words[..], &["--dry-run"]].concat()).text(), expected);
    assert_eq!(place.run(&["offsets", "orders", "--time", "earliest"]).text().lines().count(), 2);
    let changed = objects(&place.run(&[&words[..], &["--output", "json"]].concat()).out());
    assert_eq!(changed[0]["after"], json!({"retention.records": "7", "partitions": "2"}));
    // Whoever opens the log for writing next removes what is no longer kept; a command may be over before that.
    EventLog::open(place.path()).unwrap().apply_retention().unwrap();
    let expected = "\
TOPIC   PARTITION  OFFSET  TIMESTAMP
orders          0       5          -
orders          1       0          -
";
    assert_eq!(place.run(&["offsets", "orders", "--time", "-2"]).text(), expected);
    assert_eq!(
        place.run(&["topics", "--alter", "--topic", "orders", "--config", "retention.records=7"]).text(),
        "orders is as it should be already\n"
    );
    failed(
        &place.run(&["topics", "alter", "orders"]),
        2,
        "tidelog: error: nothing is to be changed; name a setting, as in --config retention.ms=604800000\n",
    );
    failed(
        &place.run(&["topics", "alter", "orders", "--config", "when.full=never"]),
        2,
        "tidelog: error: invalid `when.full`: \"never\" is none of `refuse`, `drop-oldest`, `wait` and `wait:60000ms`\n",
    );
}

#[test]
fn records_are_found_and_read_by_time() {
    let place = with_orders();
    let log = EventLog::open(place.path()).unwrap();
    for (millis, value) in [(1_700_000_000_000, "a"), (1_700_000_003_000, "b"), (1_700_000_001_000, "c")] {
        let record = tidelog::ProducerRecord::new("orders", value).partition(1);
        log.producer().send(record.timestamp(tidelog::Timestamp::from_millis(millis))).unwrap();
    }
    log.close().unwrap();
    let at = |time: &str| place.run(&["offsets", "orders", "--partition", "1", "--time", time]).text();
    let line = |offset: &str, timestamp: &str| {
        let width = timestamp.len().max(9);
        format!(
            "TOPIC   PARTITION  OFFSET  {:>width$}\norders          1  {offset:>6}  {timestamp:>width$}\n",
            "TIMESTAMP"
        )
    };
    assert_eq!(at("latest"), line("3", "-"));
    assert_eq!(at("earliest"), line("0", "-"));
    assert_eq!(at("max-timestamp"), line("1", "1700000003000"));
    assert_eq!(at("1700000000001"), line("1", "1700000003000"));
    assert_eq!(at("2023-11-14T22:13:20Z"), line("0", "1700000000000"));
    assert_eq!(at("1h ago"), line("-", "-"));
    assert_eq!(place.run(&["consume", "orders", "--from-time", "2023-11-14T22:13:21Z"]).out(), b"b\nc\n");
    assert_eq!(
        place
            .run(&[
                "consume",
                "orders",
                "--from-time",
                "1000d ago",
                "--partition",
                "0",
                "--follow",
                "--timeout-ms",
                "1"
            ])
            .out(),
        b""
    );
    assert_eq!(place.run(&["consume", "orders", "--from-time", "soon"]).code, Some(2));
}

#[test]
fn records_are_deleted_up_to_an_offset_or_a_moment() {
    let place = with_orders();
    for partition in ["0", "1"] {
        place.run_with(&["produce", "orders", "--partition", partition], b"a\nb\nc\n").out();
    }
    let delete = |words: &[&str]| place.run(&[&["delete-records", "orders"], words].concat());
    let dry = delete(&["--partition", "0", "--before", "2", "--dry-run"]).text();
    assert_eq!(dry, "would delete 2 records of orders-0, which would begin at 2\n");
    assert_eq!(
        delete(&["--partition", "0", "--before", "2"]).text(),
        "deleted 2 records of orders-0, which begins at 2\n"
    );
    assert_eq!(place.run(&["consume", "orders", "--partition", "0"]).out(), b"c\n");
    for dry in [&["--dry-run"][..], &[]] {
        let beyond = delete(&[&["--partition", "0", "--before", "4"], dry].concat());
        failed(&beyond, 1, "tidelog: error: offset 4 of orders-0 is out of range: it holds 2..3\n");
    }
    failed(
        &delete(&["--before", "1"]),
        2,
        "tidelog: error: orders has 3 partitions, whose offsets have nothing to do with one another; say which with \
         --partition\n",
    );
    let all = "\
deleted 1 records of orders-0, which begins at 3
deleted 3 records of orders-1, which begins at 3
deleted 0 records of orders-2, which begins at 0
";
    assert_eq!(delete(&["--before-time", "1d ago", "--dry-run"]).text().matches("would delete 0").count(), 3);
    assert_eq!(delete(&["--before", "-1"]).text(), all);
    assert_eq!(place.run(&["verify"]).code, Some(0));
    assert_eq!(delete(&[]).code, Some(2));
}

#[test]
fn a_topic_is_compacted_and_a_dry_run_says_what_would_go() {
    let place = Place::new();
    place
        .run(&[
            "topics",
            "create",
            "users",
            "--segment-bytes",
            "4096",
            "--config",
            "cleanup.policy=compact",
            "--config",
            "min.cleanable.dirty.ratio=1",
        ])
        .out();
    let lines: String = (0..200).map(|number| format!("user-{}\t{}\n", number % 10, "x".repeat(80))).collect();
    place.run_with(&["produce", "users", "--key-separator", "\t"], lines.as_bytes()).out();
    let dry = place.run(&["compact", "users", "--dry-run"]).text();
    assert!(dry.starts_with("users-0: would remove "), "{dry}");
    assert_eq!(place.run(&["consume", "users", "--from-beginning"]).text().lines().count(), 200);

    let done = objects(&place.run(&["compact", "users", "--output", "json"]).out());
    let counts = ["removed", "superseded", "tombstones", "keyless", "records", "clean_end"].map(|name| &done[0][name]);
    assert_eq!(counts, [&json!(190), &json!(190), &json!(0), &json!(0), &json!(10), &json!(200)]);
    assert_eq!(place.run(&["consume", "users", "--from-beginning"]).text().lines().count(), 10);
    let again = place.run(&["compact", "users"]).text();
    let expected =
        "users-0: removed 0 records (0 superseded, 0 expired tombstones, 0 without key), kept 10 below offset 200";
    assert!(again.starts_with(expected), "{again}");

    let described = place.run(&["topics", "describe", "users"]).text();
    assert!(described.contains("cleanup.policy                   compact\n"), "{described}");
    let table: Vec<Vec<&str>> = described.lines().rev().take(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((table[1][7], table[0][7]), ("COMPACTED", "200"), "{described}");
    assert_eq!(place.run(&["verify"]).code, Some(0));

    place.run(&["topics", "create", "orders"]).out();
    let refused =
        "tidelog: error: invalid `cleanup.policy`: topic \"orders\" is not compacted; its cleanup.policy is delete\n";
    failed(&place.run(&["compact", "orders"]), 2, refused);
    assert_eq!(place.run(&["compact", "orders", "--dry-run"]).code, Some(0));
}

#[test]
fn a_tail_is_cut_off_unless_groups_are_beyond() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "0"], b"a\nb\nc\nd\n").out();
    place.run(&["consume", "orders", "--group", "billing", "--from-beginning"]).out();
    let cut = |words: &[&str]| place.run(&[&["topics", "truncate", "orders"], words].concat());
    failed(&cut(&["--to", "2"]), 2, "tidelog: error: orders has more than one partition; say which with --partition\n");
    let dry = cut(&["--partition", "0", "--to", "2", "--dry-run"]).text();
    assert_eq!(
        dry,
        "would cut 2 records off orders-0, which would end at 2\n\
         refused without --pull-back-groups: would pull group billing back from 4 to 2\n"
    );
    failed(
        &cut(&["--partition", "0", "--to", "2"]),
        1,
        "tidelog: error: orders-0 cannot be truncated to 2: group \"billing\" has committed 4; reset their offsets, or have \
         them pulled back\n",
    );
    failed(
        &cut(&["--partition", "0", "--to", "5"]),
        1,
        "tidelog: error: offset 5 of orders-0 is out of range: it holds 0..4\n",
    );
    assert_eq!(
        cut(&["--partition", "0", "--to", "2", "--pull-back-groups"]).text(),
        "cut 2 records off orders-0, which ends at 2\npulled group billing back from 4 to 2\n"
    );
    place.run_with(&["produce", "orders", "--partition", "0"], b"e\n").out();
    assert_eq!(place.run(&["consume", "orders", "--partition", "0"]).out(), b"a\nb\ne\n");
    assert_eq!(place.run(&["consume", "orders", "--group", "billing"]).out(), b"e\n");
    assert_eq!(place.run(&["verify"]).code, Some(0));
    let object = &objects(&cut(&["--partition", "0", "--to", "0", "--dry-run", "--output", "json"]).out())[0];
    assert_eq!((&object["cut"], &object["groups"][0]["from"]), (&json!(3), &json!(3)));
}

#[test]
fn forks_and_backups_are_made_beside_a_writer_and_are_logs() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "0"], b"a\nb\n").out();
    let log = EventLog::open(place.path()).unwrap();
    let (fork, backup, again) = (place.path().join("f"), place.path().join("b"), place.path().join("c"));
    let named = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let made = place.run(&["fork", &named(&fork)]).text();
    assert!(made.starts_with(&format!("made fork {}: 0 segments shared, 4 segments with ", fork.display())), "{made}");
    let object = &objects(&place.run(&["backup", &named(&backup), "--output", "json"]).out())[0];
    assert_eq!((&object["shared_segments"], &object["copied_segments"]), (&json!(0), &json!(4)));
    place.run(&["backup", &named(&again), "--previous", &named(&backup)]).out();
    failed(
        &place.run(&["fork", &named(&fork)]),
        1,
        &format!(
            "tidelog: error: cannot create {}: there is something already; a copy is a new directory\n",
            fork.display()
        ),
    );
    log.close().unwrap();
    for copy in [fork, backup, again] {
        assert_eq!(place.run(&["--dir", &named(&copy), "verify"]).code, Some(0));
        place.run_with(&["--dir", &named(&copy), "produce", "orders", "--partition", "0"], b"c\n").out();
        assert_eq!(place.run(&["--dir", &named(&copy), "consume", "orders"]).out(), b"a\nb\nc\n");
    }
    assert_eq!(place.run(&["consume", "orders"]).out(), b"a\nb\n");
}

#[test]
fn stats_show_where_the_room_is() {
    let place = Place::new();
    place.run(&["topics", "create", "orders", "--segment-bytes", "4096", "--durability", "os"]).out();
    let line = "x".repeat(700) + "\n";
    place.run_with(&["produce", "orders"], line.repeat(12).as_bytes()).out();
    place.run(&["consume", "orders", "--group", "billing", "--from-beginning"]).out();
    place.run(&["delete-records", "orders", "--before", "6"]).out();
    let stats = objects(&place.run(&["stats", "--output", "json"]).out());
    let names: Vec<_> =
        stats.iter().map(|one| (one["kind"].as_str().unwrap(), one["name"].as_str().unwrap())).collect();
    assert_eq!(names, [("partition", "orders-0"), ("group", "billing"), ("log", "catalog"), ("log", "reserve")]);
    assert_eq!((&stats[0]["segments"], &stats[0]["records"]), (&json!(2), &json!(6)));
    for one in &stats {
        assert!(one["bytes"].as_u64() <= one["disk_bytes"].as_u64(), "{one}");
        assert_eq!(one["disk_bytes"].as_u64().unwrap() % 4096, 0, "{one}");
    }
    let of = |name: &str| -> u64 {
        let files = std::fs::read_dir(place.path().join(name)).unwrap().map(|file| file.unwrap().metadata().unwrap());
        files.map(|file| std::os::unix::fs::MetadataExt::blocks(&file) * 512).sum()
    };
    assert_eq!(stats[0]["disk_bytes"], json!(of("topics/orders/0")));
    assert_eq!(stats[2]["disk_bytes"], json!(of("catalog")));
    let text = place.run(&["stats"]).text();
    let places: Vec<_> = text.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(places, ["PLACE", "orders-0", "group billing", "catalog", "reserve", "all"]);
}

#[test]
fn topics_come_and_go() {
    let place = Place::new();
    let created = place.run(&["topics", "create", "orders"]).text();
    assert_eq!(created, "created topic orders: 1 partition, durability sync\n");
    let again = place.run(&["topics", "create", "orders", "--if-not-exists"]).text();
    assert_eq!(again, "there is topic orders already: 1 partition, durability sync\n");
    assert_eq!(place.run(&["topics", "delete", "orders"]).text(), "deleted topic orders\n");
    assert_eq!(place.run(&["topics", "delete", "orders", "--if-exists"]).text(), "there is no topic orders\n");
    assert_eq!(place.run(&["topics", "list"]).text(), "");
}

#[test]
fn kafkas_tutorials_work_with_a_note() {
    let place = Place::new();
    let words = ["topics", "--create", "--topic", "orders", "--partitions", "3", "--replication-factor", "1"];
    let ended = place.run(&[&words[..], &["--bootstrap-server", "localhost:9092"]].concat());
    assert_eq!(ended.out, b"created topic orders: 3 partitions, durability sync\n");
    assert_eq!(
        ended.err,
        "tidelog: note: --bootstrap-server is ignored; there is no broker, the log is a directory (--dir)\n\
         tidelog: note: --replication-factor is ignored; there is one copy, in the directory\n"
    );
    assert_eq!(ended.code, Some(0));

    let ended = place.run_with(&["produce", "--broker-list", "localhost:9092", "--topic", "orders"], b"a\n");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(place.run(&["consume", "--topic", "orders", "--from-beginning"]).out(), b"a\n");
    assert_eq!(place.run(&["topics", "--list"]).out(), b"orders\n");
    assert!(place.run(&["topics", "--describe", "--topic", "orders"]).text().starts_with("orders\n"));
    assert_eq!(place.run(&["topics", "--list", "--zookeeper", "localhost:2181"]).out, b"orders\n");

    let ended = place.run(&["topics", "create", "more", "--replication-factor", "3"]);
    let why = "the log is one directory, so there is one copy; leave it out";
    failed(&ended, 2, &format!("tidelog: error: --replication-factor 3 cannot be kept: {why}\n"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = with_orders();
    let lines: String = (0..100_000).map(|line| format!("line {line} of many\n")).collect();
    place.run_with(&["produce", "orders", "--partition", "0"], lines.as_bytes()).out();
    for words in [&["consume", "orders"][..], &["consume", "orders", "--group", "g", "--from-beginning"]] {
        let mut child = place.tool(words).spawn().unwrap();
        let mut first = [0; 7];
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut first).unwrap();
        drop(out);
        let output = child.wait_with_output().unwrap();
        assert_eq!(&first, b"line 0 ");
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    }
    // Nobody listens to standard error either.
    let mut child = place.tool(&["topics", "describe", "missing"]).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(5));
}

#[test]
fn errors_say_what_to_do_next_and_have_their_codes() {
    let place = with_orders();
    failed(
        &place.run(&["consume", "missing"]),
        5,
        "tidelog: error: there is no topic \"missing\"; `tidelog topics list` shows what there is, \
         `tidelog topics create missing` creates it\n",
    );
    failed(
        &place.run(&["produce", "missing"]),
        5,
        "tidelog: error: there is no topic \"missing\"; `tidelog topics list` shows what there is, \
         `tidelog topics create missing` creates it, and so does --create-topic\n",
    );
    failed(
        &place.run(&["groups", "describe", "missing"]),
        5,
        "tidelog: error: no group \"missing\" has committed anything; `tidelog groups list` shows those that have\n",
    );
    failed(
        &place.run(&["consume", "orders", "--partition", "3"]),
        5,
        "tidelog: error: there is no partition orders-3: the topic has 3, counted from 0\n",
    );
    failed(
        &place.run(&["topics", "create", "orders"]),
        1,
        "tidelog: error: topic \"orders\" exists already; `tidelog topics describe orders` shows it, \
         --if-not-exists makes this no error\n",
    );
    failed(
        &place.run(&["topics", "create", "a b"]),
        2,
        "tidelog: error: \"a b\" cannot be the name of a topic: only ASCII letters, digits, '.', '_' and '-' are \
         allowed\n",
    );
    failed(
        &place.run(&["produce", "orders", "--durability", "os"]),
        2,
        "tidelog: error: --partitions, --durability, --segment-bytes and --config say how a topic is created; add \
         --create-topic, or leave them out\n",
    );
    for words in [
        &["consume", "orders", "--format", "%q"][..],
        &["consume", "orders", "--offset", "3"],
        &["consume", "orders", "--group", "g", "--partition", "0"],
        &["produce", "orders", "--header", "novalue"],
        &["produce", "orders", "--key-regex", "("],
        &["produce"],
        &["topics", "create", "x", "--durability", "perhaps"],
        &["nonsense"],
        &[],
    ] {
        let ended = place.run(words);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{words:?}: {}", ended.err);
        assert!(!ended.err.is_empty(), "{words:?}");
    }
}

#[test]
fn where_there_is_no_log_the_way_to_one_is_named_and_none_is_made() {
    let place = Place::new();
    let elsewhere = place.path().join("elsewhere");
    let dir = elsewhere.to_str().unwrap();
    let error = format!(
        "tidelog: error: there is no event log in {dir}; begin one with `tidelog --dir {dir} topics create NAME`, or \
         name another directory with --dir\n"
    );
    for words in [&["topics", "list"][..], &["consume", "a"], &["produce", "a"], &["topics", "delete", "a"]] {
        failed(&place.run(&[&["--dir", dir], words].concat()), 5, &error);
    }
    assert!(!elsewhere.exists());
}

#[test]
fn beside_a_writer_reading_works_and_writing_names_who_is_in_the_way() {
    let place = with_orders();
    place.run_with(&["produce", "orders", "--partition", "0"], b"a\n").out();
    let log = EventLog::open(place.path()).unwrap();

    assert_eq!(place.run(&["consume", "orders"]).out(), b"a\n");
    assert_eq!(place.run(&["topics", "list"]).out(), b"orders\n");
    assert_eq!(place.run(&["groups", "list"]).out(), b"");
    let error = format!(
        "tidelog: error: {} is open for writing by process {}; stop it first (what only reads works beside it: \
         `topics list`, `topics describe`, `groups`, `fork`, `backup`, and `consume` without --group)\n",
        place.path().display(),
        std::process::id()
    );
    for words in [
        &["produce", "orders"][..],
        &["consume", "orders", "--group", "g"],
        &["topics", "create", "more"],
        &["topics", "delete", "orders"],
    ] {
        failed(&place.run(words), 3, &error);
    }
    log.close().unwrap();
}

#[test]
fn a_line_that_is_too_long_is_named_and_those_before_it_are_sent() {
    let place = Place::new();
    place.run(&["topics", "create", "small", "--config", "max.message.bytes=200"]).out();
    for (long, error) in [
        (
            180,
            "a record of 232 bytes is over the limit of topic \"small\", 200 bytes; split it, or create the topic with \
             a larger --config max.message.bytes=N",
        ),
        (500, "it is longer than 200 bytes, the limit of the topic"),
    ] {
        let input = format!("a\nb\n{}\nc\n", "x".repeat(long));
        let ended = place.run_with(&["produce", "small"], input.as_bytes());
        assert_eq!(ended.err, format!("tidelog: error: line 3 (the lines before it were sent): {error}\n"));
        assert_eq!((ended.code, ended.out), (Some(1), Vec::new()));
    }
    assert_eq!(place.run(&["consume", "small"]).out(), b"a\nb\na\nb\n");
}

#[test]
fn damage_is_met_where_it_is_and_can_be_read_around() {
    let place = Place::new();
    place.run(&["topics", "create", "orders"]).out();
    for line in ["first", "second", "third"] {
        place.run_with(&["produce", "orders"], line.as_bytes()).out();
    }
    let file = place.path().join("topics/orders/0/00000000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let ended = place.run(&["consume", "orders"]);
    assert_eq!((ended.code, &ended.out[..]), (Some(4), &b"first\n"[..]), "{}", ended.err);
    let start = format!("tidelog: error: {} is damaged at byte 240: checksum ", file.display());
    let end = "offsets 1..2 of orders-0 cannot be read; `tidelog consume orders --partition 0 --offset 2` reads on \
               behind it\n";
    assert!(ended.err.starts_with(&start) && ended.err.ends_with(end), "{}", ended.err);
    assert_eq!(place.run(&["consume", "orders", "--partition", "0", "--offset", "2"]).out(), b"third\n");
    let ended = place.run(&["topics", "describe", "orders"]);
    assert!(ended.err.starts_with("tidelog: warning: ") && ended.err.ends_with("cannot be read\n"), "{}", ended.err);
    assert_eq!(ended.code, Some(0));
}

#[test]
fn help_says_what_the_exit_codes_mean() {
    let place = Place::new();
    let help = place.run(&["--help"]).text();
    assert!(help.contains("Exit codes:\n  0  done; also if whoever reads the output closes it early\n"), "{help}");
    for command in ["topics", "produce", "consume", "groups", "demo"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let help = place.run(&[command, "--help"]).text();
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
    assert!(!help.contains("zookeeper") && !help.contains("demo-produce"), "{help}");
    assert!(place.run(&["--version"]).text().starts_with("tidelog 0."));
}

#[test]
fn the_demo_kills_itself_and_misses_nothing() {
    let place = Place::new();
    let out = place.run(&["demo", "--events", "20000", "--output", "json"]).out();
    let result = &objects(&out)[0];
    assert_eq!(result["faults"], json!([]));
    for partition in result["partitions"].as_array().unwrap() {
        assert_eq!(partition["missing"], json!(0), "{partition}");
    }
    // In a directory of somebody's own it adds, and leaves what is there.
    let dir = place.path().join("mine");
    let mut command = place.tool(&["demo", "--events", "20000", dir.to_str().unwrap()]);
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.contains(dir.to_str().unwrap())), "{text}");
    let log = EventLog::open(&dir).unwrap();
    assert_eq!((log.list_topics(), log.list_groups()), (vec!["orders".to_owned()], vec!["billing".to_owned()]));
}

#[test]
fn damage_is_verified_explained_and_mended() {
    let place = Place::new();
    place.run(&["topics", "create", "orders"]).out();
    let lines: String = (0..100).map(|n| format!("{n:0100}\n")).collect();
    place.run_with(&["produce", "orders"], lines.as_bytes()).out();
    let sound = place.run(&["verify"]);
    assert_eq!(sound.code, Some(0));
    assert!(String::from_utf8(sound.out).unwrap().ends_with(": sound\n"));

    let file = place.path().join("topics/orders/0/00000000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let damaged = place.run(&["verify", "--output", "json"]);
    assert_eq!(damaged.code, Some(4), "{}", damaged.err);
    let findings = objects(&damaged.out);
    assert_eq!((findings[0]["class"].as_str(), findings[0]["place"].as_str()), (Some("damaged"), Some("orders-0")));
    assert_eq!(findings.last().unwrap()["sound"], json!(false));
    assert!(damaged.err.contains("tidelog repair"), "{}", damaged.err);

    let explained = place.run(&["dump", "topics/orders/0"]);
    let explained = String::from_utf8(explained.out).unwrap();
    assert!(explained.lines().filter(|line| line.contains("!!")).count() == 1, "{explained}");
    assert!(place.run(&["dump", "topics/orders/0", "--bytes"]).out().len() > explained.len());

    let dry = place.run(&["repair", "--output", "json"]);
    assert_eq!(objects(&dry.out)[0]["done"], json!(false));
    assert_eq!(place.run(&["verify"]).code, Some(4), "a dry run changes nothing");
    let done = place.run(&["repair", "--execute", "--output", "json"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let lost = objects(&done.out)[0]["lost"].clone();
    assert_eq!(lost, findings[0]["offsets"]);
    assert!(done.err.contains("repair-backup-1"), "{}", done.err);
    assert_eq!(place.run(&["verify"]).code, Some(0));
    let left = place.run(&["consume", "orders"]).out();
    let lost = lost[1].as_u64().unwrap() - lost[0].as_u64().unwrap();
    assert_eq!(left.split(|byte| *byte == b'\n').count() as u64 - 1, 100 - lost);
}
