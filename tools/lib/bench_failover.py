"""tools/dev bench failover: how long pushes pause when the primary of a volume is lost or moved.

Three members on this machine (etcd, TLS, write quorum 2) under 8 connections of small pushes to the
nodes that survive. Each time the present primary is killed (-9), stopped (SIGSTOP), or the lead is
moved by hand; then the node is started again (SIGCONT) and waited for until it follows. The pause is the
longest time without any acknowledged push from the fault on. At the end every acknowledged push must
be on every node and `packmoorctl volume verify` must find the members equal.
"""
import os
import signal
import statistics
import sys
import threading
import time

import experiment
from cluster import Cluster, Problem, wait_for
from cluster_watch import FOLLOW_SECONDS_MAX, lost_pushes, primary_of, wait_following
from experiment import say
from push_chains import Load, longest_pause

WATCH_SECONDS = 2.0      # the load is watched so long after a fault, at least
RESUME_SECONDS_MAX = 60


class Clockwork(threading.Thread):
    """Notes how late this machine lets a thread be that sleeps for 10 ms at a time: what a pause of
    the pushes may owe to the machine alone."""

    def __init__(self):
        super().__init__(daemon=True)
        self.worst = self.worst_ever = 0.0

    def run(self):
        before = time.monotonic()
        while True:
            time.sleep(0.01)
            now = time.monotonic()
            self.worst = max(self.worst, now - before - 0.01)
            self.worst_ever = max(self.worst_ever, self.worst)
            before = now

    def take(self):
        worst, self.worst = self.worst, 0.0
        return worst


def strike(cluster, how, primary, others, turn):
    """The fault. Its time, and when its command had ended."""
    begin = time.monotonic()
    if how == "switchover":
        target = others[turn % len(others)]["id"]
        cluster.ctl(others[0], "volume", "switchover", cluster.state["volume"], "--to", target)
    else:
        os.kill(primary["pid"], signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    return begin, time.monotonic()


def restore(cluster, how, node):
    if how == "kill":
        wait_for(lambda: not cluster.lives(node), f"Node {node['id']} lives on")
        cluster.start_node(node)
    elif how == "stop":
        os.kill(node["pid"], signal.SIGCONT)
    wait_following(cluster, node)


def one_round(cluster, load, clockwork, how, turn):
    nodes = cluster.state["nodes"]
    primary = wait_for(lambda: primary_of(cluster), "No node leads", FOLLOW_SECONDS_MAX)
    others = [node for node in nodes if node is not primary]
    if how != "switchover":
        load.use(others)
    clockwork.take()
    begin, struck = strike(cluster, how, primary, others, turn)
    deadline = begin + RESUME_SECONDS_MAX
    while time.monotonic() < max(struck, begin + WATCH_SECONDS) or not load.times(struck):
        if time.monotonic() > deadline:
            raise Problem(f"No push was acknowledged for {RESUME_SECONDS_MAX} seconds after "
                          f"{primary['id']} was struck.")
        time.sleep(0.01)
    end = time.monotonic()
    pause = longest_pause(load.times(begin), begin, end)
    slowest = max((done - sent for client in load.clients
                   for _, sent, done in client.acknowledged[-400:] if done >= begin), default=0)
    late = clockwork.take()
    restore(cluster, how, primary)
    return {"primary": primary["id"], "pauseMs": pause * 1000, "slowestPushMs": slowest * 1000,
            "machineLateMs": late * 1000}


def measure(options, folder):
    cluster = Cluster(os.path.join(folder, "cluster"))
    cluster.create(3, options.base_port)
    rounds, load, clockwork = [], None, Clockwork()
    try:
        cluster.up()
        nodes = cluster.state["nodes"]
        cluster.ctl(nodes[0], "repo", "create", "bench")
        load = Load(nodes, "bench", options.connections).start()
        clockwork.start()
        for turn in range(options.times):
            rounds.append(one_round(cluster, load, clockwork, options.how, turn))
            say("{}: {} of {}: pause {pauseMs:.0f} ms, slowest push {slowestPushMs:.0f} ms, machine "
                "late by {machineLateMs:.0f} ms".format(options.how, turn + 1, options.times,
                                                        **rounds[-1]))
        load.stop()
        lost = lost_pushes(cluster, load, folder)
        verified = cluster.ctl(nodes[0], "volume", "verify", cluster.state["volume"])
    finally:
        if load is not None:
            for client in load.clients:
                client.stopped.set()
        cluster.down()
        experiment.keep_logs(options, cluster)
    return {"how": options.how, "machineLateMs": clockwork.worst_ever * 1000, "times": options.times, "rounds": rounds,
            "pushes": load.count(), "failures": load.failures(), "lost": lost,
            "equal": verified["equal"], "members": len(verified["members"])}


def share(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def print_text(results):
    pauses = [r["pauseMs"] for r in results["rounds"]]
    slowest = [r["slowestPushMs"] for r in results["rounds"]]
    print(f"failover by {results['how']}, {results['times']} times, {results['pushes']} pushes "
          f"acknowledged")
    print(f"  pause until the next acknowledged push: median {statistics.median(pauses):.0f} ms, "
          f"p99 {share(pauses, 0.99):.0f} ms, max {max(pauses):.0f} ms")
    print(f"  slowest push of each time: median {statistics.median(slowest):.0f} ms, "
          f"max {max(slowest):.0f} ms")
    print(f"  the machine let a thread wait for up to {results['machineLateMs']:.0f} ms longer than "
          f"it slept")
    print(f"  failed pushes: {len(results['failures'])}")
    print(f"  acknowledged pushes that a node lacks: {len(results['lost'])}")
    print(f"  members equal at the end: {'yes' if results['equal'] else 'NO'} "
          f"({results['members']})")


def main():
    parser = experiment.parser_for("bench failover", __doc__)
    parser.add_argument("--how", choices=("kill", "stop", "switchover"), default="kill")
    parser.add_argument("--times", type=int, default=10, help="how often (default 10)")
    parser.add_argument("--connections", type=int, default=8)
    experiment.add_base_port(parser)
    experiment.add_keep_logs(parser)
    options = parser.parse_args()
    results = experiment.run(options, "failover", lambda folder: measure(options, folder))
    if results is None:
        return 1
    print_text(results)
    for failure in (results["failures"] + results["lost"])[:20]:
        print(f"  {failure}")
    return 0 if not results["failures"] and not results["lost"] and results["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
