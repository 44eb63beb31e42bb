"""tools/dev bench refs: repositories with many refs, at Packmoor and behind git-http-backend.

Both serve the same refs on this machine: Packmoor with three members (write quorum 2); git-http-backend
behind nginx and fcgiwrap, from a repository whose refs are packed, with core.fsync=all. A generator sends raw
requests over kept connections and throws the answers away. Rounds alternate between the two; medians are
compared. Measured are

- lists of all refs: ls-refs of protocol 2 and the advertisements of protocol 0, to clients that fetch and to
  those that push. At Packmoor also the first list that a node makes after the refs came (each node once), and
  the first after a push;
- ls-refs with the prefix of one branch. What the server takes of it is the time of the request without that
  of the same request to a repository without refs; and the processor time of the node that is asked;
- a small push, without and with the advertisement, beside the same at a repository with ten refs;
- one ref looked up in the state store (refs_bench), and the rules about one update.
"""
import json
import os
import statistics
import subprocess
import sys
import time

import experiment
from bench_fetch import BENCH, TICKS, Servers, busy_seconds, own_seconds, refs_body
from experiment import ROOT, say
from histories import git, refs_history
from processes import Problem

REFS_BENCH = os.path.join(ROOT, "build", "release", "bin", "refs_bench")
FEW = 10
SIDES = ("git", "packmoor")
UPLOAD, RECEIVE = "info/refs?service=git-upload-pack", "info/refs?service=git-receive-pack"


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) * 1024


class Refs:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.servers = Servers(folder)
        self.works, self.made, self.lookups = {}, {}, {}
        self.body = os.path.join(folder, "request")

    def measure(self):
        try:
            self.servers.start()
            self.add("none", 0)
            self.add("few", FEW)
            for count in self.options.refs:
                self.lists(count)
                self.pushes(count)
                self.look_up(count)
        finally:
            self.servers.stop()
        return {"works": self.works, "made": self.made, "lookups": self.lookups,
                "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def add(self, name, count):
        history = os.path.join(self.folder, name + ".git")
        refs_history(history, count)
        begin = time.monotonic()
        self.servers.add(name, history)
        self.made[name] = {"seconds": time.monotonic() - begin, "refs": count,
                           "peakBytes": max(peak_bytes(node["pid"]) for node in self.nodes())}

    def nodes(self):
        return self.servers.cluster.state["nodes"]

    def run(self, work, side, command, url=None, **more):
        """One result of the generator, kept under `work`."""
        before, own, node = busy_seconds(), own_seconds(), processor_seconds(self.nodes()[0]["pid"])
        out = subprocess.run([BENCH, *map(str, command)], stdout=subprocess.PIPE, text=True)
        if out.returncode != 0:
            raise Problem(f"{side} did not serve {work}.")
        result = {**json.loads(out.stdout), **more}
        used = busy_seconds() - before - (own_seconds() - own)
        result["processorMs"] = used * 1000 / result["count"]
        result["nodeMs"] = (processor_seconds(self.nodes()[0]["pid"]) - node) * 1000 / result["count"]
        self.works.setdefault(work, {}).setdefault(side, []).append(result)
        say(f"{work}: {side} {result['p50Us'] / 1000:.2f} ms, {result['bytes'] / result['count'] / 1e6:.1f} MB, "
            f"{result['processorMs']:.1f} ms of processor")

    def ls_refs(self, work, side, url, requests, prefixes=()):
        with open(self.body, "wb") as f:
            f.write(refs_body(prefixes))
        self.run(work, side, ["fetch", "--url", url, "--body", self.body, "--connections", 1,
                              "--requests", requests])

    def get(self, work, side, url, target, requests):
        self.run(work, side, ["get", "--url", url, "--target", target, "--connections", 1,
                              "--requests", requests])

    def push(self, work, side, url, pushes, advertisement):
        self.branch = getattr(self, "branch", 0) + 1
        self.run(work, side, ["push", "--url", url, "--connections", 1, "--pushes", pushes,
                              "--run", f"p{self.branch}", "--advertisement", advertisement])

    def lists(self, count):
        name = f"many-{count}"
        self.add(name, count)
        urls, title = self.servers.urls[name], f"{count:,} refs"
        for node in self.nodes():
            self.ls_refs(f"ls-refs, {title}, first", "packmoor", f"http://{node['http']}/{name}.git", 1)
            self.ls_refs(f"ls-refs, {title}, first", "git", urls["git"], 1)
        one = [f"refs/heads/b{count // 2:07}"]
        none = self.servers.urls["none"]
        for _ in range(self.options.rounds):
            for side in SIDES:
                self.ls_refs(f"ls-refs, {title}", side, urls[side], 3)
                self.get(f"v0 advertisement, {title}", side, urls[side], UPLOAD, 3)
                self.get(f"advertisement to a push, {title}", side, urls[side], RECEIVE, 3)
                requests = 2000 if side == "packmoor" else 10
                self.ls_refs(f"ls-refs, one of {title}", side, urls[side], requests, one)
                self.ls_refs(f"ls-refs of no refs, beside {title}", side, none[side], requests, one)
        for _ in range(self.options.rounds):
            for side in SIDES:
                self.push(f"a push before a list, {title}", side, urls[side], 1, "no")
                self.ls_refs(f"ls-refs, {title}, after a push", side, urls[side], 1)

    def pushes(self, count):
        title = f"{count:,} refs"
        for _ in range(self.options.rounds):
            for side in SIDES:
                pushes = self.options.pushes if side == "packmoor" else 20
                for of, name in ((title, f"many-{count}"), (f"{FEW} refs, beside {title}", "few")):
                    self.push(f"push, {of}", side, self.servers.urls[name][side], pushes, "no")
                    self.push(f"push with advertisement, {of}", side, self.servers.urls[name][side],
                              5 if name != "few" else pushes, "yes")

    def look_up(self, count):
        folder = os.path.join(self.folder, f"lookup-{count}")
        os.makedirs(folder)
        out = subprocess.run([REFS_BENCH, folder, "--refs", str(count)], stdout=subprocess.PIPE, text=True)
        if out.returncode != 0:
            raise Problem("refs_bench failed.")
        self.lookups[str(count)] = json.loads(out.stdout)


def median(rounds, key):
    return statistics.median(each[key] for each in rounds)


def summarise(results, counts):
    works = results["works"]
    summary = {}
    for work, of in works.items():
        ours, theirs = of["packmoor"], of["git"]
        summary[work] = {
            "packmoorMs": median(ours, "p50Us") / 1000, "gitMs": median(theirs, "p50Us") / 1000,
            "ratio": median(theirs, "p50Us") / median(ours, "p50Us"),
            "packmoorProcessorMs": median(ours, "processorMs"), "gitProcessorMs": median(theirs, "processorMs"),
            "packmoorNodeMs": median(ours, "nodeMs")}
    points = {}
    for count in counts:
        title = f"{count:,} refs"
        at = lambda work: summary[work]["packmoorMs"]   # noqa: E731
        points[title] = {
            "oneInTheServerMs": at(f"ls-refs, one of {title}") - at(f"ls-refs of no refs, beside {title}"),
            "pushTimes": at(f"push, {title}") / at(f"push, {FEW} refs, beside {title}")}
    return {"works": summary, "points": points}


def print_text(results):
    print(f"{'median of a request':46}{'packmoor':>12}{'git':>12}{'ratio':>9}{'processor':>12}{'git':>10}")
    for work, of in results["summary"]["works"].items():
        print(f"{work:46}{of['packmoorMs']:9.2f} ms{of['gitMs']:9.1f} ms{of['ratio']:8.1f}x"
              f"{of['packmoorProcessorMs']:9.2f} ms{of['gitProcessorMs']:7.0f} ms")
    for title, of in results["summary"]["points"].items():
        print(f"{title}: one branch takes {of['oneInTheServerMs'] * 1000:.0f} us more than nothing; a push takes "
              f"{of['pushTimes']:.2f} x its time at {FEW} refs")
    for count, of in results["lookups"].items():
        print(f"{int(count):,} refs: one looked up in {of['again']['medianUs']:.1f} us (median; 99 %: "
              f"{of['again']['p99Us']:.1f}), the first time {of['first']['medianUs']:.1f} "
              f"({of['first']['p99Us']:.1f}); two updates decided in {of['decide']['medianUs']:.1f} us")
    for name, of in results["made"].items():
        print(f"{name}: {of['refs']:,} refs made at both in {of['seconds']:.1f} s, the largest node has had "
              f"{of['peakBytes'] / 1e6:.0f} MB")


def main():
    parser = experiment.parser_for("bench refs", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    parser.add_argument("--refs", default="100000,1000000", help="of the repositories (default %(default)s)")
    parser.add_argument("--pushes", type=int, default=300, help="to Packmoor, per round")
    options = parser.parse_args()
    options.refs = [int(count) for count in options.refs.split(",")]

    def summarised(folder):
        results = Refs(options, folder).measure()
        results["summary"] = summarise(results, options.refs)
        return results
    results = experiment.run(options, "bench", summarised)
    if results is None:
        return 1
    print_text(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
