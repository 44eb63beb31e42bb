"""Bits flip on the disk of a member: in its journal, in the blocks and the sidecars of its extents. It
says so (health, status, log), neither acknowledges nor leads while it may have forgotten something, is
made whole from the others, and counts again. Where no good copy is left it says that, and goes on
refusing rather than losing anything silently."""
import random
import re
import shutil

from harness import CTL, PackmoorTest, git, os, run, signal, unittest, wait_for
import bit_flips
from cluster_watch import primary_of, volume_status
from push_chains import Load, missing_commits

CONFIGURATION = """
[replication]
segment = "1 MiB"
checkpoint_bytes = "64 KiB"
checkpoint_interval_ms = 300
propose_timeout_ms = 3000
"""
VOLUME_CODES = "VOLUME_(REPAIRING|DAMAGED|UNAVAILABLE)"   # of a volume that is not whole
# Both came at once.
MENDS_STATE = "scrub start" in run([CTL, "--help"], check=False).stdout
PUSHES = 1500   # some segments full of them


class RepairTest(PackmoorTest):
    """What the tests of damage share."""

    def setUp(self):
        super().setUp()
        seed = int(os.environ.get("PACKMOOR_TEST_SEED", random.randrange(1 << 32)))
        self.random = random.Random(seed)
        print(f"seed {seed}", flush=True)
        self.loads = []

    def begin(self):
        """A cluster with pushes on it; its primary and its standbys."""
        cluster = self.start(3, extra=CONFIGURATION)
        primary = wait_for(lambda: primary_of(cluster), "No node leads", 60)
        self.ctl(primary, "repo", "create", "r")
        return cluster, primary, self.others(cluster, primary)

    def others(self, cluster, *these):
        return [node for node in cluster.state["nodes"] if node not in these]

    def push_some(self, cluster, nodes, count=PUSHES):
        load = Load(nodes, "r", connections=4, label=f"l{len(self.loads)}-")
        self.addCleanup(lambda: [client.stopped.set() for client in load.clients])
        self.loads.append(load.start())
        wait_for(lambda: load.count() >= count, "the load does not get on", 120)
        load.stop()
        self.assertEqual(load.failures(), [])

    def acknowledges(self, node, name):
        """Whether a push of a new branch is acknowledged there."""
        work = os.path.join(self.folder, "single")
        if not os.path.exists(work):
            self.work("single")
        self.commit(work, "f", name)
        return git("push", "-q", self.url(node), f"HEAD:refs/heads/{name}", cwd=work,
                   check=False).returncode == 0

    def health(self, cluster, node):
        return {entry["code"]: entry["message"] for entry in cluster.status(node)["health"]}

    def log(self, cluster, node):
        with open(cluster.log_of(node), errors="replace") as f:
            return f.read()

    def wait_log(self, cluster, node, sentence):
        wait_for(lambda: sentence in self.log(cluster, node), f"no log line: {sentence}", 30)

    def flip(self, places):
        for place in places:
            bit_flips.flip(place)
            print(f"flipped bit {place.bit} of byte {place.offset}: {place.what}", flush=True)
        return places

    def finish_whole(self, cluster):
        """Everything acknowledged is on every member, and the members are equal."""
        self.wait_level(cluster)
        for node in cluster.state["nodes"]:
            clone = os.path.join(self.folder, "clone-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node), clone)
            git("fsck", "--full", "--strict", cwd=clone)
            for load in self.loads:
                lost = missing_commits(clone, load.heads(), lambda command: run(command).stdout)
                self.assertEqual(lost, [], f"acknowledged pushes are missing on {node['id']}")
            shutil.rmtree(clone)
        self.verify(cluster)


class JournalRot(RepairTest):
    def stop(self, cluster, node, signum=signal.SIGTERM):
        """Stops it when its marker knows its last batch; its journal, which is sound."""
        if signum == signal.SIGKILL:  # the marker gets to know the last batch by itself
            def known():
                journal = bit_flips.Journal(node["data"])
                return journal.frames[-1].batch == journal.known
            wait_for(known, "the marker stays behind", 30)
        cluster.kill_node(node, signum)
        code = run([CTL, "journal", "verify", "--data", node["data"]]).returncode
        self.assertEqual(code, 0)
        journal = bit_flips.Journal(node["data"])
        if signum == signal.SIGTERM:
            self.assertIs(journal.acknowledged[-1], journal.frames[-1])
        self.assertGreater(len(journal.segments), 1)
        return journal

    def everywhere(self, journal):
        """Bits in a closed segment, in the newest batches, and in the last."""
        needed = [frame for frame in journal.acknowledged if journal.needed(frame)]
        frames = [self.random.choice([f for f in journal.closed() if journal.needed(f)]),
                  self.random.choice(needed[-40:-20]), self.random.choice(needed[-10:-2]),
                  needed[-1]]
        return [journal.flip_in(frame, self.random) for frame in frames]

    def rot(self, node, flips):
        """Flips the bits; the reader of stopped nodes' journals sees each of them."""
        self.flip(flips)
        result = run([CTL, "journal", "verify", "--data", node["data"]], check=False)
        self.assertNotEqual(result.returncode, 0)
        for place in flips:
            self.assertTrue(bit_flips.journal_damage_told(place, result.stderr),
                            f"{place} is not told in:\n{result.stderr}")

    def assert_repairing(self, cluster, node):
        """Health, status and log say what is wrong, and that it is being mended."""
        self.wait_told(cluster, node, "JOURNAL_DAMAGED", "segment-")
        self.wait_told(cluster, node, VOLUME_CODES, "the journal is damaged and may have lost")
        self.assertTrue(volume_status(cluster, node)["repairing"])
        self.assertNotEqual(volume_status(cluster, node)["role"], "primary")
        self.assertIn("the journal is damaged",
                      self.ctl(node, "volume", "show", "main").stdout)
        self.wait_log(cluster, node, "The journal is damaged")

    def wait_whole(self, cluster, node):
        def whole():
            volume = volume_status(cluster, node) if cluster.lives(node) else None
            return volume and not volume["repairing"] and not volume["problem"]
        wait_for(whole, f"{node['id']} does not become whole", 120)
        self.wait_log(cluster, node, "The volume is repaired and whole again")
        told = [code for code in self.health(cluster, node) if re.fullmatch(VOLUME_CODES, code)]
        self.assertEqual(told, [])

    def etcd_signal(self, cluster, signum):
        for etcd in cluster.state["etcd"]:
            os.kill(etcd["pid"], signum)

    def test_a_standby_is_made_whole_and_counts_again(self):
        cluster, primary, (rotten, other) = self.begin()
        self.push_some(cluster, [primary, other])
        self.wait_level(cluster)
        self.rot(rotten, self.everywhere(self.stop(cluster, rotten)))
        self.push_some(cluster, [primary, other], 50)
        # Without the coordinator it cannot promise anew, and so it stays in repair.
        self.etcd_signal(cluster, signal.SIGSTOP)
        cluster.start_node(rotten)
        self.assert_repairing(cluster, rotten)
        self.wait_told(cluster, rotten, "VOLUME_REPAIRING", "It is being repaired: it ")
        cluster.kill_node(other)
        self.assertFalse(self.acknowledges(primary, "early"),
                         "a member in repair has acknowledged a push")
        self.assert_repairing(cluster, rotten)
        self.etcd_signal(cluster, signal.SIGCONT)
        self.wait_whole(cluster, rotten)
        # Two of three must acknowledge, and there are two.
        wait_for(lambda: self.acknowledges(primary, "after"), "it does not count again", 60)
        cluster.start_node(other)
        self.finish_whole(cluster)
        # It stays whole: what is rotten still is told at a start, but nothing is lost by it.
        cluster.kill_node(rotten, signal.SIGTERM)
        cluster.start_node(rotten)
        self.finish_whole(cluster)
        self.assertFalse(volume_status(cluster, rotten)["repairing"])

    def test_a_primary_that_was_killed_is_made_whole(self):
        cluster, primary, others = self.begin()
        self.push_some(cluster, [primary, *others])
        self.rot(primary, self.everywhere(self.stop(cluster, primary, signal.SIGKILL)))
        wait_for(lambda: primary_of(cluster), "No node leads", 60)
        self.push_some(cluster, others, 50)
        cluster.start_node(primary)
        self.wait_whole(cluster, primary)
        self.wait_told(cluster, primary, "JOURNAL_DAMAGED", "repaired from other members")
        # Rule 17 ended, it may lead again.
        self.ctl(primary, "volume", "switchover", "main", "--to", primary["id"])
        self.push_some(cluster, [primary, *others], 50)
        self.finish_whole(cluster)

    def test_a_lost_marker_is_rot(self):
        cluster, primary, (rotten, other) = self.begin()
        self.push_some(cluster, [primary, other], 50)
        cluster.kill_node(rotten, signal.SIGTERM)
        self.rot(rotten, bit_flips.Journal(rotten["data"]).flips_marker(self.random))
        cluster.start_node(rotten)
        self.wait_whole(cluster, rotten)
        self.wait_told(cluster, rotten, "JOURNAL_DAMAGED", "marker is lost")
        self.finish_whole(cluster)

    def test_with_too_few_good_copies_nothing_is_done_silently(self):
        cluster, primary, (rotten, other) = self.begin()
        self.push_some(cluster, [primary, other])
        self.wait_level(cluster)
        kept = os.path.join(self.folder, "kept")
        for node in (rotten, primary):
            # A primary that is asked to stop would see to it that another one leads.
            flips = self.everywhere(self.stop(cluster, node, signal.SIGKILL))
            if node is primary:
                shutil.copytree(node["data"], kept, ignore=shutil.ignore_patterns("*.sock"))
            self.rot(node, flips)
        for node in (rotten, primary):
            cluster.start_node(node)
        for node in (rotten, primary):
            self.assert_repairing(cluster, node)
        self.wait_told(cluster, primary, VOLUME_CODES, "waits until another member leads")
        # One good copy: what it has may not be all that was acknowledged, so it does not lead.
        self.assertFalse(self.acknowledges(other, "never"))
        self.wait_told(cluster, other, "VOLUME_UNAVAILABLE", "its copy is damaged")
        self.assertIsNone(primary_of(cluster))
        # With the good disk back everything is there.
        cluster.kill_node(primary, signal.SIGTERM)
        shutil.rmtree(primary["data"])
        os.rename(kept, primary["data"])
        cluster.start_node(primary)
        self.wait_whole(cluster, rotten)
        wait_for(lambda: self.acknowledges(other, "at-last"), "the volume does not go on", 60)
        self.finish_whole(cluster)


class ExtentRot(RepairTest):
    def push_packs(self, cluster, node):
        """Some packs that are too large for the journal, and wait until every member has them."""
        work = self.work()
        for number in range(3):
            self.commit(work, f"f{number}", self.random.randbytes(900_000))
            git("push", "-q", self.url(node), "HEAD:refs/heads/main", cwd=work)
        self.wait_level(cluster)
        for each in cluster.state["nodes"]:
            wait_for(lambda: len(bit_flips.sealed_extents(each["data"])) == 6,
                     "the packs have no second names", 60)
        return work

    def flip_blocks(self, node):
        """A bit in every block of every pack and index that the state names."""
        places = []
        for name, path in sorted(bit_flips.sealed_extents(node["data"]).items()):
            for start in range(0, os.path.getsize(path), 256 << 10):
                size = min(256 << 10, os.path.getsize(path) - start)
                places.append(bit_flips.Flip("extent", path, start + self.random.randrange(size),
                                             self.random.randrange(8), True, f"extent {name}"))
        before = {place: bit_flips.byte_at(place) for place in places}
        self.flip(places)
        return before

    def blocks(self, cluster, node):
        extents = cluster.status(node)["extents"]
        return extents["blocks_bad"], extents["blocks_repaired"]

    def rot_and_read(self, cluster, node, work):
        """Of a stopped node: the blocks rot, it is started, and a clone from it is right and mends them."""
        before = self.flip_blocks(node)
        cluster.start_node(node)
        cluster.wait_serving(node)
        self.assert_clone_equals(node, work)
        self.assertEqual(self.blocks(cluster, node), (len(before), len(before)))
        self.assertEqual({place: bit_flips.byte_at(place) for place in before}, before,
                         "what was mended is not on the disk")
        self.wait_told(cluster, node, "BAD_BLOCKS", f"{len(before)}.*epaired from other members")
        self.wait_log(cluster, node, "is bad here and is fetched from another member")
        self.wait_log(cluster, node, "A block of an extent is repaired")
        # Whoever reads the disk next finds nothing.
        cluster.kill_node(node)
        cluster.start_node(node)
        cluster.wait_serving(node)
        self.assert_clone_equals(node, work)
        self.assertEqual(self.blocks(cluster, node), (0, 0))

    def test_blocks_of_a_standby_are_mended(self):
        cluster, primary, (rotten, _) = self.begin()
        work = self.push_packs(cluster, primary)
        cluster.kill_node(rotten)
        self.rot_and_read(cluster, rotten, work)
        self.finish_whole(cluster)

    def test_blocks_of_a_primary_are_mended(self):
        cluster, primary, others = self.begin()
        work = self.push_packs(cluster, primary)
        cluster.kill_node(primary)
        wait_for(lambda: primary_of(cluster), "No node leads", 60)
        self.rot_and_read(cluster, primary, work)
        self.finish_whole(cluster)

    def test_a_damaged_sidecar_is_mended(self):
        cluster, primary, (rotten, other) = self.begin()
        work = self.push_packs(cluster, primary)
        for node in (rotten, primary, other):
            cluster.kill_node(node)
        extents = bit_flips.sealed_extents(rotten["data"])
        before = {}
        for name, path in extents.items():
            place = bit_flips.flip_in_file("sidecar", path[:-len(".data")] + ".sum", self.random,
                                           f"sidecar of {name}")
            before[place] = bit_flips.byte_at(place)
        self.flip(before)
        cluster.start_node(rotten)
        self.wait_log(cluster, rotten, "is damaged and counts as absent")
        self.wait_told(cluster, rotten, "EXTENTS_MISSING", "fetched from other members")
        for node in (primary, other):
            cluster.start_node(node)
        wait_for(lambda: cluster.status(rotten)["extents"]["missing"] == 0 and
                 cluster.status(rotten)["extents"]["sealed"] == len(extents),
                 "what is missing is not fetched", 60)
        wait_for(lambda: not any(volume["repairing"] for volume in cluster.status(rotten)["volumes"]),
                 "the volume is not whole again", 60)
        self.assert_clone_equals(rotten, work)
        self.finish_whole(cluster)

    def test_a_block_that_is_bad_everywhere_is_told_and_not_served(self):
        cluster, primary, _ = self.begin()
        work = self.push_packs(cluster, primary)
        nodes = cluster.state["nodes"]
        for node in nodes:
            cluster.kill_node(node)
        name = self.random.choice(sorted(bit_flips.sealed_extents(nodes[0]["data"])))
        offset = self.random.randrange(1000)
        bit = self.random.randrange(8)
        places = [bit_flips.Flip("extent", bit_flips.sealed_extents(node["data"])[name], offset, bit,
                                 True, f"extent {name} of {node['id']}") for node in nodes]
        self.flip(places)
        for node in nodes:
            cluster.start_node(node)
        for node in nodes:
            cluster.wait_serving(node)
            result = git("clone", "-q", "--mirror", self.url(node),
                         os.path.join(self.folder, "refused"), check=False)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("is damaged: block 0", result.stderr)
            self.wait_told(cluster, node, "BAD_BLOCKS", "Repaired from other members: 0")
            self.wait_log(cluster, node, "It cannot be repaired")
        # One good copy is enough to mend the others.
        self.flip(places[:1])
        for node in nodes:
            self.assert_clone_equals(node, work)
        self.finish_whole(cluster)


@unittest.skipUnless(MENDS_STATE, "this packmoord does not bring damaged states back")
class StateRot(RepairTest):
    def stopped_with_tables(self, cluster, node, signum=signal.SIGTERM):
        """Stops it with a stored state of some tables."""
        wait_for(lambda: volume_status(cluster, node)["checkpoint"] > PUSHES // 2 and
                 bit_flips.state_files(node["data"]), "no checkpoint is made", 60)
        cluster.kill_node(node, signum)
        return bit_flips.state_files(node["data"])

    def flip_tables(self, files):
        """A bit in each 4 KiB of every table, so that whatever is read meets one."""
        self.flip([bit_flips.Flip("state", path, at + self.random.randrange(
            min(4096, os.path.getsize(path) - at)), self.random.randrange(8), True,
            os.path.basename(path)) for path in files
            for at in range(0, os.path.getsize(path), 4096)])

    def finish_state(self, cluster, node):
        """The damage is told; the state comes from another member; all is there."""
        self.wait_log(cluster, node, "The stored state of a volume is damaged on this node")
        self.wait_log(cluster, node, "The state of a volume is whole again")

        def whole():
            volume = volume_status(cluster, node)
            return volume and not volume["repairing"] and not volume["problem"] and \
                volume["transfers_installed"] > 0
        wait_for(whole, f"{node['id']} does not become whole", 120)
        told = [code for code in self.health(cluster, node) if re.fullmatch(VOLUME_CODES, code)]
        self.assertEqual(told, [])
        self.finish_whole(cluster)

    def test_a_standby_fetches_a_state_that_has_rotted(self):
        cluster, primary, (rotten, other) = self.begin()
        self.push_some(cluster, [primary, other])
        self.flip_tables(self.stopped_with_tables(cluster, rotten))
        # While nobody leads it cannot be brought back.
        for node in (primary, other):
            cluster.kill_node(node)
        cluster.start_node(rotten)
        self.wait_log(cluster, rotten, "The stored state of a volume is damaged on this node")
        self.wait_told(cluster, rotten, VOLUME_CODES, "the state store in .* fails its checksums")
        self.assertNotEqual(volume_status(cluster, rotten)["role"], "primary")
        for node in (primary, other):
            cluster.start_node(node)
        self.finish_state(cluster, rotten)
        self.push_some(cluster, [rotten], 50)
        self.finish_whole(cluster)

    def test_a_primary_that_was_killed_fetches_a_state_that_has_rotted(self):
        cluster, primary, others = self.begin()
        self.push_some(cluster, [primary, *others])
        self.flip_tables(self.stopped_with_tables(cluster, primary, signal.SIGKILL))
        wait_for(lambda: primary_of(cluster), "No node leads", 60)
        self.push_some(cluster, others, 50)
        cluster.start_node(primary)
        self.finish_state(cluster, primary)

    def test_one_bit_that_nobody_reads_is_found_by_the_scrubber(self):
        cluster, primary, (rotten, other) = self.begin()
        self.push_some(cluster, [primary, other])
        files = self.stopped_with_tables(cluster, rotten)
        path = max(files, key=os.path.getsize)
        self.flip([bit_flips.Flip("state", path, os.path.getsize(path) // 2,
                                  self.random.randrange(8), True, os.path.basename(path))])
        cluster.start_node(rotten)
        cluster.wait_serving(rotten)
        self.ctl(rotten, "scrub", "start")
        self.finish_state(cluster, rotten)
        # It fails while damage stands, with no JSON then.
        wait_for(lambda: (cluster.ctl(rotten, "scrub", "status", check=False) or {"passes": 0})["passes"],
                 "the pass does not end", 120)
        self.wait_told(cluster, rotten, "SCRUB_REPAIRED", "in 1 place: Of volume main, table .* is damaged")


if __name__ == "__main__":
    unittest.main()
