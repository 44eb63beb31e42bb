"""Bad situations that other tests do not come to: each has its health code, with a sentence, in the
status as JSON and as text, and in the log; and is over when it is over. Whatever a disk that is full
meets, nodes go on, the lead goes where there is room, and what cannot be done is refused clearly."""
import random
import re
import subprocess
import sys

from harness import PackmoorTest, Problem, ROOT, git, os, signal, threading, unittest, wait_for
from small_disk import SmallDisk
import bit_flips
from cluster_watch import primary_of, volume_status
from push_chains import Load

ALONE = """
[replication]
segment = "1 MiB"
scrub_interval_ms = 1000
"""
TOGETHER = """
[replication]
segment = "1 MiB"
checkpoint_bytes = "64 KiB"
checkpoint_interval_ms = 300
log_retain = "1 MiB"
lag_max = "1 MiB"
disk_reserve = "32 MiB"
propose_timeout_ms = 3000
read_timeout_ms = 3000
auto_balance = false
"""
DISK_BYTES = 160 << 20


class OnSmallDisks(PackmoorTest):
    """Nodes whose data directories are disks that this process has made."""

    def move_to_disks(self, cluster, size=None):
        self.disks = {}
        for node in cluster.state["nodes"]:
            try:
                disk = SmallDisk(size)
            except OSError as error:
                self.skipTest(f"making a file system needs root: {error}")
            self.addCleanup(disk.close)
            self.disks[node["id"]] = disk
            with open(cluster.config_of(node)) as f:
                text = f.read()
            with open(cluster.config_of(node), "w") as f:
                f.write(text.replace(f'data = "{node["data"]}"', f'data = "{disk.path}"'))
            node["data"] = disk.path
        cluster.save()


class Alone(OnSmallDisks):
    def test_a_file_system_that_can_less(self):
        cluster = self.start(1, prepare=self.move_to_disks)
        self.wait_told(cluster, cluster.state["nodes"][0], "DISK_LIMITED",
                       "cannot reserve space.* Put the data directory on")

    def restart_after(self, cluster, node, change):
        cluster.kill_node(node)
        change()
        cluster.start_node(node)

    def test_a_node_alone(self):
        without_ring = [sys.executable, os.path.join(ROOT, "tests", "integration", "no_io_uring.py")]

        def prepare(cluster):
            cluster.prefix = lambda node: without_ring
        cluster = self.start(1, extra=ALONE, prepare=prepare)
        node = cluster.state["nodes"][0]
        self.assertEqual(cluster.status(node)["io_backend"], "threads")
        self.wait_told(cluster, node, "NO_IO_URING", "io_uring")
        cluster.prefix = lambda node: []
        self.restart_after(cluster, node, lambda: None)
        status = cluster.wait_serving(node)
        self.assertEqual(status["io_backend"], "io_uring")
        self.assertEqual(status["health"], [])

        self.ctl(node, "scrub", "pause")
        self.wait_told(cluster, node, "SCRUB_OVERDUE", "The scrubber is paused: `packmoorctl scrub resume`")
        self.ctl(node, "scrub", "resume")
        self.wait_told(cluster, node, "SCRUB_OVERDUE", there=False)

        self.ctl(node, "repo", "create", "r")
        work = self.work()
        self.commit(work, "f", os.urandom(600_000))
        git("push", "-q", self.url(node), "HEAD:refs/heads/main", cwd=work)
        extents = wait_for(lambda: bit_flips.sealed_extents(node["data"]), "no pack gets its second name", 60)
        name, path = max(extents.items(), key=lambda entry: os.path.getsize(entry[1]))
        place = bit_flips.Flip("extent", path, 300_000, 3, True, f"extent {name}")
        self.restart_after(cluster, node, lambda: bit_flips.flip(place))
        self.wait_told(cluster, node, "SCRUB_ERRORS", "in 1 place.*not mended yet")
        self.wait_told(cluster, node, "BAD_BLOCKS", "Still damaged: 1")
        bit_flips.flip(place)   # the disk gives it again, as some do
        self.wait_told(cluster, node, "SCRUB_ERRORS", there=False)

        for number in range(20):
            self.commit(work, "g", str(number))
            git("push", "-q", self.url(node), "HEAD:refs/heads/main", cwd=work)
        cluster.kill_node(node)
        journal = bit_flips.Journal(node["data"])
        needed = [frame for frame in journal.acknowledged if journal.needed(frame)]
        bit_flips.flip(journal.flip_in(needed[-5], random.Random(1)))
        cluster.start_node(node)
        self.wait_told(cluster, node, "JOURNAL_DAMAGED", "segment-")
        self.wait_told(cluster, node, "VOLUME_DAMAGED", "It is not being repaired: .*this one copy only")


class Together(OnSmallDisks):
    def prepare(self, cluster):
        """Nodes on small disks, and a certificate for etcd that ends soon."""
        self.move_to_disks(cluster, DISK_BYTES)
        certificate = cluster.path("certs", "etcd-client")
        authority = cluster.path("certs", "ca")
        with open(certificate + ".ext", "w") as f:
            f.write("extendedKeyUsage=clientAuth\n")
        for command in (["req", "-new", "-key", certificate + ".key", "-subj", "/O=packmoor", "-out",
                         certificate + ".csr"],
                        ["x509", "-req", "-in", certificate + ".csr", "-CA", authority + ".crt", "-CAkey",
                         authority + ".key", "-set_serial", "4711", "-days", "5", "-extfile",
                         certificate + ".ext", "-out", certificate + ".crt"]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)

    def test_three_nodes(self):
        cluster = self.start(3, extra=TOGETHER, prepare=self.prepare, etcd_tls=True)
        nodes = cluster.state["nodes"]
        for node in nodes:
            self.wait_told(cluster, node, "ETCD_CERTIFICATE_ENDS",
                           r"The certificate \S+etcd-client.crt expires on .*; replace it")
        self.ctl(nodes[0], "repo", "create", "r")
        self.a_member_that_lags(cluster)
        self.disks_that_are_full(cluster)

    def a_member_that_lags(self, cluster):
        """It gets on, but seldom has the processor."""
        primary = wait_for(lambda: primary_of(cluster), "No node leads", 60)
        others = [node for node in cluster.state["nodes"] if node is not primary]
        slow, told = others[0], threading.Event()
        load = Load([primary, others[1]], "r", connections=4, label="lag").start()

        def hold_up():
            while not told.wait(0.002):
                os.kill(slow["pid"], signal.SIGSTOP)
                told.wait(0.3)
                os.kill(slow["pid"], signal.SIGCONT)
        holding = threading.Thread(target=hold_up, daemon=True)
        holding.start()
        try:
            self.wait_told(cluster, primary, "MEMBER_LAGS", f"slowed down until member {slow['id']} is nearer")
        finally:
            told.set()
            holding.join()
        self.wait_told(cluster, primary, "MEMBER_LAGS", there=False)
        load.stop()
        self.assertEqual(load.failures(), [])

    def disks_that_are_full(self, cluster):
        nodes, pids = cluster.state["nodes"], [node["pid"] for node in cluster.state["nodes"]]
        full = wait_for(lambda: primary_of(cluster), "No node leads", 60)
        others = [node for node in nodes if node is not full]
        load = Load(others, "r", connections=4, label="full").start()
        self.disks[full["id"]].fill()
        self.wait_told(cluster, full, "DISK_FULL", "has 0 MiB left, and 32 MiB are to be kept free.*Make room")
        wait_for(lambda: primary_of(cluster) in others, "no member with room leads", 60)
        self.wait_line(cluster, full, "gives the lead of a volume to a member that has room")
        refused = self.ctl(full, "volume", "switchover", "main", "--to", full["id"], code=1)
        self.assertIn("short of room", refused.stderr)
        epoch = volume_status(cluster, others[0])["epoch"]
        count = load.count()
        wait_for(lambda: load.count() >= count + 200, "the load does not get on", 60)
        load.stop()
        self.assertEqual(load.failures(), [], "a client of a node that has room sees no error")
        self.assertEqual(volume_status(cluster, others[0])["epoch"], epoch, "the lead goes to and fro")
        # Where there is no room, nothing that is new can be applied, and no pack be written.
        work = self.work("large")
        self.commit(work, "f", os.urandom(2_000_000))
        result = git("push", self.url(full), "HEAD:refs/heads/large", cwd=work, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, "the disk is full|The disk is full: make room")

        for node in others:
            self.disks[node["id"]].fill()
        for node in nodes:
            self.wait_told(cluster, node, "DISK_FULL")
        work, number, said = self.work("small"), 0, []

        def refused_clearly():
            nonlocal number
            number += 1
            self.commit(work, "f", str(number))
            result = git("push", self.url(nodes[number % 3]), f"HEAD:refs/heads/small-{number}", cwd=work,
                         check=False)
            said.append(result.stderr)
            return re.search("is full, and no member that has room leads|The disk is full: make room",
                             result.stderr)
        try:
            wait_for(refused_clearly, "no push is refused for want of room", 120)
        except Problem as problem:
            self.fail(f"{problem} They said: {said}")
        leader = wait_for(lambda: primary_of(cluster), "nobody leads, though reads could be served", 60)
        self.wait_told(cluster, leader, "VOLUME_UNAVAILABLE", "The disk is full: make room")
        for disk in self.disks.values():
            disk.make_room()
        for node in nodes:
            self.wait_told(cluster, node, "DISK_FULL", there=False)
        self.commit(work, "f", "at last")
        wait_for(lambda: git("push", "-q", self.url(full), "HEAD:refs/heads/last", cwd=work,
                             check=False).returncode == 0, "the volume does not go on", 60)
        self.assertEqual([node["pid"] for node in nodes if cluster.lives(node)], pids)
        self.wait_level(cluster)
        self.verify(cluster)


if __name__ == "__main__":
    unittest.main()
