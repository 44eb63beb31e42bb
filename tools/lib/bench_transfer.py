"""tools/dev bench transfer: how a standby that is G GB behind gets on to follow again.

Three members on this machine (etcd, TLS, write quorum 2). One standby is down while packs of G GB are
pushed, until no log holds what it lacks. Then it is started under a load of small pushes and fetches a
checkpoint. On the way it is killed (-9), and then its source is; told is how much was there already
when the transfer went on. The rate is that between the kills, beside the rate of a copy of the same
files through TLS into synced files (tools/lib/tls_copy.py), under the same load and without any. At the
end every acknowledged push must be on every node and the members be equal.
"""
import os
import shutil
import subprocess
import sys
import threading
import time

import experiment
import tls_copy
from cluster import Cluster, Problem, wait_for
from cluster_watch import lost_pushes, primary_of, volume_status, wait_following
from experiment import say
from push_chains import Load

PACKS, PUSHES = "packs", "pushes"   # repositories: to see what was pushed, no gigabytes are cloned
CONNECTIONS = 8
POLL_SECONDS = 0.1
TRANSFER_SECONDS_MAX = 3600
RATIO_WANTED = 0.6
KILLS = {"receiver": 0.3, "source": 0.6}   # at which part of the bytes
# So little is kept that the standby cannot follow from the log, and no throttle is in the way (the
# default, 1 GiB a second for one transfer, would not be either where a disk is slower).
CONFIGURATION = """
[replication]
checkpoint_bytes = "1 MiB"
checkpoint_interval_ms = 1000
log_retain = "0"
transfer_rate = "0"
"""
GIT_ENVIRONMENT = {
    **os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
}


def git(*arguments, cwd=None):
    done = subprocess.run(["git", *arguments], cwd=cwd, env=GIT_ENVIRONMENT, capture_output=True)
    if done.returncode != 0:
        raise Problem(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")


def fill(node, folder, wanted, pack_bytes):
    """Pushes packs of random bytes."""
    work = os.path.join(folder, "work")
    git("init", "-q", "-b", "main", work)
    for setting in ("core.compression=0", "pack.compression=0", "gc.auto=0",
                    "core.bigFileThreshold=1m"):
        git("config", *setting.split("="), cwd=work)
    for number in range(max(1, round(wanted / pack_bytes))):
        with open(os.path.join(work, "f"), "wb") as file:
            for _ in range(pack_bytes >> 20):
                file.write(os.urandom(1 << 20))
        git("add", "f", cwd=work)
        git("commit", "-qm", str(number), cwd=work)
        git("push", "-q", f"http://{node['http']}/{PACKS}.git", "HEAD:refs/heads/large", cwd=work)
    shutil.rmtree(work)


def files_of(node):
    """The state and the extents that the node has, as paths."""
    found = []
    for name in ("volumes", "extents/sealed"):
        for folder, _, names in os.walk(os.path.join(node["data"], name)):
            if "/repositories" not in folder:
                found += [os.path.join(folder, each) for each in names]
    return found


class Watch(threading.Thread):
    """Follows the transfer at a node, from attempt to attempt. `stretches`: what was fetched without
    interruption, as [since, bytes then, until, bytes then]."""

    def __init__(self, cluster, node):
        super().__init__(daemon=True)
        self.cluster, self.node = cluster, node
        self.stretches, self.begun, self.total, self.source = [], False, 0, None
        self.done = 0
        self.installed, self.ended = threading.Event(), threading.Event()

    def run(self):
        while not self.installed.is_set() and not self.ended.wait(POLL_SECONDS):
            volume = self.cluster.lives(self.node) and volume_status(self.cluster, self.node)
            now = time.monotonic()
            transfer = volume and volume.get("transfer")
            if transfer and transfer["phase"] == "fetching" and transfer["file_bytes"] > 0:
                self.note(now, transfer)
            elif volume and volume["transfers_installed"] > 0:
                if self.begun:
                    self.stretches[-1][2:] = [now, self.total]
                self.installed.set()

    def note(self, now, transfer):
        self.total = transfer["file_bytes"] + transfer["extent_bytes"]
        self.done = transfer["file_bytes_done"] + transfer["extent_bytes_done"]
        if not self.begun or transfer["source"] != self.source:
            self.stretches.append([now, self.done, now, self.done])
            self.source, self.begun = transfer["source"], True
        self.stretches[-1][2:] = [now, self.done]

    def interrupted(self):
        self.begun = False

    def wait_part(self, part):
        wait_for(lambda: self.installed.is_set() or (self.begun and self.done >= part * self.total),
                 "the transfer does not get on", TRANSFER_SECONDS_MAX)

    def bytes_per_second(self):
        seconds = sum(until - since for since, _, until, _ in self.stretches)
        return sum(b - a for _, a, _, b in self.stretches) / max(seconds, 1e-9)


def kill(cluster, watch, whom, away):
    """kill -9 and a new start on the way; what was there before, and when it went on."""
    watch.wait_part(KILLS[whom])
    if watch.installed.is_set():
        raise Problem(f"The transfer was over before the {whom} could be killed: give more gigabytes.")
    node = away if whom == "receiver" else cluster.node(watch.source)
    before, stretches = watch.done, len(watch.stretches)
    cluster.kill_node(node)
    watch.interrupted()
    cluster.start_node(node)
    wait_for(lambda: len(watch.stretches) > stretches or watch.installed.is_set(),
             "the transfer does not go on", TRANSFER_SECONDS_MAX)
    resumed = watch.stretches[stretches][1] if len(watch.stretches) > stretches else watch.total
    say(f"Killed the {whom} {node['id']} with {before / 1e6:.0f} MB fetched; it went on with "
        f"{resumed / 1e6:.0f} MB of {watch.total / 1e6:.0f} MB.")
    return {"whom": whom, "node": node["id"], "bytesBefore": before, "bytesResumed": resumed}


def transfer(cluster, options, away, load):
    """From the start of the standby until it follows."""
    begin, pushed = time.monotonic(), load.count()
    cluster.start_node(away)
    watch = Watch(cluster, away)
    watch.start()
    try:
        kills = [kill(cluster, watch, whom, away) for whom in options.kill]
        wait_for(watch.installed.is_set, "the checkpoint is not installed", TRANSFER_SECONDS_MAX)
    finally:
        watch.ended.set()
        watch.join()
    wait_following(cluster, away)
    seconds = time.monotonic() - begin
    return {"bytes": watch.total, "seconds": seconds, "kills": kills,
            "bytesPerSecond": watch.bytes_per_second(),
            "pushesPerSecond": (load.count() - pushed) / seconds}


def compare(cluster, folder, primary, load, result):
    """The reference: under the load, then without."""
    certs = os.path.join(cluster.folder, "certs")
    for name in ("tlsUnderLoad", "tls"):
        if name == "tls":
            load.stop()
        copied, seconds = tls_copy.copy(files_of(primary), folder, certs, primary["id"])
        result[name + "BytesPerSecond"] = copied / seconds
        result["ratioTo" + name[0].upper() + name[1:]] = (
            result["bytesPerSecond"] / result[name + "BytesPerSecond"])


def measure(cluster, options, folder):
    nodes = cluster.state["nodes"]
    primary = wait_for(lambda: primary_of(cluster), "No node leads", 60)
    away, spared = [node for node in nodes if node is not primary]
    for repository in (PACKS, PUSHES):
        cluster.ctl(primary, "repo", "create", repository)
    before = volume_status(cluster, primary)["last"]
    cluster.kill_node(away)
    say(f"Pushing {options.gigabytes:g} GB while {away['id']} is down.")
    fill(primary, folder, options.gigabytes * 1e9, options.pack_mib << 20)
    # Their node is never killed, so no push may fail.
    load = Load([spared], PUSHES, CONNECTIONS, interval=CONNECTIONS / options.pushes).start()
    try:
        wait_for(lambda: volume_status(cluster, primary)["base"] > before + 10,
                 "the log is not recycled", 120)
        result = transfer(cluster, options, away, load)
        compare(cluster, folder, primary, load, result)
    finally:
        for client in load.clients:
            client.stopped.set()
    result["failures"] = load.failures()
    for node in nodes:
        wait_following(cluster, node)
    result["lost"] = lost_pushes(cluster, load, folder, PUSHES)
    result["equal"] = cluster.ctl(away, "volume", "verify", cluster.state["volume"],
                                  timeout=600)["equal"]
    return result


def print_text(result):
    rate = "{:.0f} MB/s".format
    print(f"transfer of {result['bytes'] / 1e6:.0f} MB under {result['pushesPerSecond']:.0f} pushes a "
          f"second: the standby follows {result['seconds']:.1f} s after its start")
    for each in result["kills"]:
        print(f"  {each['whom']} killed at {each['bytesBefore'] / 1e6:.0f} MB: went on with "
              f"{each['bytesResumed'] / 1e6:.0f} MB")
    print(f"  rate {rate(result['bytesPerSecond'] / 1e6)}; the same files through TLS: "
          f"{rate(result['tlsUnderLoadBytesPerSecond'] / 1e6)} under the load, "
          f"{rate(result['tlsBytesPerSecond'] / 1e6)} without")
    print(f"  ratio {result['ratioToTlsUnderLoad']:.2f} under the load, {result['ratioToTls']:.2f} to the "
          f"copy without load (to reach: {RATIO_WANTED})")
    print(f"  failed pushes: {len(result['failures'])}")
    print(f"  acknowledged pushes that a node lacks: {len(result['lost'])}")
    print(f"  members equal at the end: {'yes' if result['equal'] else 'NO'}")


def on_cluster(options, folder):
    cluster = Cluster(os.path.join(folder, "cluster"))
    cluster.create(3, options.base_port, extra=CONFIGURATION)
    try:
        cluster.up()
        return measure(cluster, options, folder)
    finally:
        cluster.down()


def main():
    parser = experiment.parser_for("bench transfer", __doc__)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--pack-mib", type=int, default=64, help="size of a push (default 64)")
    parser.add_argument("--pushes", type=int, default=200, help="small pushes a second meanwhile")
    parser.add_argument("--kill", default="receiver,source",
                        type=lambda text: [part for part in text.split(",") if part],
                        help="who is killed on the way: receiver,source (default), either, or ''")
    experiment.add_base_port(parser)
    options = parser.parse_args()
    for whom in options.kill:
        if whom not in KILLS:
            parser.error(f"--kill takes {' and '.join(KILLS)}, not {whom}")
    result = experiment.run(options, "transfer", lambda folder: on_cluster(options, folder))
    if result is None:
        return 1
    print_text(result)
    for text in (result["failures"] + result["lost"])[:20]:
        print(f"  {text}")
    return 0 if result["equal"] and not result["failures"] and not result["lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
