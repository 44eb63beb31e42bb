"""tools/dev bench fetch: clones, fetches and lists of refs from Packmoor and from git-http-backend.

Both serve the same history on this machine: Packmoor with three members, of which one is asked;
git-http-backend behind nginx and fcgiwrap, from a repository that is repacked with bitmaps and a commit
graph. A generator sends the requests of a client of protocol 2 and throws the answers away, so that the
servers' work is measured. Rounds alternate between the two; medians over the rounds are compared, of
requests (or bytes) a second and of processor time: all that the machine used in a round, without the
generator's, so that nothing else should run meanwhile.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import experiment
from cluster import Cluster
from experiment import ROOT, say
from git_http_backend import GitHttpBackend
from histories import add_history, copy_of_history, git, refs_history
from processes import Problem

BENCH = os.path.join(ROOT, "build", "bin", "packmoor-bench")
TICKS = os.sysconf("SC_CLK_TCK")


def pkt(text):
    return f"{len(text) + 5:04x}{text}\n".encode()


def fetch_body(wants, haves=()):
    lines = [pkt("command=fetch"), pkt("agent=git/2.39.5"), pkt("object-format=sha1"), b"0001",
             pkt("thin-pack"), pkt("no-progress"), pkt("ofs-delta")]
    lines += [pkt(f"want {oid}") for oid in wants] + [pkt(f"have {oid}") for oid in haves]
    return b"".join(lines + [pkt("done"), b"0000"])


def refs_body(prefixes=()):
    lines = [pkt("command=ls-refs"), pkt("agent=git/2.39.5"), pkt("object-format=sha1"), b"0001",
             pkt("peel"), pkt("symrefs")]
    return b"".join(lines + [pkt(f"ref-prefix {p}") for p in prefixes] + [b"0000"])


def busy_seconds():
    """Of all processors together, as far as they were not idle."""
    with open("/proc/stat") as f:
        fields = list(map(int, f.readline().split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def own_seconds():
    """Of the generators that have ended."""
    times = os.times()
    return times.children_user + times.children_system


class Servers:
    """The same repositories at both."""

    def __init__(self, folder):
        self.folder = folder
        self.backend = GitHttpBackend(os.path.join(folder, "backend"))
        os.makedirs(self.backend.folder)
        self.cluster = Cluster(os.path.join(folder, "cluster"))
        self.urls = {}

    def start(self):
        self.backend.start()
        self.cluster.create(3)
        self.cluster.up()
        self.node = self.cluster.state["nodes"][0]

    def stop(self):
        if self.cluster.state is not None:
            self.cluster.down()
        self.backend.stop()

    def add(self, name, history):
        """`history`: a bare repository."""
        theirs = self.backend.create(name)
        path = self.backend.path_of(name)
        # A fetch would write every ref, durably, as a file of its own.
        git("-C", history, "pack-refs", "--all")
        shutil.copytree(os.path.join(history, "objects"), os.path.join(path, "objects"), dirs_exist_ok=True)
        if os.path.exists(os.path.join(history, "packed-refs")):
            shutil.copy(os.path.join(history, "packed-refs"), path)
        git("-C", path, "symbolic-ref", "HEAD", git("-C", history, "symbolic-ref", "HEAD").decode().strip())
        git("-C", path, "repack", "-adbq")
        git("-C", path, "commit-graph", "write", "--reachable")
        say(f"Importing {name} into Packmoor.")
        self.cluster.ctl(self.node, "repo", "import", name, history, timeout=3600)
        self.urls[name] = {"packmoor": f"http://{self.node['http']}/{name}.git", "git": theirs}


class Fetches:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.servers = Servers(folder)
        self.results = {}

    def measure(self):
        try:
            self.servers.start()
            self.real_history()
            self.many_refs(self.options.refs)
        finally:
            self.servers.stop()
        return {"works": self.results, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def ask(self, work, name, bodies, connections, requests):
        """`bodies(round, which)`: the request of a round."""
        for number in range(self.options.rounds):
            for which in ("git", "packmoor"):
                path = os.path.join(self.folder, "request")
                with open(path, "wb") as f:
                    f.write(bodies(number, which))
                before, own = busy_seconds(), own_seconds()
                out = subprocess.run([BENCH, "fetch", "--url", self.servers.urls[name][which], "--body", path,
                                      "--connections", str(connections), "--requests",
                                      str(requests[which])], stdout=subprocess.PIPE, text=True)
                if out.returncode != 0:
                    raise Problem(f"{which} did not serve {work}.")
                result = json.loads(out.stdout)
                used = busy_seconds() - before - (own_seconds() - own)
                result["processorMs"] = used * 1000 / result["count"]
                self.results.setdefault(work, {}).setdefault(which, []).append(result)
                say(f"{work}, round {number + 1}: {which} {result['perSecond']:.1f}/s, "
                    f"{result['bytes'] / result['seconds'] / 1e6:.1f} MB/s, "
                    f"{result['processorMs']:.1f} ms of processor each")

    def real_history(self):
        history, _ = copy_of_history(self.options, self.folder)
        self.servers.add("history", history)
        tips = sorted(set(git("-C", history, "for-each-ref", "--format=%(objectname)").decode().split()))
        # The longest line of first parents there is.
        line = git("-C", history, "rev-list", "--first-parent", "--max-count=2000", "HEAD").decode().split()
        once = {"git": 1, "packmoor": 1}
        # Nobody asked for just these before: a want more, which all the others reach.
        self.ask("clone, cold", "history", lambda n, which: fetch_body(tips + [line[n + 1]]), 1, once)
        self.ask("clone, hot", "history", lambda n, which: fetch_body(tips), 1,
                 {"git": 1, "packmoor": self.options.clones})
        self.ask("clone of one branch, cold", "history",
                 lambda n, which: fetch_body([line[0], line[n + 1]]), 1, once)
        self.ask("fetch of one commit", "history", lambda n, which: fetch_body([line[0]], [line[1]]), 8,
                 {"git": self.options.backend_fetches, "packmoor": self.options.fetches})
        middle = len(line) // 2
        self.ask(f"fetch of {middle} commits", "history",
                 lambda n, which: fetch_body([line[0]], [line[middle]]), 1,
                 {"git": 2, "packmoor": 10})

    def many_refs(self, count):
        history = os.path.join(self.folder, "refs.git")
        refs_history(history, count)
        self.servers.add("refs", history)
        some = {"git": 3, "packmoor": 3}
        self.ask(f"ls-refs, {count:,} refs", "refs", lambda n, which: refs_body(), 1, some)
        one = f"refs/heads/b{count // 2:07}"
        self.ask(f"ls-refs, one of {count:,} refs", "refs", lambda n, which: refs_body([one]), 1,
                 {"git": 10, "packmoor": 2000})


def print_text(works):
    print(f"{'':34}{'packmoor':>14}{'git':>14}{'ratio':>9}{'processor':>12}")
    for work, of in works.items():
        ours, theirs = of["packmoor"], of["git"]
        clones = work.startswith("clone")
        speed = (lambda r: r["bytes"] / r["seconds"]) if clones else (lambda r: r["perSecond"])
        a, b = (statistics.median(map(speed, each)) for each in (ours, theirs))
        cost = [statistics.median(r["processorMs"] for r in each) for each in (ours, theirs)]
        unit = "MB/s" if clones else "/s"
        scale = 1e6 if clones else 1
        print(f"{work:34}{a / scale:9.1f} {unit:4}{b / scale:9.1f} {unit:4}{a / b:8.1f}x"
              f"{cost[0] / cost[1] if cost[1] else 0:11.4f}x")
        if "one of" in work:
            print(f"{'  median of a request':34}{statistics.median(r['p50Us'] for r in ours):9.0f} us  "
                  f"{statistics.median(r['p50Us'] for r in theirs):9.0f} us")


def main():
    parser = experiment.parser_for("bench fetch", __doc__)
    add_history(parser)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    parser.add_argument("--clones", type=int, default=5, help="hot ones from Packmoor, per round")
    parser.add_argument("--fetches", type=int, default=4000, help="of one commit from Packmoor, per round")
    parser.add_argument("--backend-fetches", type=int, default=100, help="from git-http-backend")
    parser.add_argument("--refs", type=int, default=100_000, help="of the repository whose refs are listed")
    options = parser.parse_args()
    results = experiment.run(options, "bench", lambda folder: Fetches(options, folder).measure())
    if results is None:
        return 1
    print_text(results["works"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
