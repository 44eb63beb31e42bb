"""tools/dev bench push-large: pushing a whole history, to Packmoor and to stock git-http-backend.

Packmoor runs with three members on this machine (etcd, TLS, write quorum 2); git-http-backend runs behind
nginx and fcgiwrap with core.fsync=all and no replica. Both check what is pushed
(transfer.fsckObjects). A stock client pushes all branches and tags to an empty repository; rounds alternate,
and medians are compared. What is pushed comes out of a pack with bitmaps, so that the client has little to
do. After each push the server must have the same refs.
"""
import os
import statistics
import subprocess
import sys
import time

import experiment
from cluster import Cluster
from experiment import say
from git_http_backend import GitHttpBackend
from histories import GIT_ENVIRONMENT, add_history, copy_of_history, git
from processes import Problem

OURS, THEIRS = "packmoor", "git-http-backend"


def refs_of(where):
    lines = git("ls-remote", where).decode().splitlines()
    return sorted(line for line in lines if "\trefs/" in line and not line.endswith("^{}"))


def peak_bytes(node):
    """The most memory that a node has had."""
    with open(f"/proc/{node['pid']}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def push(copy, url):
    begin = time.monotonic()
    done = subprocess.run(["git", "-C", copy, "push", "-q", url, "refs/*:refs/*"], env=GIT_ENVIRONMENT,
                          stderr=subprocess.PIPE)
    seconds = time.monotonic() - begin
    if done.returncode != 0:
        raise Problem(f"The push to {url} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    if refs_of(url) != refs_of(copy):
        raise Problem(f"{url} does not have the refs that were pushed.")
    return seconds


def measure(options, folder):
    copy, pack = copy_of_history(options, folder)
    results = {"packBytes": os.path.getsize(pack), "seconds": {OURS: [], THEIRS: []}}
    git("-C", copy, "repack", "-adbq")
    backend = GitHttpBackend(os.path.join(folder, "backend"))
    os.makedirs(backend.folder)
    cluster = Cluster(os.path.join(folder, "cluster"))
    try:
        backend.start()
        cluster.create(3, options.base_port)
        cluster.up()
        nodes = cluster.state["nodes"]
        for number in range(options.rounds):
            name = f"history{number}"
            theirs = backend.create(name)
            git("-C", backend.path_of(name), "config", "transfer.fsckObjects", "true")
            cluster.ctl(nodes[0], "repo", "create", name)
            node = nodes[number % len(nodes)]
            for who, url in ((THEIRS, theirs), (OURS, f"http://{node['http']}/{name}.git")):
                seconds = push(copy, url)
                results["seconds"][who].append(seconds)
                say(f"round {number + 1}: {who}: {seconds:.2f} s")
        results["peakBytes"] = {node["id"]: peak_bytes(node) for node in nodes}
    finally:
        if cluster.state is not None:
            cluster.down()
        backend.stop()
    medians = {who: statistics.median(seconds) for who, seconds in results["seconds"].items()}
    results["medianSeconds"] = medians
    results["ratio"] = medians[OURS] / medians[THEIRS]
    return results


def main():
    parser = experiment.parser_for("bench push-large", __doc__)
    add_history(parser)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    experiment.add_base_port(parser)
    options = parser.parse_args()
    results = experiment.run(options, "bench", lambda folder: measure(options, folder))
    if results is None:
        return 1
    medians = results["medianSeconds"]
    print(f"push of {results['packBytes'] / 1e6:.0f} MB: packmoor x3 {medians[OURS]:.2f} s, "
          f"git-http-backend {medians[THEIRS]:.2f} s, ratio {results['ratio']:.2f}; peak memory "
          + ", ".join(f"{node} {size / 1e6:.0f} MB" for node, size in results["peakBytes"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
