"""tools/dev bench report: all benchmarks against git, as docs/benchmarks.md with a plot.

Reads what the benchmarks wrote with --json into one folder; with --run it runs them first, one after the other
(an hour or so; nothing else should run meanwhile). A benchmark that is not there is left out of the report.
"""
import argparse
import html
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time

from experiment import ROOT, say

DEV = os.path.join(ROOT, "tools", "dev")
COMPARED = ("push", "push-large", "index", "fetch", "refs")
BENCHES = (*COMPARED, "maintenance")
WITH_HISTORY = ("push-large", "index", "fetch")   # that take --repo
WIDTH, LEFT, RIGHT, ROW, BAR, TOP, BOTTOM = 860, 300, 90, 30, 14, 40, 44


class Row:
    """One comparison. `ratio`: how many times better than git's; `wanted`: at least."""

    def __init__(self, work, ours, theirs, ratio, wanted=None, note=""):
        self.work, self.ours, self.theirs = work, ours, theirs
        self.ratio, self.wanted, self.note = ratio, wanted, note


def per_second(value, unit=""):
    return f"{value:,.0f}{unit}/s" if value >= 20 else f"{value:.2f}{unit}/s"


# --- what each benchmark tells -----------------------------------------------------------------

def rows_of_push(results):
    summary = results["summary"]
    at8, at1 = summary["pushesPerSecondAt8"], summary["medianMsAt1"]
    yield Row("small pushes, 8 connections", per_second(at8["packmoor"]), per_second(at8["gitHttpBackend"]),
              summary["throughputRatio"], 40)
    yield Row("latency of a small push, 1 connection", f"{at1['packmoor']:.2f} ms",
              f"{at1['gitHttpBackend']:.2f} ms", 1 / summary["latencyRatio"])


def rows_of_push_large(results):
    ours, theirs = results["medianSeconds"].values()
    yield Row(f"push of a history of {results['packBytes'] / 1e6:.0f} MB", f"{ours:.1f} s", f"{theirs:.1f} s",
              theirs / ours, 1 / 0.6)


def rows_of_index(results):
    for threads, row in results["summary"].items():
        names = list(row)
        ours, plain, strict = (row[name] for name in names[:3])
        for name, theirs in (("", plain), (" --strict", strict)):
            yield Row(f"index of a pack, {threads} thread(s), beside index-pack{name}",
                      f"{ours['seconds']:.1f} s, {ours['peakBytes'] / 1e6:.0f} MB",
                      f"{theirs['seconds']:.1f} s, {theirs['peakBytes'] / 1e6:.0f} MB",
                      theirs["seconds"] / ours["seconds"], 2,
                      f"processor time {theirs['timesCpu']:.2f} x")


def rows_of_fetch(results):
    wanted = {"clone, cold": 3, "clone, hot": 20, "fetch of one commit": 15}
    for work, of in results["works"].items():
        if work.startswith("ls-refs"):
            continue   # bench refs looks closer
        clone = work.startswith("clone")

        def speed(each, clone=clone):
            return each["bytes"] / each["seconds"] / 1e6 if clone else each["perSecond"]
        ours, theirs = (statistics.median(map(speed, of[side])) for side in ("packmoor", "git"))
        cost = [statistics.median(each["processorMs"] for each in of[side]) for side in ("packmoor", "git")]
        note = f"processor time 1/{cost[1] / cost[0]:.0f}" if 0 < cost[0] < cost[1] else ""
        unit = " MB" if clone else ""
        yield Row(work, per_second(ours, unit), per_second(theirs, unit), ours / theirs, wanted.get(work), note)


def rows_of_refs(results):
    summary = results["summary"]
    for title, point in summary["points"].items():
        for work in (f"ls-refs, {title}", f"ls-refs, one of {title}"):
            of = summary["works"][work]
            note = ""
            if "one of" in work:
                note = (f"in the server {point['oneInTheServerMs'] * 1000:.0f} us; a push takes "
                        f"{point['pushTimes']:.2f} x its time at 10 refs")
            wanted = 5 if work == "ls-refs, 1,000,000 refs" else None
            yield Row(work, f"{of['packmoorMs']:.2f} ms", f"{of['gitMs']:.1f} ms", of["ratio"], wanted, note)


def text_of_maintenance(results):
    """How what was pushed in small pieces compares with the same pushed at once."""
    lines = []
    for when, of in (("never merged", results["before"]), ("merged by Packmoor", results["after"])):
        many, whole = of["many"], of["whole"]
        lines.append(f"- {when}: {of['packs']} packs; a clone takes {many['clone_s'] / whole['clone_s']:.2f} x the "
                     f"time of one of the same history pushed at once, {many['clone_bytes'] / whole['clone_bytes']:.2f}"
                     f" x its bytes; a fetch of one commit {many['fetch_s'] / whole['fetch_s']:.2f} x.")
    return "\n".join([f"After {results['pushes']:,} small pushes to one repository, its packs", "", *lines])


def read_results(folder):
    """{benchmark: its results}, and when the newest of them was made."""
    found, when = {}, []
    for bench in BENCHES:
        path = os.path.join(folder, bench + ".json")
        if not os.path.exists(path):
            say(f"There are no results of {bench}; it is left out.")
            continue
        with open(path) as f:
            found[bench] = json.load(f)
        when.append(os.path.getmtime(path))
    return found, max(when, default=0)


# --- the machine -------------------------------------------------------------------------------

def read_first(path, key):
    with open(path) as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith(key)), "unknown")


def machine():
    memory = int(read_first("/proc/meminfo", "MemTotal").split()[0]) / 1024 / 1024
    git = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.strip()
    return (f"{os.cpu_count()} processors ({read_first('/proc/cpuinfo', 'model name')}), {memory:.0f} GiB of "
            f"memory, Linux {platform.release()}, {git}. Servers and clients share it; so do the three members "
            "of a volume, and their disk.")


# --- the page ----------------------------------------------------------------------------------

def table(rows):
    lines = ["| work | Packmoor | git | times | wanted | |", "|---|---|---|---|---|---|"]
    for row in rows:
        wanted = f"{row.wanted:.3g}" if row.wanted else ""
        lines.append(f"| {row.work} | {row.ours} | {row.theirs} | {row.ratio:.3g} | {wanted} | {row.note} |")
    return "\n".join(lines)


def page(rows, others, when):
    return f"""# Benchmarks

Written by `tools/dev bench report`; {time.strftime('%Y-%m-%d', time.gmtime(when))}.

Each line compares Packmoor with git's own server or tool on one machine, in one run, in rounds that alternate
between the two; medians. Packmoor has three members, and a push is acknowledged by two of them;
git-http-backend runs behind nginx and fcgiwrap, with `core.fsync=all`, and no copy. `tools/dev bench NAME --help`
says what each measures.

The machine: {machine()}

![How many times faster than git](benchmarks.svg)

{table(rows)}

"times": how many times faster than git, more is better; "wanted": at least.

{others}
""".rstrip() + "\n"


def plot(rows):
    """Bars on a logarithmic scale; 1 is git; a mark where the goal is."""
    values = [v for row in rows for v in (row.ratio, row.wanted or row.ratio)]
    low = math.floor(math.log10(min([0.9, *values])) * 2) / 2
    high = math.ceil(math.log10(max([10, *values])) * 2) / 2

    def x(value):
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    height = TOP + ROW * len(rows) + BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
           f'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           f'<text x="{LEFT}" y="22" font-size="14" fill="#222222">Times faster than git (logarithmic)</text>']
    for power in range(math.ceil(low), math.floor(high) + 1):
        at = x(10 ** power)
        out.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{height - BOTTOM}" stroke="#dddddd"/>')
        out.append(f'<text x="{at:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle" fill="#555555">'
                   f'{10 ** power:g}</text>')
    for number, row in enumerate(rows):
        middle = TOP + ROW * number + ROW / 2
        begin, end = sorted((x(1), x(row.ratio)))
        colour = "#b4511f" if row.ratio < (row.wanted or 1) else "#2f6f8f"
        label = row.work if len(row.work) <= 46 else row.work[:45] + "…"
        out.append(f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end" fill="#222222">'
                   f'{html.escape(label)}</text>')
        out.append(f'<rect x="{begin:.1f}" y="{middle - BAR / 2:.1f}" width="{max(1, end - begin):.1f}" '
                   f'height="{BAR}" fill="{colour}"/>')
        if row.wanted:
            at = x(row.wanted)
            out.append(f'<line x1="{at:.1f}" y1="{middle - BAR / 2 - 4:.1f}" x2="{at:.1f}" '
                       f'y2="{middle + BAR / 2 + 4:.1f}" stroke="#111111" stroke-width="2"/>')
        out.append(f'<text x="{max(end, x(1)) + 8:.1f}" y="{middle + 4:.1f}" fill="#222222">'
                   f'{row.ratio:.3g}</text>')
    out.append(f'<text x="{LEFT}" y="{height - 8}" fill="#555555">A black mark: what is wanted at least.</text>')
    return "\n".join([*out, "</svg>", ""])


def run_all(options):
    os.makedirs(options.results, exist_ok=True)
    for bench in BENCHES:
        say(f"== {bench}")
        command = [DEV, "bench", bench, "--json", os.path.join(options.results, bench + ".json")]
        if options.repo and bench in WITH_HISTORY:
            command += ["--repo", options.repo]
        if subprocess.run(command).returncode != 0:
            say(f"error: the benchmark {bench} failed; the others go on.")


def main():
    parser = argparse.ArgumentParser(prog="tools/dev bench report", description=__doc__.split("\n")[0])
    parser.add_argument("--run", action="store_true", help="run the benchmarks first")
    parser.add_argument("--results", metavar="DIR", default=os.path.join(ROOT, "build", "bench-results"),
                        help="where their results are (default %(default)s)")
    parser.add_argument("--repo", help="with --run: a real history, as a bare repository")
    parser.add_argument("--out", metavar="DIR", default=os.path.join(ROOT, "docs"),
                        help="where the report is written (default %(default)s)")
    options = parser.parse_args()
    if options.run:
        run_all(options)
    results, when = read_results(options.results)
    rows = [row for bench in COMPARED if bench in results
            for row in globals()["rows_of_" + bench.replace("-", "_")](results[bench])]
    others = text_of_maintenance(results["maintenance"]) if "maintenance" in results else ""
    if not rows:
        say(f"error: there are no results in {options.results}. Run with --run, or write them with "
            "`tools/dev bench NAME --json DIR/NAME.json`.")
        return 1
    os.makedirs(options.out, exist_ok=True)
    for name, text in (("benchmarks.md", page(rows, others, when)), ("benchmarks.svg", plot(rows))):
        with open(os.path.join(options.out, name), "w") as f:
            f.write(text)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
