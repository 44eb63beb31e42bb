"""tools/dev bench repos: what many idle repositories cost, on three nodes on this machine.

Makes repositories of one small commit each, then reads each node's resident memory and times
`packmoorctl status`: as the cluster is after the load, and after a restart of all nodes.
"""
import concurrent.futures
import http.client
import os
import subprocess
import sys
import threading
import time

import experiment
from cluster import Cluster, Problem, say, wait_for

MEMORY_BYTES_MAX = 300_000_000
STATUS_SECONDS_MAX = 1.0
STATUS_ROUNDS = 11
CLIENTS = 8
STEP = 1000
ZERO = "0" * 40


def push_body(folder):
    """The request that pushes a commit of one file as a new branch."""
    def git(*arguments, data=None):
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(["git", "-C", folder, "-c", "user.name=bench", "-c",
                               "user.email=bench@localhost", *arguments], input=data, check=True,
                              capture_output=True, env=environment).stdout
    git("init", "-q", "-b", "main")
    with open(os.path.join(folder, "file"), "w") as f:
        f.write("one of many\n" * 80)
    git("add", "file")
    git("commit", "-qm", "One of many")
    commit = git("rev-parse", "HEAD").decode().strip()
    pack = git("pack-objects", "--revs", "--stdout", "-q", data=b"main\n")
    line = f"{ZERO} {commit} refs/heads/main\0report-status agent=bench"
    return f"{len(line) + 4:04x}{line}0000".encode() + pack


class Filler:
    """Makes repositories and pushes to them, each client at a node of its own."""

    def __init__(self, cluster, body):
        self.cluster, self.body = cluster, body
        self.local = threading.local()

    def post(self, node, name):
        if getattr(self.local, "address", None) != node["http"]:
            host, port = node["http"].rsplit(":", 1)
            self.local.address = node["http"]
            self.local.connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self.local.connection.request(
            "POST", f"/{name}/git-receive-pack", self.body,
            {"Content-Type": "application/x-git-receive-pack-request"})
        answer = self.local.connection.getresponse()
        text = answer.read()
        if answer.status != 200 or b"ok refs/heads/main" not in text:
            raise Problem(f"A push to {name} was answered {answer.status}: {text[:300]!r}")

    def fill(self, number):
        nodes = self.cluster.state["nodes"]
        name = f"group{number % 100:02}/repository{number:05}"
        self.cluster.ctl(nodes[0], "repo", "create", name)
        self.post(nodes[number % len(nodes)], name)


def measure(cluster):
    nodes = cluster.state["nodes"]
    command = [cluster.program("packmoorctl"), "--socket", nodes[0]["control"], "status"]
    seconds = []
    for _ in range(STATUS_ROUNDS):
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - started)
    statuses = [cluster.status(node) for node in nodes]
    return {"repositories": [status["repositories"] for status in statuses],
            "residentBytes": {status["node"]: status["resident_bytes"] for status in statuses},
            "statusSeconds": sorted(seconds)}


def level(cluster):
    """Whether all nodes have applied the same."""
    volumes = [(cluster.status(node) or {}).get("volumes") for node in cluster.state["nodes"]]
    return all(volumes) and len({v[0]["applied"] for v in volumes}) == 1


def bench(options, folder):
    cluster = Cluster(os.path.join(folder, "cluster"))
    source = os.path.join(folder, "source")
    os.makedirs(source)
    results = {"count": options.count, "nodes": options.nodes}
    try:
        cluster.create(options.nodes, options.base_port)
        cluster.up()
        filler = Filler(cluster, push_body(source))
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            for begin in range(0, options.count, STEP):
                end = min(begin + STEP, options.count)
                for _ in pool.map(filler.fill, range(begin, end)):
                    pass
                print(f"{end} of {options.count} repositories", file=sys.stderr, flush=True)
        results["fillSeconds"] = time.monotonic() - started
        wait_for(lambda: level(cluster), "The nodes do not come to one index")
        results["afterLoad"] = measure(cluster)
        cluster.down()
        started = time.monotonic()
        cluster.up()
        results["restartSeconds"] = time.monotonic() - started
        results["afterRestart"] = measure(cluster)
    finally:
        if cluster.state is not None:
            cluster.down()
    return results


def print_text(results):
    """Prints the figures; whether all are within their bounds."""
    say(f"{results['count']} repositories of one commit each on {results['nodes']} nodes, made in "
        f"{results['fillSeconds']:.0f} s; all nodes serve {results['restartSeconds']:.1f} s after a "
        f"restart")
    good = True
    for key, title in (("afterLoad", "after the load"), ("afterRestart", "after a restart")):
        part = results[key]
        memory, seconds = part["residentBytes"], part["statusSeconds"]
        good = good and (max(memory.values()) < MEMORY_BYTES_MAX and
                         seconds[-1] < STATUS_SECONDS_MAX and
                         set(part["repositories"]) == {results["count"]})
        nodes = ", ".join(f"{node} {size / 1e6:.0f} MB" for node, size in memory.items())
        say(f"{title}: resident {nodes}; packmoorctl status: median "
            f"{seconds[len(seconds) // 2] * 1000:.0f} ms, longest {seconds[-1] * 1000:.0f} ms")
    say(f"{'Within' if good else 'NOT within'} the bounds of {MEMORY_BYTES_MAX / 1e6:.0f} MB for each "
        f"node and {STATUS_SECONDS_MAX:.0f} s for a status.")
    return good


def main():
    parser = experiment.parser_for("bench repos", __doc__)
    parser.add_argument("--count", type=int, default=10_000, help="repositories (default 10000)")
    parser.add_argument("--nodes", type=int, default=3, help="how many (default 3)")
    experiment.add_base_port(parser)
    options = parser.parse_args()
    results = experiment.run(options, "bench", lambda folder: bench(options, folder))
    return 0 if results is not None and print_text(results) else 1


if __name__ == "__main__":
    sys.exit(main())
