#!/usr/bin/env python3
"""A second reader of a log's directory, written from the specification alone (the docs of `src/format`).

It shares no code with the library, and it is meant to be read beside the specification: what it believes, it
believes because a sentence there says so. `reader.py DIRECTORY` prints everything that the directory holds as
JSON; bytes are {"hex": ".."}, what is absent is null. It exits with 1 if the format refuses what it finds.
"""

import json
import os
import re
import struct
import sys
import urllib.parse
import zlib

HEADER_LEN = 128
ABSENT = 2**32 - 1
NO_PREDECESSOR = 2**64 - 1
APPEND_TIME, CONTROL, HORIZON, PRODUCER = 8, 32, 64, 128
WIDTH_SHIFT, OFFSETS, HEADERS = 8, 1024, 2048
KNOWN = APPEND_TIME | CONTROL | HORIZON | PRODUCER | 3 << WIDTH_SHIFT | OFFSETS | HEADERS
MARKERS = {1: "synced", 2: "closed", 3: "rolled"}


class Refused(Exception):
    """What a reader of version 1 must not go on with."""


class Bytes:
    """Bytes that are taken from the front; never more than there are."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Refused(f"{count} bytes wanted at {self.at}, {len(self.data) - self.at} there")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def u128(self):
        return int.from_bytes(self.take(16), "little")

    def text(self):
        return self.take(self.number("I")).decode()

    def rest(self):
        return self.take(len(self.data) - self.at)


def shown(data):
    return None if data is None else {"hex": data.hex()}


# Segments -----------------------------------------------------------------------------------------------------


def segment_header(data):
    """The fields of the header, or None if it is not whole."""
    if len(data) < HEADER_LEN or data[:8] != b"tidelog\0":
        return None
    version, crc = struct.unpack_from("<II", data, 8)
    if version != 1:
        raise Refused(f"version {version}")
    if zlib.crc32(data[16:HEADER_LEN], version) != crc:
        return None
    at = Bytes(data, 16)
    return {
        "version": version, "crc": crc, "log_id": f"{at.u128():032x}", "topic_id": f"{at.u128():032x}",
        "partition": at.number("I"), "epoch": at.number("I"), "base_offset": at.number("Q"),
        "predecessor_base": at.number("Q"), "predecessor_position": at.number("Q"), "durable_end": at.number("Q"),
    }  # fmt: skip


def batch_at(data, position, salt, due, epoch):
    """The whole batch at `position`, which must begin at offset `due`, or None."""
    if len(data) - position < 44:
        return None
    length, crc, base, _, _, _, own_epoch, _, _ = struct.unpack_from("<IIQqIIIII", data, position)
    if length < 44 or length % 8 or length > len(data) - position:
        return None
    if zlib.crc32(data[position + 8 : position + length], length ^ salt) != crc:
        return None
    if base != due or own_epoch < epoch:
        return None
    return data[position : position + length]


def headers_of(data):
    if not data:
        return []
    at = Bytes(data)
    headers = []
    for _ in range(at.number("I")):
        name_len, value_len = at.number("I"), at.number("I")
        name = at.take(name_len).decode()
        headers.append([name, None if value_len == ABSENT else shown(at.take(value_len))])
    if at.rest() or not headers:
        raise Refused("headers that do not end where they should")
    return headers


def contents(batch):
    """The records of a batch and the name of its marker; one of them is empty or None."""
    at = Bytes(batch, 8)
    base, timestamp, count = at.number("Q"), at.number("q"), at.number("I")
    span, _epoch, _lag, attributes = at.number("I"), at.number("I"), at.number("I"), at.number("I")
    width = attributes >> WIDTH_SHIFT & 3
    if attributes & ~KNOWN or width == 3:
        raise Refused(f"attributes {attributes:#x}")
    if attributes & HORIZON:
        at.number("q")
    if attributes & PRODUCER:
        at.take(16)
    if attributes & CONTROL:
        kind = at.number("I")
        if count or span or kind not in MARKERS or any(at.rest()):
            raise Refused("a marker that is none")
        return [], MARKERS[kind]
    records = []
    for index in range(count):
        delta = at.number("i") if width == 1 else at.number("q") if width == 2 else 0
        offset = at.number("I") if attributes & OFFSETS else index
        headers_len = at.number("I") if attributes & HEADERS else 0
        key_len, value_len = at.number("I"), at.number("I")
        headers = headers_of(at.take(headers_len))
        key = None if key_len == ABSENT else at.take(key_len)
        value = None if value_len == ABSENT else at.take(value_len)
        if offset >= span:
            raise Refused("an offset behind the span of its batch")
        records.append({
            "offset": base + offset, "timestamp": timestamp + delta,
            "timestamp_type": "append" if attributes & APPEND_TIME else "create",
            "key": shown(key), "value": shown(value), "headers": headers,
        })  # fmt: skip
    padding = at.rest()
    if any(padding) or (count and len(padding) >= 8):
        raise Refused("bytes behind the last record")
    return records, None


# Partitions ---------------------------------------------------------------------------------------------------


def read_partition(directory):
    """Everything in the segments of one partition, and what is wrong with it."""
    names = sorted(name for name in os.listdir(directory) if re.fullmatch(r"[0-9]{20}\.log", name))
    segments, records, damage, stops = [], [], [], []
    witness, epoch = 0, 0
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        header = segment_header(data)
        if header is None or header["base_offset"] != int(name[:20]):
            damage.append({"segment": name, "position": 0, "what": "no whole header"})
            continue
        witness = max(witness, header["durable_end"])
        epoch = max(epoch, header["epoch"])
        position, due, markers = HEADER_LEN, header["base_offset"], []
        while batch := batch_at(data, position, header["crc"], due, epoch):
            span, epoch, lag = struct.unpack_from("<III", batch, 28)
            if lag != ABSENT:
                witness = max(witness, due - lag)
            found, marker = contents(batch)
            if marker:
                markers.append({"kind": marker, "position": position, "offset": due, "epoch": epoch})
            records.extend(found)
            position, due = position + len(batch), due + span
        if any(data[position:]):
            stops.append({"segment": name, "position": position, "offset": due})
        segments.append({"file": name, **header, "end_position": position, "end_offset": due, "markers": markers})
    # Only now is the witness known: what is no batch was promised to somebody below it, and to nobody above.
    torn = None
    for stop in stops:
        if stop["segment"] == names[-1] and stop["offset"] >= witness:
            torn = {"position": stop["position"], "offset": stop["offset"]}
    for before, after in zip(segments, segments[1:]):
        if before["end_offset"] != after["base_offset"]:
            damage.append({"segment": before["file"], "position": before["end_position"], "what": "records are gone"})
    if segments and segments[-1]["end_offset"] < witness:
        last = segments[-1]
        damage.append({"segment": last["file"], "position": last["end_position"], "what": "promised records are gone"})
    return {"segments": segments, "records": records, "witness": witness, "torn": torn, "damage": damage}


def last_of_key(partition):
    """What the records of a catalog or a group add up to: key to the last record that has it."""
    entries = {}
    for record in partition["records"]:
        key = bytes.fromhex(record["key"]["hex"]).decode()
        entries.pop(key, None)
        if record["value"] is not None:
            entries[key] = record
    return entries


def value_of(record):
    return Bytes(bytes.fromhex(record["value"]["hex"]))


# The log ------------------------------------------------------------------------------------------------------


def read_catalog(entries):
    catalog = {"epoch": None, "topics": {}, "deleted": {}}
    for key, record in entries.items():
        value = value_of(record)
        if key == "epoch":
            catalog["epoch"] = value.number("I")
        elif key.startswith("topic/"):
            topic_id, partitions = value.u128(), value.number("I")
            settings = {value.text(): value.text() for _ in range(value.number("I"))}
            topic = {"id": f"{topic_id:032x}", "partitions": partitions, "settings": settings}
            catalog["topics"][key[len("topic/") :]] = topic
        elif key.startswith("deleted/"):
            catalog["deleted"][key[len("deleted/") :]] = value.text()
    return catalog


def read_group(entries, topics):
    committed = []
    for key, record in sorted(entries.items()):
        topic, partition = key.rsplit("/", 1)
        value = value_of(record)
        topic_id, offset, metadata = f"{value.u128():032x}", value.number("Q"), value.text()
        if topic in topics and topics[topic]["id"] == topic_id:
            committed.append({
                "topic": topic, "partition": int(partition), "offset": offset, "metadata": metadata,
                "timestamp": record["timestamp"],
            })  # fmt: skip
    return committed


def directories(*parts):
    path = os.path.join(*parts)
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def read_log(root):
    catalog_partition = read_partition(os.path.join(root, "catalog"))
    log = read_catalog(last_of_key(catalog_partition))
    log["catalog"] = catalog_partition
    log["partitions"] = []
    for name, topic in sorted(log["topics"].items()):
        for number in range(topic["partitions"]):
            partition = read_partition(os.path.join(root, "topics", name, str(number)))
            log["partitions"].append({"topic": name, "partition": number, **partition})
    log["groups"] = {}
    for directory in directories(root, "groups"):
        group = read_partition(os.path.join(root, "groups", directory))
        committed = read_group(last_of_key(group), log["topics"])
        log["groups"][urllib.parse.unquote(directory)] = {"committed": committed, **group}
    return log


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: reader.py DIRECTORY")
    try:
        json.dump(read_log(sys.argv[1]), sys.stdout, indent=1)
    except Refused as refused:
        sys.exit(f"refused: {refused}")
