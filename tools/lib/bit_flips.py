"""Bit flips in what a node keeps on its disk, and what each of them means by the formats alone.

Rot is a bit that is not what was written. To say that every flipped bit was noticed, one has to know
which bits mean something: this module reads the journal's layout (replicator/journal_format.h) and the
extents' (replicator/extent_format.h) by itself, and checks no checksum. Of an undamaged journal it finds
the batches that recovery follows by their chain, up to the one that the marker knows; the zeros behind a
batch, segments that are free, and stale batches of a segment's earlier use mean nothing. A batch of the
oldest segment means nothing any more when all its records lie below the last checkpoint and a later
snapshot repeats every other fact: recovery does not miss it.

Used by tests/integration/repair_test.py and by tools/lib/torture.py. Flip only what no process writes.
"""
import collections
import os
import re
import struct

ALIGNMENT = 4096
FRAME_MAGIC = 0x454d4152464a4d50
MARKER_MAGIC = 0x4b52414d4c4a4d50
FRAME = struct.Struct("<QHHI16sQQQ16sQq16sQ16s")
MARKER = struct.Struct("<QHHI16sQQQQq16s")
ENTRY = struct.Struct("<BBHI16s")
RECORD, CHECKPOINT, FACTS = 1, 4, 6
SNAPSHOT = 1

# One flipped bit. `needed`: something depends on it, so it has to be noticed. `batch`, `segment`: of the
# journal, by their sequences.
Flip = collections.namedtuple("Flip", "kind path offset bit needed what batch segment",
                              defaults=(0, 0))


def flip(place):
    """Flips the bit on the disk and reads it back."""
    with open(place.path, "r+b") as f:
        f.seek(place.offset)
        old = f.read(1)[0]
        f.seek(place.offset)
        f.write(bytes([old ^ (1 << place.bit)]))
        f.flush()
        os.fsync(f.fileno())
    return place


def byte_at(place):
    """The byte as it is now; None: the file is gone or shorter."""
    try:
        with open(place.path, "rb") as f:
            f.seek(place.offset)
            found = f.read(1)
    except FileNotFoundError:
        return None
    return found[0] if found else None


# --- the journal -------------------------------------------------------------------------------


class Frame:
    """One batch on the disk."""

    def __init__(self, path, offset, fields, content):
        (_, _, self.flags, self.entries, self.journal, self.salt, self.segment, self.batch,
         self.previous, self.body, _, _, _, self.hash) = fields
        self.path, self.offset = path, offset
        self.end = offset + FRAME.size + self.body   # zeros behind it mean nothing
        self.highest, self.checkpoints = {}, {}      # volume: index
        try:
            self.rotten = not self.read_entries(content[self.offset + FRAME.size:self.end])
        except struct.error:
            self.rotten = True

    def still_there(self):
        """Whether its segment has not been taken for something else since."""
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            header = f.read(FRAME.size)
        return len(header) == FRAME.size and FRAME.unpack(header)[13] == self.hash

    def read_entries(self, body):
        at = 0
        for _ in range(self.entries):
            kind, _, _, size, volume = ENTRY.unpack_from(body, at)
            content = at + ENTRY.size
            if kind == RECORD:
                self.highest[volume] = struct.unpack_from("<Q", body, content)[0]
            elif kind == CHECKPOINT:
                self.checkpoints[volume] = struct.unpack_from("<Q", body, content)[0]
            elif kind == FACTS:
                self.checkpoints[volume] = struct.unpack_from("<Q", body, content + 24)[0]
            at = (content + size + 7) // 8 * 8
        return at == self.body


class Journal:
    """The journal in a node's data directory. `known`: the newest batch that the marker knows; `oldest`:
    the segment where recovery begins; `rotten`: batches in which bits were flipped before."""

    def __init__(self, data, rotten=()):
        self.rotten = rotten
        self.folder = os.path.join(data, "journal")
        self.files = sorted(name for name in os.listdir(self.folder) if name.startswith("segment-"))
        self.journal, self.salt, self.known = self.read_marker()
        self.frames = self.chain(self.all_frames())
        self.segments = sorted({frame.segment for frame in self.frames})
        self.oldest = self.find_oldest()
        # Rot in the last batches that the marker does not know looks as a torn tail does.
        self.acknowledged = [frame for frame in self.frames if frame.batch <= self.known]

    def marker_slots(self):
        """Offsets of the slots that are in use, with their fields, the newest last."""
        with open(os.path.join(self.folder, "marker"), "rb") as f:
            content = f.read()
        slots = [(at, MARKER.unpack_from(content, at))
                 for at in range(0, len(content) - MARKER.size + 1, ALIGNMENT)]
        return sorted((slot for slot in slots if slot[1][0] == MARKER_MAGIC), key=lambda s: s[1][6])

    def read_marker(self):
        newest = self.marker_slots()[-1][1]
        return newest[4], newest[5], max(fields[7] for _, fields in self.marker_slots())

    def all_frames(self):
        found = {}
        for name in self.files:
            path = os.path.join(self.folder, name)
            with open(path, "rb") as f:
                content = f.read()
            for at in range(0, len(content) - FRAME.size + 1, ALIGNMENT):
                fields = FRAME.unpack_from(content, at)
                if fields[0] != FRAME_MAGIC or fields[4:6] != (self.journal, self.salt):
                    continue
                if at + FRAME.size + fields[9] <= len(content):
                    found[fields[13]] = (path, at, fields, content)
        return found

    def find_oldest(self):
        """The first segment with an intact first batch: what lies before is released."""
        newest = self.segments[-1]
        begun = []
        for name in self.files:
            with open(os.path.join(self.folder, name), "rb") as f:
                fields = FRAME.unpack(f.read(FRAME.size))
            if fields[0] == FRAME_MAGIC and fields[4:6] == (self.journal, self.salt) and \
                    fields[7] not in self.rotten and fields[6] <= newest:
                begun.append(fields[6])
        return min(begun, default=newest)

    def chain(self, found):
        """From the batch that the marker knows, back by the hashes of the batches before, and on to
        what follows it."""
        follows = {fields[8]: name for name, (_, _, fields, _) in found.items()}
        name = next((name for name, (_, _, fields, _) in found.items() if fields[7] == self.known),
                    None)
        frames = collections.deque()
        back = name
        while back in found:
            frames.appendleft(Frame(*found[back]))
            back = found[back][2][8]
        while follows.get(name) in found:
            name = follows[name]
            frames.append(Frame(*found[name]))
        # A segment whose first batch is gone is released and being written anew.
        while frames and frames[0].offset != 0:
            frames.popleft()
        return [frame for frame in frames if not frame.rotten and frame.batch not in self.rotten]

    def needed(self, frame):
        """Whether recovery has to miss the batch."""
        if frame.segment != self.oldest:
            return frame.segment > self.oldest
        oldest = [f for f in self.frames if f.segment == self.oldest]
        # Without its first batch, none of the oldest segment is looked at.
        lost = [frame]
        if frame is oldest[0] and len(self.segments) > 1:
            lost = oldest
        later = [f for f in self.frames if f.batch > lost[-1].batch]
        if not any(f.flags & SNAPSHOT for f in later):
            return True
        checkpoints = {}
        for f in later:
            checkpoints.update(f.checkpoints)
        return any(index > checkpoints.get(volume, 0)
                   for f in lost for volume, index in f.highest.items())

    def flip_in(self, frame, random):
        """A bit of the batch's header or entries."""
        offset = random.randrange(frame.offset, frame.end)
        part = "header" if offset < frame.offset + FRAME.size else "entries"
        name = os.path.basename(frame.path)
        return Flip("journal", frame.path, offset, random.randrange(8), self.needed(frame),
                    f"{part} of batch {frame.batch} in {name} at {frame.offset}", frame.batch,
                    frame.segment)

    def flip_anywhere(self, random):
        """A bit of any segment's file, needed or not."""
        path = os.path.join(self.folder, random.choice(self.files))
        offset = random.randrange(os.path.getsize(path))
        for frame in self.frames:
            if frame.path == path and frame.offset <= offset < frame.end:
                if frame.batch > self.known:
                    break
                return self.flip_in(frame, random)._replace(offset=offset)
        return Flip("journal", path, offset, random.randrange(8), False,
                    f"{os.path.basename(path)} at {offset}, where no batch is")

    def closed(self):
        """Batches of segments that are full, which nobody writes any more."""
        return [f for f in self.acknowledged if f.segment != self.segments[-1]]

    def flips_marker(self, random):
        """One bit in each slot of the marker that is in use."""
        path = os.path.join(self.folder, "marker")
        return [Flip("journal", path, at + random.randrange(MARKER.size), random.randrange(8), True,
                     "the marker") for at, _ in self.marker_slots()]


# What recovery says of what it misses, and which batches each sentence speaks of.
BETWEEN = re.compile(r"the next intact batch after (\d+) is (\d+) in")
AT_END = re.compile(r"batch (\d+) is not there, (?:and batches up to|but batch) (\d+) ")
BEGINNING = re.compile(r"its first intact batch is (\d+) at offset")
RECORDS = re.compile(r"has lost its records from")
SCRUBBED = re.compile(r"is damaged in (segment-\d+) from offset (\d+) to (\d+)")
MARKER_LOST = re.compile(r"The journal's marker is lost")


def journal_damage_told(place, text):
    """Whether sentences of recovery speak of what the flip made bad."""
    if place.what == "the marker":
        return bool(MARKER_LOST.search(text))
    return (any(int(a) < place.batch < int(b) for a, b in BETWEEN.findall(text))
            or any(int(a) <= place.batch <= int(b) for a, b in AT_END.findall(text))
            or any(place.batch < int(a) for a in BEGINNING.findall(text))
            or bool(RECORDS.search(text)))


def scrubber_told(place, text):
    """Whether the scrubber has found the damaged part of the journal that the flip lies in."""
    return any(name == os.path.basename(place.path) and int(a) <= place.offset < int(b)
               for name, a, b in SCRUBBED.findall(text))


# --- extents and the state ---------------------------------------------------------------------


def sealed_extents(data):
    """{id: path of the data} of the extents of packs that the state names: those have a second name
    in a repository's folder."""
    found = {}
    root = os.path.join(data, "extents", "sealed")
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if name.endswith(".data") and os.stat(path).st_nlink > 1:
                    found[name[:-len(".data")]] = path
            except FileNotFoundError:  # it has just expired
                pass
    return found


def flip_in_file(kind, path, random, what):
    """Every byte of the file is under a checksum."""
    return Flip(kind, path, random.randrange(os.path.getsize(path)), random.randrange(8), True, what)


def extent_flip(data, random, suffix=".data"):
    """A bit of an extent's blocks, or with ".sum" of its sidecar. None: there is no extent."""
    extents = sealed_extents(data)
    if not extents:
        return None
    name = random.choice(sorted(extents))
    path = extents[name][:-len(".data")] + suffix
    return flip_in_file("extent" if suffix == ".data" else "sidecar", path, random,
                        f"extent {name}")


def state_files(data):
    """The tables of the volumes' state stores."""
    found = []
    volumes = os.path.join(data, "volumes")
    for folder, _, names in os.walk(volumes):
        if os.path.basename(folder).startswith("state"):
            found += [os.path.join(folder, name) for name in names if name.endswith(".sst")]
    return sorted(path for path in found if os.path.getsize(path) > 0)


def state_flip(data, random):
    files = state_files(data)
    if not files:
        return None
    path = random.choice(files)
    return flip_in_file("state", path, random, os.path.relpath(path, os.path.join(data, "volumes")))
