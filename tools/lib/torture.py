"""tools/dev torture: real nodes, etcd and git clients while things break, one after another.

Three members (write quorum 2), each a host of its own in a network namespace with a disk of its own,
under pushes and reads. At random: a node is killed (-9), stopped (SIGSTOP), cut off from the others or
from everything, in both directions or in one; its disk is filled; etcd is killed; bits flip in its journal
and its extents. What was broken is mended before the next fault, and every flipped bit is accounted for. At the end every acknowledged push must be on every node, no read may
have shown less than what was acknowledged before it, and `packmoorctl volume verify` must find the
members equal. Prints a table of the faults, and fails when anything was lost.
"""
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time

import experiment
import netns
import torture_rot
from cluster import Cluster
from cluster_watch import lost_pushes, primary_of, wait_following
from experiment import say
from processes import Problem, end, wait_for
from push_chains import Load, longest_pause
from torture_rot import Rot

NODES = 3
DISK_MIB = 3072
FAULT_SECONDS = (0.3, 6.0)
CALM_SECONDS = (0.5, 2.0)
RESUME_SECONDS_MAX = 90
REPOSITORY = "torture"
# Segments that fill and are reused within minutes.
CONFIGURATION = """
[replication]
segment = "4 MiB"
checkpoint_bytes = "4 MiB"
"""


class Hosts(Cluster):
    """A cluster whose nodes run on hosts of their own."""

    def __init__(self, folder, network):
        super().__init__(folder)
        self.network = network

    def prefix(self, node):
        return self.network.hosts[node["id"]].prefix()


class Reader(threading.Thread):
    """Asks nodes for refs and compares them with what was acknowledged before the question."""

    def __init__(self, load, nodes, seed):
        super().__init__(daemon=True)
        self.load, self.nodes = load, nodes
        self.random = random.Random(seed)
        self.reads, self.stale, self.errors = 0, [], 0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(0.02):
            before = {c.ref: len(c.acknowledged) for c in self.load.clients}
            node = self.random.choice(self.nodes)
            try:
                refs = self.refs(node["http"])
            except (OSError, http.client.HTTPException, RuntimeError):
                self.errors += 1
                continue
            self.reads += 1
            for client in self.load.clients:
                known = before[client.ref]
                if known and refs.get(client.ref) != client.acknowledged[known - 1][0]:
                    self.compare(client, known, refs.get(client.ref), node)

    def compare(self, client, known, shown, node):
        """Another commit than the one acknowledged last is right if it is a later one."""
        position = {entry[0]: i for i, entry in enumerate(client.acknowledged)}.get(shown)
        if shown is None or (position is not None and position < known - 1):
            self.stale.append(f"{node['id']} showed {shown} for {client.ref}, which is older than "
                              f"its {known}th acknowledged push")

    def refs(self, address):
        host, port = address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request("GET", f"/{REPOSITORY}.git/info/refs?service=git-upload-pack")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(answer.status)
        found = {}
        for line in body.split(b"\n"):
            at = line.find(b" refs/heads/")
            if at >= 40:
                found[line[at + 1:].split(b"\0")[0].decode()] = line[at - 40:at].decode()
        return found


class Torture:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.random = random.Random(options.seed)
        self.network = netns.Network([f"n{i + 1}" for i in range(NODES)])
        self.cluster = Hosts(os.path.join(folder, "cluster"), self.network)
        self.broken = {}        # node: [(from, until or None)], when it was not healthy
        self.rows = {}          # fault: {"times", "pauses"}
        self.ended = []         # nodes that ended by themselves, as sentences
        self.rot = Rot(self.cluster, folder, self.random, REPOSITORY)

    # --- disks -------------------------------------------------------------------------------

    def make_disks(self):
        os.makedirs(self.cluster.folder, exist_ok=True)
        for i in range(NODES):
            image, mount = (os.path.join(self.folder, f"n{i + 1}.img"),
                            os.path.join(self.cluster.folder, f"n{i + 1}"))
            os.makedirs(mount)
            with open(image, "wb") as f:
                f.truncate(DISK_MIB << 20)
            netns.run("mkfs.ext4", "-q", "-m", "0", image)
            netns.run("mount", "-o", "loop", image, mount)
            os.rmdir(os.path.join(mount, "lost+found"))

    def unmount(self):
        for i in range(NODES):
            subprocess.run(["umount", "-l", os.path.join(self.cluster.folder, f"n{i + 1}")],
                           stderr=subprocess.DEVNULL)

    # --- faults: each breaks something and returns how to mend it; mending may return what is to be
    # checked when the node follows again ---------------------------------------------------------

    def kill(self, node):
        os.kill(node["pid"], signal.SIGKILL)
        wait_for(lambda: not self.cluster.lives(node), f"{node['id']} lives on")
        return lambda: None

    def stop(self, node):
        pid = node["pid"]
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    def isolate(self, node):
        for other in [*self.others(node), "hub"]:
            self.network.cut(node["id"], other)
            if other != "hub":
                self.network.cut(other, node["id"])
        return self.network.heal

    def partition(self, node):
        for other in self.others(node):
            self.network.cut(node["id"], other)
            self.network.cut(other, node["id"])
        return self.network.heal

    def mute(self, node):
        for other in self.others(node):
            self.network.cut(node["id"], other)
        return self.network.heal

    def deaf(self, node):
        for other in self.others(node):
            self.network.cut(other, node["id"])
        return self.network.heal

    def one_way(self, node):
        self.network.cut(node["id"], self.random.choice(self.others(node)))
        return self.network.heal

    def full(self, node):
        path = os.path.join(self.cluster.folder, node["id"], "filler")
        with open(path, "wb") as f:
            size = os.statvfs(path).f_bavail * os.statvfs(path).f_bsize
            for step in (1 << 30, 1 << 24, 1 << 20, 4096):
                while True:
                    try:
                        os.posix_fallocate(f.fileno(), f.seek(0, os.SEEK_END), min(step, size))
                    except OSError:
                        break
        return lambda: os.path.exists(path) and os.remove(path)

    def etcd(self, node):
        etcd = self.cluster.state["etcd"][0]
        end(etcd["pid"], self.cluster.etcd_data(etcd), signal.SIGKILL, 10)
        return self.cluster.start_etcd

    FAULTS = ("kill", "stop", "isolate", "partition", "mute", "deaf", "one-way", "full", "etcd",
              *Rot.FAULTS)

    def strike_with(self, fault, node):
        if fault in Rot.FAULTS:
            return self.rot.strike(fault, node)
        return getattr(self, fault.replace("-", "_"))(node)

    def others(self, node):
        return [n["id"] for n in self.cluster.state["nodes"] if n is not node]

    def strike(self, fault):
        nodes = self.cluster.state["nodes"]
        # The primary is what hurts; the others get their share.
        leader = primary_of(self.cluster)
        node = leader if leader and self.random.random() < 0.6 else self.random.choice(nodes)
        whole = fault == "etcd"
        begin = time.monotonic()
        if not whole:
            self.broken.setdefault(node["http"], []).append([begin, None])
        mend = self.strike_with(fault, node)
        time.sleep(self.random.uniform(*FAULT_SECONDS))
        mended = time.monotonic()
        check = mend()
        # A node may have ended itself, as when its journal could not be written.
        if fault != "kill" and not self.cluster.lives(node):
            self.ended.append(f"{node['id']} under {fault}")
        if not self.cluster.lives(node):
            self.cluster.start_node(node)
        for each in nodes:
            wait_following(self.cluster, each)
        if callable(check):
            check()
        if not whole:
            self.broken[node["http"]][-1][1] = time.monotonic()
        row = self.rows.setdefault(fault, {"times": 0, "pauses": []})
        row["times"] += 1
        # Until a push was acknowledged after it was mended, the pause goes on.
        deadline = time.monotonic() + RESUME_SECONDS_MAX
        while not self.load.times(mended):
            if time.monotonic() > deadline:
                raise Problem(f"No push was acknowledged for {RESUME_SECONDS_MAX} seconds after "
                              f"{fault} of {node['id']} was mended.")
            time.sleep(0.01)
        now = time.monotonic()
        row["pauses"].append(longest_pause(self.load.times(begin), begin, now))
        say(f"{fault} of {'etcd' if whole else node['id']} for {mended - begin:.1f} s: longest pause "
            f"{row['pauses'][-1] * 1000:.0f} ms")

    # --- the whole ---------------------------------------------------------------------------

    def run(self):
        cluster = self.cluster
        self.make_disks()
        hosts = [self.network.hosts[f"n{i + 1}"].address for i in range(NODES)]
        cluster.create(NODES, hosts=hosts, etcd_host=netns.HUB,
                       extra=CONFIGURATION + self.rot.configuration())
        self.load, reader = None, None
        try:
            cluster.up()
            nodes = cluster.state["nodes"]
            cluster.ctl(nodes[0], "repo", "create", REPOSITORY)
            self.rot.make_packs(nodes[0])
            self.load = Load(nodes, REPOSITORY, self.options.connections).start()
            reader = Reader(self.load, nodes, self.options.seed)
            reader.start()
            finish = time.monotonic() + self.options.minutes * 60
            faults = [fault for fault in self.options.faults if self.rot.possible(fault)]
            if faults != self.options.faults:
                say("rot-state is left out: this packmoord has no scrubber")
            turn = 0
            while time.monotonic() < finish:
                time.sleep(self.random.uniform(*CALM_SECONDS))
                # Each kind has its turn; the order is random.
                if turn % len(faults) == 0:
                    order = self.random.sample(faults, len(faults))
                self.strike(order[turn % len(order)])
                turn += 1
            self.load.stop()
            reader.stopped.set()
            reader.join(60)
            for node in nodes:
                wait_following(cluster, node)
            lost = lost_pushes(cluster, self.load, self.folder, REPOSITORY)
            verified = cluster.ctl(nodes[0], "volume", "verify", cluster.state["volume"])
        finally:
            for thread in [*(self.load.clients if self.load else []), *([reader] if reader else [])]:
                thread.stopped.set()
            self.network.heal()
            cluster.down()
            experiment.keep_logs(self.options, cluster)
            self.unmount()
            self.network.close()
        return {"seed": self.options.seed, "minutes": self.options.minutes,
                "pushes": self.load.count(), "reads": reader.reads, "stale": reader.stale,
                "faults": {k: {"times": v["times"], "longestPauseMs": max(v["pauses"]) * 1000}
                           for k, v in self.rows.items()},
                "failuresAtHealthyNodes": self.at_healthy_nodes(),
                "failuresAtBrokenNodes": len(self.load.failures()) - len(self.at_healthy_nodes()),
                "flips": {fault: dict(counts) for fault, counts in self.rot.counts.items()},
                "flipsNotMended": self.rot.failures, "endedThemselves": self.ended, "lost": lost, "equal": verified["equal"]}

    def at_healthy_nodes(self):
        """Failures of pushes at nodes that nothing was wrong with from sending to failing."""
        found = []
        for client in self.load.clients:
            for (address, sent, failed), text in zip(client.failed, client.failures):
                times = self.broken.get(address, [])
                if not any(a <= failed and (b is None or b >= sent) for a, b in times):
                    found.append(text)
        return found


def print_text(results):
    print(f"torture for {results['minutes']:g} minutes (seed {results['seed']}): {results['pushes']} "
          f"pushes acknowledged, {results['reads']} reads compared")
    print(f"  {'fault':18}{'times':>7}{'longest pause':>16}")
    for fault, row in sorted(results["faults"].items()):
        print(f"  {fault:18}{row['times']:7}{row['longestPauseMs']:13.0f} ms")
    for line in torture_rot.lines(results["flips"], results["flipsNotMended"]):
        print(line)
    print(f"  acknowledged pushes that a node lacks: {len(results['lost'])}")
    print(f"  reads that showed too little: {len(results['stale'])}")
    print(f"  failed pushes at healthy nodes: {len(results['failuresAtHealthyNodes'])}; at broken "
          f"ones: {results['failuresAtBrokenNodes']}")
    if results["endedThemselves"]:
        print(f"  nodes that ended by themselves: {', '.join(results['endedThemselves'])}")
    print(f"  members equal at the end: {'yes' if results['equal'] else 'NO'}")


def main():
    netns.enter("--inside")
    parser = experiment.parser_for("torture", __doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--connections", type=int, default=6)
    parser.add_argument("--faults", default=",".join(Torture.FAULTS),
                        type=lambda text: text.split(","), help="of: " + ",".join(Torture.FAULTS))
    experiment.add_keep_logs(parser)
    options = parser.parse_args()
    for fault in options.faults:
        if fault not in Torture.FAULTS:
            parser.error(f"there is no fault {fault}; there are {', '.join(Torture.FAULTS)}")
    results = experiment.run(options, "torture", lambda folder: Torture(options, folder).run())
    if results is None:
        return 1
    print_text(results)
    for text in (results["lost"] + results["flipsNotMended"] + results["stale"]
                 + results["failuresAtHealthyNodes"])[:20]:
        print(f"  {text}")
    clean = (results["equal"] and not results["lost"] and not results["flipsNotMended"]
             and not results["stale"] and not results["failuresAtHealthyNodes"])
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
