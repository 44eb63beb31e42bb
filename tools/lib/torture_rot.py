"""Rot for tools/dev torture: bits flip in one member's journal, extents and state, and each is accounted
for: what means nothing by the format (bit_flips.py) is counted apart, all else must be noticed by the
node and mended from the others, which are healthy and level when the bits flip."""
import collections
import os
import shutil
import signal
import subprocess

import bit_flips
from cluster_watch import volume_status, wait_following
from processes import Problem, wait_for

PACKS = "packs"       # the repository that gives the nodes extents
PACK_COUNT, PACK_BYTES = 6, 1_000_000
FLIPS_MAX = 4
SIDECAR_SHARE = 0.3   # of the times that extents rot
REPAIR_SECONDS_MAX = 120
CHECKPOINT_SECONDS_MAX = 120
RELEASE_SECONDS_MAX = 90
STATE_DAMAGED = "he stored state of a volume is damaged"
GIT_ENVIRONMENT = {
    **os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
}


def git(*arguments, cwd=None):
    done = subprocess.run(["git", *arguments], cwd=cwd, env=GIT_ENVIRONMENT, capture_output=True,
                          timeout=600)
    if done.returncode != 0:
        raise Problem(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode().strip()


class Rot:
    FAULTS = ("rot-journal", "rot-extent", "rot-running", "rot-state")

    def __init__(self, cluster, folder, random, repository):
        self.cluster, self.folder, self.random, self.repository = cluster, folder, random, repository
        self.counts = {}      # fault: Counter of "flipped", "unused", "overwritten", "detected", "repaired"
        self.failures = []    # flips that were not, as sentences
        self.rotten = {}      # node: batches of its journal in which bits were flipped
        help_text = subprocess.run([cluster.program("packmoorctl"), "--help"], capture_output=True)
        self.scrubs = b"scrub start" in help_text.stdout

    def possible(self, fault):
        return self.scrubs or fault != "rot-state"

    def configuration(self):
        return "scrub_rate = 0\n" if self.scrubs else ""

    def make_packs(self, node):
        self.cluster.ctl(node, "repo", "create", PACKS)
        work = os.path.join(self.folder, "packs")
        git("init", "-q", "-b", "main", work)
        for number in range(PACK_COUNT):
            with open(os.path.join(work, f"f{number}"), "wb") as f:
                f.write(self.random.randbytes(PACK_BYTES))
            git("add", "-A", cwd=work)
            git("commit", "-qm", str(number), cwd=work)
            git("push", "-q", f"http://{node['http']}/{PACKS}.git", "HEAD:refs/heads/main", cwd=work)
        self.head = git("rev-parse", "HEAD", cwd=work)
        shutil.rmtree(work)

    # --- each fault breaks something, and returns how to mend it; that returns what to check ------

    def strike(self, fault, node):
        for each in self.cluster.state["nodes"]:
            wait_following(self.cluster, each)
        return getattr(self, fault.replace("-", "_"))(fault, node)

    def stop(self, node):
        self.cluster.kill_node(node, self.random.choice((signal.SIGTERM, signal.SIGKILL)))

    def rot_journal(self, fault, node):
        self.stop(node)
        mark = self.mark(node)
        places = self.flip(fault, self.journal_places(self.read_journal(node), False))
        return lambda: self.start_and_check(fault, node, places, mark)

    def rot_extent(self, fault, node):
        self.stop(node)
        mark = self.mark(node)
        wanted = self.extent_places(node)
        if self.random.random() < SIDECAR_SHARE:
            wanted.append(bit_flips.extent_flip(node["data"], self.random, ".sum"))
        places = self.flip(fault, wanted)
        return lambda: self.start_and_check(fault, node, places, mark)

    def rot_running(self, fault, node):
        """The process does not notice by itself; its scrubber does, where it has one, and its next
        start."""
        mark = self.mark(node)
        wanted = self.journal_places(self.read_journal(node), True) + self.extent_places(node)
        if self.scrubs:  # that mends it from memory
            wanted.append(bit_flips.extent_flip(node["data"], self.random, ".sum"))
        places = self.flip(fault, wanted)
        self.note_rotten(node, places)

        def mend():
            if self.scrubs:
                self.scrub(node)
            self.stop(node)
            return self.start_and_check(fault, node, places, mark)
        return mend

    def rot_state(self, fault, node):
        wait_for(lambda: bit_flips.state_files(node["data"]), f"{node['id']} makes no checkpoint",
                 CHECKPOINT_SECONDS_MAX)
        # What a kill leaves half written belongs to no state.
        self.cluster.kill_node(node, signal.SIGTERM)
        mark = self.mark(node)
        places = self.flip(fault, [bit_flips.state_flip(node["data"], self.random)
                                   for _ in range(self.random.randint(1, FLIPS_MAX))])
        return lambda: self.start_and_check(fault, node, places, mark)

    def scrub(self, node):
        """A whole pass, and until nothing stands that it has found."""
        passes = self.cluster.ctl(node, "scrub", "status")["passes"]
        self.cluster.ctl(node, "scrub", "start")

        standing = []

        def over():
            status = self.cluster.ctl(node, "scrub", "status", check=False)
            if not status or status["passes"] <= passes:
                return False
            standing[:] = [f"{finding['what']} {finding['problem']}" for finding in status["findings"]
                           if finding["mended_ms"] == 0]
            return not standing
        try:
            wait_for(over, f"{node['id']} does not mend what its scrubber finds", REPAIR_SECONDS_MAX)
        except Problem as problem:
            raise Problem("\n".join([str(problem), *standing])) from problem

    def read_journal(self, node):
        return bit_flips.Journal(node["data"], self.rotten.setdefault(node["id"], set()))

    def journal_places(self, journal, closed):
        """Bits of batches that recovery has to miss: closed segments, the newest batches; and some bits
        anywhere in the files."""
        known = [f for f in (journal.closed() if closed else journal.acknowledged)
                 if f.segment > journal.oldest or len(journal.segments) == 1]
        frames = [self.random.choice(known) for _ in range(self.random.randint(1, FLIPS_MAX))
                  if known]
        if not closed:
            frames += [self.random.choice(journal.acknowledged[-8:]), journal.acknowledged[-1]]
        places = [journal.flip_in(frame, self.random) for frame in frames if frame.still_there()]
        if not closed:
            places += [journal.flip_anywhere(self.random)]
        return places

    def extent_places(self, node):
        return [bit_flips.extent_flip(node["data"], self.random)
                for _ in range(self.random.randint(1, FLIPS_MAX))]

    def flip(self, fault, places):
        """Flips the bits, no bit twice; gives the places with what was there."""
        counts = self.counts.setdefault(fault, collections.Counter())
        unique = {(place.path, place.offset): place for place in places if place}.values()
        before = [(place, bit_flips.byte_at(place)) for place in unique]
        for place, _ in before:
            bit_flips.flip(place)
            counts["flipped"] += 1
        return before

    # --- accounting --------------------------------------------------------------------------

    def mark(self, node):
        return os.path.getsize(self.cluster.log_of(node))

    def note_rotten(self, node, places):
        self.rotten.setdefault(node["id"], set()).update(place.batch for place, _ in places)

    def start_and_check(self, fault, node, places, mark):
        """Of a stopped node. What has become a part of the oldest segment since, recovery may miss or
        not."""
        if fault == "rot-running":
            oldest = self.read_journal(node).oldest
            places = [(place._replace(needed=False) if place.kind == "journal" and
                       place.segment <= oldest else place, before) for place, before in places]
        self.note_rotten(node, places)
        overwritten = {place for place, before in places
                       if bit_flips.byte_at(place) not in (before, before ^ (1 << place.bit))}
        self.cluster.start_node(node)
        return lambda: self.check(fault, node, places, overwritten, mark)

    def check(self, fault, node, places, overwritten, mark):
        """Once it follows again."""
        codes = {entry["code"] for entry in self.cluster.status(node)["health"]}
        kinds = {place.kind for place, _ in places}
        if kinds & {"extent", "sidecar"}:
            wait_for(lambda: not self.cluster.status(node)["extents"].get("missing"),
                     f"{node['id']} does not fetch what is missing", REPAIR_SECONDS_MAX)
            self.read_packs(node)
        if self.scrubs and kinds & {"extent", "sidecar", "state"}:
            self.scrub(node)   # what nobody reads it finds
            self.wait_released(places)
        if "state" in kinds:
            wait_following(self.cluster, node)
        with open(self.cluster.log_of(node), errors="replace") as f:
            f.seek(mark)
            text = f.read()
        counts = self.counts[fault]
        for place, before in places:
            obsolete = (place.kind == "state" and bit_flips.byte_at(place) is None
                        and STATE_DAMAGED not in text)
            if place in overwritten or obsolete:
                counts["overwritten"] += 1
                continue
            detected, repaired = getattr(self, place.kind)(node, place, before, text, codes)
            if place.kind in ("extent", "sidecar") and not repaired and not self.is_live(place):
                counts["unused"] += 1   # of a pack that was merged into another, and waits for its end
                continue
            if not place.needed and not detected:
                counts["unused"] += 1
            else:
                self.account(counts, node, place, detected, repaired)

    # --- of each kind: whether it was detected, and whether it was repaired ---------------------

    def journal(self, node, place, before, text, codes):
        at_start = bit_flips.journal_damage_told(place, text) and "JOURNAL_DAMAGED" in codes
        return at_start or bit_flips.scrubber_told(place, text), self.is_whole(node)

    def sidecar(self, node, place, before, text, codes):
        mended = bit_flips.byte_at(place) == before
        at_start = f"{place.what} is damaged and counts as absent".lower() in text.lower()
        return at_start or "he scrubber found damage" in text and mended, mended

    def extent(self, node, place, before, text, codes):
        mended = bit_flips.byte_at(place) == before
        return mended or self.cluster.status(node)["extents"]["blocks_bad"] > 0, mended

    def wait_released(self, places):
        """Until what is not repaired is used no more: that shows once the state is durable."""
        def over():
            return not any(place.kind in ("extent", "sidecar") and bit_flips.byte_at(place) != before
                           and self.is_live(place) for place, before in places)
        try:
            wait_for(over, "", RELEASE_SECONDS_MAX)
        except Problem:
            pass   # the accounting tells

    def is_live(self, place):
        """Whether a pack is used: then it has a second name, where git looks for packs."""
        data = os.path.splitext(place.path)[0] + ".data"
        return os.path.exists(data) and os.stat(data).st_nlink > 1

    def state(self, node, place, before, text, codes):
        """The whole state is replaced, with all its files."""
        found = STATE_DAMAGED in text
        replaced = "he state of a volume is whole again" in text and bit_flips.byte_at(place) is None
        return found, replaced and self.is_whole(node)

    def account(self, counts, node, place, detected, repaired):
        counts["detected"] += detected
        counts["repaired"] += repaired
        if not detected or not repaired:
            self.failures.append(f"{node['id']}: bit {place.bit} of byte {place.offset} of {place.path} "
                                 f"({place.what}): "
                                 f"{'not noticed' if not detected else 'noticed, but not mended'}")

    def is_whole(self, node):
        volume = volume_status(self.cluster, node)
        return not volume["repairing"] and not volume["problem"]

    def read_packs(self, node):
        """Every block of every pack and index: by clones, which must be right, and by the digest."""
        for repository in (PACKS, self.repository):
            clone = os.path.join(self.folder, "read")
            git("clone", "-q", "--mirror", f"http://{node['http']}/{repository}.git", clone)
            if repository == PACKS and git("rev-parse", "refs/heads/main", cwd=clone) != self.head:
                raise Problem(f"{node['id']} shows another head of {PACKS}.")
            shutil.rmtree(clone)
        wait_for(lambda: self.cluster.ctl(node, "volume", "verify", self.cluster.state["volume"],
                                          timeout=REPAIR_SECONDS_MAX, check=False),
                 f"{node['id']} cannot verify the volume", REPAIR_SECONDS_MAX)


def lines(flips, failures):
    """The rows of the final table; `flips`: {fault: counts}."""
    if not flips:
        return
    yield (f"  {'bits flipped in':18}{'flipped':>8}{'unused':>8}{'written over':>14}{'detected':>10}"
           f"{'repaired':>10}")
    for fault, counts in sorted(flips.items()):
        values = [counts.get(key, 0) for key in ("flipped", "unused", "overwritten", "detected",
                                                 "repaired")]
        yield f"  {fault:18}" + "".join(f"{v:{w}}" for v, w in zip(values, (8, 8, 14, 10, 10)))
    yield f"  flipped bits that were not noticed or not mended: {len(failures)}"
