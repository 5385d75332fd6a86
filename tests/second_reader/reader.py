#!/usr/bin/env python3
"""A second reader of a log's directory, written from the specification alone: the docs of `src/format`.

It shares no code with the library, and is to be read beside the specification: what it believes, it believes because a
sentence there says so. `reader.py DIRECTORY ..` prints a line of JSON for each directory: its `contents`, which are
what a user of the library sees, and how they lie in the files. Bytes are {"hex": ".."}, what is absent is null.
"""

import json
import os
import re
import struct
import sys
import zlib

HEADER_BYTES, MOST_BYTES = 128, 1 << 31
ABSENT = UNKNOWN_LAG = 2**32 - 1
APPEND_TIME, CONTROL, HORIZON, PRODUCER, WIDTH, SPARSE, HEADERS = 8, 32, 64, 128, 768, 1024, 2048
KNOWN = APPEND_TIME | CONTROL | HORIZON | PRODUCER | WIDTH | SPARSE | HEADERS
MARKERS = {1: "synced", 2: "closed", 3: "rolled"}
MOST_HOLES = 64


class Refused(Exception):
    """These bytes are not what they should be."""


def check(condition, what):
    if not condition:
        raise Refused(what)


class Fields:
    """Bytes that are taken from the front, and never more than there are."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        check(count <= len(self.data) - self.at, "too short")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, codes):
        return struct.unpack("<" + codes, self.take(struct.calcsize("<" + codes)))

    def u32(self):
        return self.numbers("I")[0]

    def u128(self):
        return f"{int.from_bytes(self.take(16), 'little'):032x}"

    def text(self):
        try:
            return self.take(self.u32()).decode()
        except UnicodeDecodeError as error:
            raise Refused("text") from error

    def maybe(self, length):
        return None if length == ABSENT else self.take(length)

    def rest(self):
        return self.take(len(self.data) - self.at)


def shown(data):
    return None if data is None else {"hex": data.hex()}


# A segment ----------------------------------------------------------------------------------------------------------


def header_of(data, name, home):
    """The fields of the header of this file, or None if it is not whole. Without name and home: in any place."""
    fields = Fields(data[8:HEADER_BYTES])
    try:
        check(data[:8] == b"tidelog\0" and len(data) <= MOST_BYTES, "magic")
        version, crc = fields.numbers("II")
        check(version == 1 and zlib.crc32(data[16:HEADER_BYTES], version) == crc, "crc")
        header = {"log_id": fields.u128(), "topic_id": fields.u128()}
        names = "partition epoch base_offset predecessor_base predecessor_position durable_end".split()
        header.update(zip(names, fields.numbers("IIQQQQ")), crc=crc)
        compacted_end, clean_end = fields.numbers("QQ")
        if compacted_end or clean_end:
            check(compacted_end > header["base_offset"], "end offset")
            header.update(compacted_end=compacted_end, clean_end=clean_end)
        check(len(fields.rest()) == 24 and not any(data[104:HEADER_BYTES]), "reserved")
        check(name is None or header["base_offset"] == int(name[:20]), "base offset")
        check(home is None or (header["log_id"], header["topic_id"], header["partition"]) == home, "foreign")
    except Refused:
        return None
    return header


class Batch:
    """What stands at a position of a segment; refused if it is no batch, whatever its base offset and epoch."""

    def __init__(self, data, position, end, salt):
        self.position = position
        check(end - position >= 44, "too short")
        length, crc = struct.unpack_from("<II", data, position)
        check(44 <= length <= end - position and length % 8 == 0, "length")
        check(zlib.crc32(data[position + 8 : position + length], length ^ salt) == crc, "crc")
        self.end = position + length
        fields = Fields(data[position + 8 : self.end])
        self.base, self.timestamp, self.count, self.span = fields.numbers("QqII")
        self.epoch, lag, self.attributes = fields.numbers("III")
        self.witness = 0 if lag == UNKNOWN_LAG else max(0, self.base - lag)
        self.next = self.base + self.span
        self.marker, self.records = None, []
        check(not self.attributes & ~KNOWN and self.attributes & WIDTH != WIDTH, "attributes")
        check(self.next < 2**64, "base offset")
        if self.attributes & CONTROL:
            kind = fields.u32()
            check(self.attributes == CONTROL and self.count == self.span == 0 and kind in MARKERS, "marker")
            self.marker = MARKERS[kind]
        else:
            check(self.span > 0 and self.count <= self.span, "span")
            check(self.attributes & SPARSE or self.count in (0, self.span), "span")
            fields.take((8 if self.attributes & HORIZON else 0) + (16 if self.attributes & PRODUCER else 0))
            self.take_records(fields)
        padding = fields.rest()
        check(not any(padding) and (len(padding) < 8 or self.count == 0), "padding")

    def take_records(self, fields):
        delta_code = {0: "", 256: "i", 512: "q"}[self.attributes & WIDTH]
        due = 0
        for index in range(self.count):
            delta = fields.numbers(delta_code)[0] if delta_code else 0
            ahead = fields.u32() if self.attributes & SPARSE else index
            check(due <= ahead < self.span, "offset delta")
            due = ahead + 1
            headers_length = fields.u32() if self.attributes & HEADERS else 0
            key_length, value_length = fields.numbers("II")
            headers = headers_of(fields.take(headers_length))
            key, value = fields.maybe(key_length), fields.maybe(value_length)
            self.records.append({
                "offset": self.base + ahead,
                "timestamp": (self.timestamp + delta + 2**63) % 2**64 - 2**63,
                "timestamp_type": "append" if self.attributes & APPEND_TIME else "create",
                "key": shown(key),
                "value": shown(value),
                "headers": headers,
            })  # fmt: skip


def headers_of(data):
    if not data:
        return []
    fields, headers = Fields(data), []
    for _ in range(fields.u32()):
        name_length, value_length = fields.numbers("II")
        try:
            name = fields.take(name_length).decode()
        except UnicodeDecodeError as error:
            raise Refused("header name") from error
        headers.append([name, shown(fields.maybe(value_length))])
    check(headers and not fields.rest(), "headers")
    return headers


class Segment:
    """The whole batches of a file up to `end`, and the holes between them: position, offset due, next offset."""

    def __init__(self, data, header, end, until):
        self.batches, self.holes, self.marker = [], [], None
        self.until = 2**64 if until is None else until
        self.compacted = "compacted_end" in header
        self.witness = header["durable_end"]
        self.position, self.due, epoch = HEADER_BYTES, header["base_offset"], header["epoch"]
        while any(data[self.position : end]):
            batch = self.find(data, end, header["crc"], epoch)
            if batch is None:
                break
            if batch.position != self.position:
                self.holes.append((self.position, self.due, batch.base))
            self.batches.append(batch)
            self.position, self.due, epoch = batch.end, batch.next, batch.epoch
            self.witness = max(self.witness, batch.witness)
        self.torn = any(data[self.position : end])
        self.rolled = self.compacted or (bool(self.batches) and self.batches[-1].marker == "rolled")

    def look_behind(self, data, header, end, next_base):
        """A rolled marker may stand where the successor says that this segment ended, and is none of its batches."""
        try:
            self.marker = Batch(data, end, len(data), header["crc"])
        except Refused:
            return
        if self.marker.marker == "rolled" and self.marker.base == next_base:
            self.rolled, self.witness = True, max(self.witness, next_base)

    def find(self, data, end, salt, epoch):
        """The batch that is due here, or the next that can come later."""
        last = end if len(self.holes) < MOST_HOLES else self.position + 8
        left = 4 * end  # bytes that may be summed up for nothing
        for position in range(self.position, last, 8):
            passed = position - self.position
            if end - position < 44 or (passed and left <= 0):
                break
            length, _, base, _, _, span, its_epoch = struct.unpack_from("<IIQqIII", data, position)
            # Most places are no batch at a glance.
            if not 44 <= length <= end - position or length % 8 or base < self.due:
                continue
            if base - self.due > passed // 8 and (not passed or not self.compacted):
                continue
            if its_epoch < epoch or min(base + span, 2**64 - 1) > self.until:
                continue
            try:
                return Batch(data, position, end, salt)
            except Refused:
                left -= length if passed else 0
        return None

    def cut(self, position):
        self.batches = [batch for batch in self.batches if batch.position < position]


# A partition --------------------------------------------------------------------------------------------------------


def bounds(length, base, next_base, successor):
    """Where a segment ends by what its successor says: at this byte, at this offset; and whether it is named."""
    before = successor["predecessor_base"] if successor else None
    if before == base:
        return min(length, successor["predecessor_position"]), next_base, True
    return length, before if before is not None and base < before < next_base else next_base, False


def compacted_bounds(length, header, next_base, successors):
    """The same of a compacted segment: its successor cuts it short only if no header says that it is not of a later epoch."""
    later = successors and (not successors[0] or successors[0]["epoch"] > header["epoch"])
    return length, min(next_base, header["compacted_end"]) if later else header["compacted_end"], False


def stands_for(end, epoch, base, header, cut):
    """Whether a compacted segment of this end and epoch was made of the file with this base and header, among others."""
    cut_since = cut is not None and epoch < cut[1]
    if not header:
        return base < end and not cut_since
    return base < end and header["epoch"] <= epoch and not (cut_since and base >= cut[0])


def drop_strays(names, files, home, cut):
    """Leaves out the foreign files whose names are offsets that the segment before them holds."""
    headers = {name: header_of(files[name], name, home) for name in names}
    foreign = {name for name in names if not headers[name] and header_of(files[name], None, None)}
    older = {name for name in names if cut and headers[name] and headers[name]["epoch"] < cut[1]}
    gone = {name for name in older if int(name[:20]) >= cut[0]}
    kept = []
    for at, name in enumerate(names):
        before = next((other for other in reversed(names[:at]) if other not in foreign), None)
        if name in foreign and before and headers[before]:
            after = next((other for other in names[at:] if other not in foreign | gone), None)
            end, until = len(files[before]), None
            if after:
                end, until, _ = bounds(end, int(before[:20]), int(after[:20]), headers[after])
            if "compacted_end" in headers[before]:
                end, until, _ = compacted_bounds(len(files[before]), headers[before], until, [headers[after]] if after else [])
            if before in older:
                until = cut[0] if until is None else min(until, cut[0])
            if Segment(files[before], headers[before], end, until).due > int(name[:20]):
                continue
        kept.append(name)
    return kept


def read_partition(directory, home, closed_at=0, start=None, cut=None):
    """The records of a partition; its segments, the torn tail, and what promised data is damaged or gone."""
    names = [name for name in directory_list(directory) if re.fullmatch(r"[0-9]{20}\.log", name)]
    names = [name for name in names if int(name[:20]) < 2**64]
    contents, left, compacted = {}, [], []
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            contents[name] = file.read()
        # What a compacted segment stands for is none of the partition's, even if it is still there.
        header = header_of(contents[name], name, home)
        foreign = not header and header_of(contents[name], None, None)
        if not foreign and any(stands_for(*before, int(name[:20]), header, cut) for before in compacted):
            continue
        if header and "compacted_end" in header:
            compacted.append((header["compacted_end"], header["epoch"]))
        left.append(name)
    names = drop_strays(left, contents, home, cut)
    if start is not None:
        # What lies in front of the segment that holds the start was deleted on purpose.
        deleted = sum(int(name[:20]) <= start for name in names) - 1
        names = names[max(deleted, 0):]
    bases = [int(name[:20]) for name in names]
    files = [contents[name] for name in names]
    headers = [header_of(data, name, home) for data, name in zip(files, names)]
    # Segments of an earlier epoch than the cut: gone if they begin behind it, or else they end there.
    older = [bool(cut and header and header["epoch"] < cut[1]) for header in headers]
    left = [at for at in range(len(names)) if not (older[at] and bases[at] >= cut[0])]
    names, bases, files, headers, older = ([list[at] for at in left] for list in (names, bases, files, headers, older))

    segments, ends = [], []
    for at, (data, header) in enumerate(zip(files, headers)):
        end, next_base, named = len(data), None, False
        if at + 1 < len(files):
            end, next_base, named = bounds(end, bases[at], bases[at + 1], headers[at + 1])
        if header and "compacted_end" in header:
            end, next_base, named = compacted_bounds(len(data), header, next_base, headers[at + 1 : at + 2])
        if older[at]:
            next_base = cut[0] if next_base is None else min(next_base, cut[0])
        ends.append(next_base)
        segments.append(Segment(data, header, end, next_base) if header else None)
        if header and named:
            segments[-1].look_behind(data, header, end, next_base)
    witness = max([closed_at, start or 0] + [segment.witness for segment in segments if segment])

    torn, damage, kept = None, [], 0
    all_cut = not bases and cut and cut[0] <= (start or 0) and witness <= (start or 0)
    if start is not None and (not bases or start < bases[0]) and not all_cut:
        damage.append([start, bases[0] if bases else None])
    for at, segment in enumerate(segments):
        if at and ends[at - 1] < bases[at]:
            if ends[at - 1] >= witness and not (segments[at - 1] and segments[at - 1].rolled):
                torn = torn or {"file": names[at - 1], "position": None, "offset": ends[at - 1]}
                break
            damage.append([ends[at - 1], bases[at]])
        kept = at + 1
        if segment is None:
            damage.append([bases[at], ends[at]])
            continue
        places = segment.holes + [(segment.position, segment.due, ends[at])]
        for position, first, after in places:
            is_end = position == segment.position
            missing = first < (witness if after is None else after) or (is_end and after is None and segment.torn)
            if is_end and not missing:
                break
            if not is_end and ends[at] is not None and first >= ends[at]:
                damage.append([first, after])  # a marker was there
                continue
            if first >= witness and not segment.rolled:
                torn = {"file": names[at], "position": position, "offset": first}
                segment.cut(position)
                break
            damage.append([first, after])
        if torn:
            break

    last = segments[kept - 1] if kept else None
    if last and kept == len(segments) and older[-1] and cut[0] < witness:
        damage.append([cut[0], None])  # what came behind the cut
    if last and last.rolled and ends[kept - 1] is None and last.due >= witness:
        damage.append([last.due, None])
    if last and last.compacted and kept == len(names) and not (older[-1] and cut[0] <= headers[-1]["compacted_end"]):
        if damage and damage[-1][1] == ends[-1]:
            damage[-1][1] = None
        else:
            damage.append([ends[-1], None])

    shown_segments = []
    for name, header, segment in list(zip(names, headers, segments))[:kept]:
        if segment:
            batches = segment.batches + ([segment.marker] if segment.marker else [])
            markers = [[batch.position, batch.marker, batch.base, batch.epoch] for batch in batches if batch.marker]
            header = {**header, "end_position": segment.position, "end_offset": segment.due, "markers": markers}
        shown_segments.append({"file": name, "header": header})
    records = [record for s in segments[:kept] if s for batch in s.batches for record in batch.records]
    records = [record for record in records if record["offset"] >= (start or 0)]
    # Nobody misses what is not shown.
    damage = [[max(first, start or 0), after] for first, after in damage if after is None or after > (start or 0)]
    files = {"segments": shown_segments, "witness": witness, "torn": torn, "damage": damage}
    return records, files


# The log ------------------------------------------------------------------------------------------------------------


def table(records):
    """What a table says: the last value of each key that has one. An empty key is about the table itself."""
    said = {}
    for record in records:
        key = bytes.fromhex(record["key"]["hex"]).decode()
        said.pop(key, None)
        if key and record["value"]:
            said[key] = Fields(bytes.fromhex(record["value"]["hex"]))
    return said


def read_catalog(said):
    catalog = {"epoch": 0, "closed": 0, "topics": {}, "deleted": {}, "groups": [], "ends": {}}
    for key, value in said.items():
        kind, _, name = key.partition("/")
        if key in ("epoch", "closed"):
            catalog[key] = value.u32()
        elif kind == "topic":
            topic = {"id": value.u128(), "partitions": value.u32()}
            topic["settings"] = {value.text(): value.text() for _ in range(value.u32())}
            catalog["topics"][name] = topic
        elif kind == "deleted":
            catalog["deleted"][name] = value.text()
        elif kind == "group":
            catalog["groups"].append(name)
        elif kind == "end":
            catalog["ends"][name] = value.numbers("Q")[0]
        elif kind == "cut":
            catalog.setdefault("cuts", {})[name] = value.numbers("QI")
        elif kind == "start":
            catalog.setdefault("starts", {})[name] = value.numbers("Q")[0]
    ids = set()
    for name in sorted(catalog["topics"], key=str.encode):
        if catalog["topics"][name]["id"] in ids:
            del catalog["topics"][name]
        else:
            ids.add(catalog["topics"][name]["id"])
    return catalog


def read_committed(said, topics):
    committed = {}
    for key, value in sorted(said.items()):
        topic, _, number = key.rpartition("/")
        try:
            topic_id, offset, metadata = value.u128(), value.numbers("Q")[0], value.text()
            check(not value.rest(), "metadata")
        except Refused:
            continue
        there = topics.get(topic)
        if there and there["id"] == topic_id and int(number) < there["partitions"]:
            committed[key] = {"offset": offset, "metadata": metadata}
    return committed


def group_of(directory):
    """The name of the group in this directory; None: it belongs to no group."""
    if not re.fullmatch(r"([A-Za-z0-9_-]|%[0-9a-f]{2})+", directory):
        return None
    escaped = lambda found: bytes([int(found[0][1:], 16)])
    name = re.sub(rb"%[0-9a-f]{2}", escaped, directory.encode())
    plain = [found for found in re.findall(r"%(..)", directory) if re.match(r"[A-Za-z0-9_-]", chr(int(found, 16)))]
    return None if plain else name.decode()


def group_id(name):
    number = 0x6C62272E07BB014262B821756295C58D
    for byte in name.encode():
        number = (number ^ byte) * (2**88 + 0x13B) % 2**128
    return f"{number:032x}"


def directory_list(*parts):
    path = os.path.join(*parts)
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def log_id_of(directory):
    for name in directory_list(directory):
        if re.fullmatch(r"[0-9]{20}\.log", name):
            with open(os.path.join(directory, name), "rb") as file:
                header = header_of(file.read(HEADER_BYTES), name, None)
            if header:
                return header["log_id"]
    raise Refused("no catalog")


def read_log(root):
    log_id = log_id_of(os.path.join(root, "catalog"))
    records, files = read_partition(os.path.join(root, "catalog"), (log_id, f"{0:032x}", 0))
    catalog, files = read_catalog(table(records)), {"catalog": files}
    topics, groups, held = {}, {}, {}
    for name, topic in sorted(catalog["topics"].items()):
        topics[name] = {"partitions": topic["partitions"], "settings": topic["settings"]}
        for number in range(topic["partitions"]):
            place = f"topics/{name}/{number}"
            closed_at = catalog["ends"].get(f"{topic['id']}/{number}", 0)
            home = (log_id, topic["id"], number)
            start = catalog.get("starts", {}).get(f"{topic['id']}/{number}", 0)
            cut = catalog.get("cuts", {}).get(f"{topic['id']}/{number}")
            there = read_partition(os.path.join(root, place), home, closed_at, start, cut)
            held[f"{name}/{number}"], files[place] = there
    for directory in directory_list(root, "groups"):
        if name := group_of(directory):
            place, own_id = f"groups/{directory}", group_id(name)
            home, closed_at = (log_id, own_id, 0), catalog["ends"].get(f"{own_id}/0", 0)
            records, files[place] = read_partition(os.path.join(root, place), home, closed_at)
            groups[name] = read_committed(table(records), catalog["topics"])
    contents = {"topics": topics, "records": held, "groups": groups}
    return {"contents": contents, "catalog": catalog, "files": files}


if __name__ == "__main__":
    for directory in sys.argv[1:]:
        try:
            print(json.dumps(read_log(directory)), flush=True)
        except Refused as refused:
            sys.exit(f"{directory}: {refused}")
