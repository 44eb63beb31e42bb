"""tools/dev bench push: small pushes to Packmoor and to stock git-http-backend, in one run.

Packmoor runs with three members on this machine (etcd, TLS, write quorum 2); git-http-backend runs
behind nginx and fcgiwrap with core.fsync=all and no replica. Rounds alternate between the two,
so that a change of the machine's speed hits both; medians over the rounds are compared. The
journal's durable-batch latency stands beside raw O_DIRECT|O_DSYNC overwrites of the same size,
measured in the same rounds: by one writer on an idle machine, and by one writer for each member at
the same time, since the members share this machine's disk.
"""
import json
import os
import statistics
import subprocess
import sys
import time

import experiment
from experiment import ROOT, say
from git_http_backend import GitHttpBackend

BENCH = os.path.join(ROOT, "build", "bin", "packmoor-bench")
CTL = os.path.join(ROOT, "build", "bin", "packmoorctl")
DEV = os.path.join(ROOT, "tools", "dev")


def bench(*arguments):
    return json.loads(subprocess.check_output([BENCH, *map(str, arguments)], text=True))


def push(urls, connections, pushes, run):
    options = [part for url in urls for part in ("--url", url)]
    return bench("push", *options, "--connections", connections, "--pushes", pushes, "--run", run)


def cluster(*arguments):
    subprocess.run([DEV, "cluster", *arguments], check=True, stdout=sys.stderr)


def journals(nodes):
    """The journal statistics of every node, from its status."""
    found = []
    for node in nodes:
        out = subprocess.check_output([CTL, "--socket", node["control"], "status", "--local", "--json"],
                                      text=True)
        found.append(json.loads(out)["self"]["journal_status"])
    return found


def histogram_median_us(before, after):
    """Median of a latency histogram's growth, in microseconds: the middle of its bucket."""
    def buckets(journal):
        return dict(zip(map(int, journal["latency_bounds_us"]), map(int, journal["latency_counts"])))

    old = buckets(before)
    grown = {bound: n - old.get(bound, 0) for bound, n in sorted(buckets(after).items())}
    half, seen = sum(grown.values()) / 2, 0
    for bound, n in grown.items():
        seen += n
        if n and seen >= half:
            return bound - bound / 18  # buckets are about a ninth of their bound wide
    return 0.0


def measure(options, folder):
    backend = GitHttpBackend(os.path.join(folder, "backend"))
    os.makedirs(backend.folder)
    data = os.path.join(folder, "cluster")
    results = {"packmoor": {}, "gitHttpBackend": {}, "journal": {}}
    try:
        backend.start()
        cluster("up", "--dir", data, "--nodes", "3")
        with open(os.path.join(data, "cluster.json")) as f:
            nodes = json.load(f)["nodes"]
        subprocess.run([CTL, "--socket", nodes[0]["control"], "repo", "create", "bench"],
                       check=True, stdout=sys.stderr)
        ours = [f"http://{node['http']}/bench.git" for node in nodes]
        theirs = [backend.create("bench")]
        for round_number in range(options.rounds):
            for connections in (8, 1):
                scale = 1 if connections == 8 else 0.25
                for name, urls, pushes in (("gitHttpBackend", theirs, options.backend_pushes),
                                           ("packmoor", ours, options.pushes)):
                    before = journals(nodes)
                    result = push(urls, connections, max(8, int(pushes * scale)),
                                  f"r{round_number}-c{connections}")
                    results[name].setdefault(connections, []).append(result)
                    say(f"round {round_number + 1}: {name}, {connections} connection(s): "
                        f"{result['perSecond']:.0f} pushes/s, median {result['p50Us'] / 1000:.2f} ms")
                    if name == "packmoor":
                        note_journal(results, connections, before, journals(nodes), folder)
    finally:
        if os.path.exists(os.path.join(data, "cluster.json")):
            cluster("down", "--dir", data)
        backend.stop()
    return results


def raw_writes(folder, size, writers):
    """Median latency of writers that overwrite files of their own at the same time."""
    running = []
    for n in range(writers):
        running.append(subprocess.Popen(
            [BENCH, "raw-write", "--file", os.path.join(folder, f"raw-{n}.tmp"), "--bytes",
             str(size), "--count", "500"], stdout=subprocess.PIPE, text=True))
    medians = []
    for process in running:
        out, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError("packmoor-bench raw-write failed")
        medians.append(json.loads(out)["p50Us"])
    return statistics.median(medians)


def note_journal(results, connections, before, after, folder):
    batches = sum(b["batches"] - a["batches"] for a, b in zip(before, after))
    written = sum(b["bytes"] - a["bytes"] for a, b in zip(before, after))
    size = max(4096, -(-(written // max(1, batches)) // 4096) * 4096)
    medians = [histogram_median_us(a, b) for a, b in zip(before, after)]
    results["journal"].setdefault(connections, []).append({
        "batches": batches, "meanBatchBytes": size, "medianUs": statistics.median(medians),
        "rawAloneUs": raw_writes(folder, size, 1),
        "rawTogetherUs": raw_writes(folder, size, len(before))})


def summarise(results):
    def median(name, connections, key):
        return statistics.median(r[key] for r in results[name][connections])

    summary = {
        "pushesPerSecondAt8": {n: median(n, 8, "perSecond") for n in ("packmoor", "gitHttpBackend")},
        "medianMsAt1": {n: median(n, 1, "p50Us") / 1000 for n in ("packmoor", "gitHttpBackend")},
        "journal": {},
    }
    for connections, rounds in results["journal"].items():
        of = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        of["ratioTogether"] = of["medianUs"] / of["rawTogetherUs"]
        of["ratioAlone"] = of["medianUs"] / of["rawAloneUs"]
        summary["journal"][connections] = of
    at8, at1 = summary["pushesPerSecondAt8"], summary["medianMsAt1"]
    summary["throughputRatio"] = at8["packmoor"] / at8["gitHttpBackend"]
    summary["latencyRatio"] = at1["packmoor"] / at1["gitHttpBackend"]
    return summary


def print_text(summary):
    at8, at1 = summary["pushesPerSecondAt8"], summary["medianMsAt1"]
    print("small pushes (one commit, one 1 KiB blob; info/refs and receive-pack)")
    print(f"{'':34}{'packmoor x3':>14}{'git-http-backend':>18}{'ratio':>9}")
    print(f"{'pushes/s, 8 connections':34}{at8['packmoor']:14.0f}{at8['gitHttpBackend']:18.0f}"
          f"{summary['throughputRatio']:8.1f}x")
    print(f"{'median ms, 1 connection':34}{at1['packmoor']:14.2f}{at1['gitHttpBackend']:18.2f}"
          f"{summary['latencyRatio']:8.3f}x")
    for connections, of in sorted(summary["journal"].items()):
        print(f"durable batch at {connections} connection(s), {of['meanBatchBytes']:.0f} bytes (mean): "
              f"journal median {of['medianUs']:.0f} us; raw overwrite by a writer per member "
              f"{of['rawTogetherUs']:.0f} us, ratio {of['ratioTogether']:.2f}; by one alone "
              f"{of['rawAloneUs']:.0f} us, ratio {of['ratioAlone']:.2f}")


def main():
    parser = experiment.parser_for("bench push", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--pushes", type=int, default=4000, help="to Packmoor, per round")
    parser.add_argument("--backend-pushes", type=int, default=240, help="to git-http-backend")
    options = parser.parse_args()

    def summarised(folder):
        results = measure(options, folder)
        results["summary"] = summarise(results)
        results["when"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return results
    results = experiment.run(options, "bench", summarised)
    if results is None:
        return 1
    print_text(results["summary"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
