"""tools/dev bench index: indexing the pack of a history, beside git index-pack, in one run.

Rounds alternate between Packmoor's indexer and git index-pack, without and with --strict, on one thread
and on as many as there are processors. Packmoor's always checks what --strict checks: the form of every
object and that all that they name is there. Medians of the time and the largest memory are compared; all
must write the same index.
"""
import filecmp
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import experiment
from histories import GIT_ENVIRONMENT, add_history, copy_of_history
from experiment import ROOT, say
from processes import Problem

INDEX_BENCH = os.path.join(ROOT, "build", "release", "bin", "index_bench")
OURS = "packmoor"
GIT, GIT_STRICT = "git index-pack", "git index-pack --strict"


def measured(command):
    """Time, processor time and peak memory of a command; the memory not less than this process has."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as errors:   # git tells of many old objects there
        process = subprocess.Popen(command, env=GIT_ENVIRONMENT, stdout=subprocess.PIPE,
                                   stderr=errors)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise Problem(f"{' '.join(command)}: {errors.read().decode(errors='replace')}")
    return {"seconds": time.monotonic() - begin, "cpuSeconds": usage.ru_utime + usage.ru_stime,
            "peakBytes": usage.ru_maxrss * 1024}, out


def command_of(name, threads, pack, index):
    if name == OURS:
        return [INDEX_BENCH, pack, index, "--threads", str(threads)]
    strict = ["--strict"] if name == GIT_STRICT else []
    # Neither is made to wait for the disk.
    return ["git", "-c", "core.fsync=none", "index-pack", *strict, f"--threads={threads}", "-o", index,
            pack]


def measure(options, folder):
    copy, pack = copy_of_history(options, folder)
    index = os.path.join(folder, "new.idx")
    results = {"packBytes": os.path.getsize(pack), "rounds": {}}
    for number in range(options.rounds):
        for threads in sorted({1, os.cpu_count()}):
            for name in (OURS, GIT, GIT_STRICT):
                result, out = measured(command_of(name, threads, pack, index))
                if not filecmp.cmp(index, pack[:-len(".pack")] + ".idx", shallow=False):
                    raise Problem(f"{name} made another index than git did before.")
                os.unlink(index)
                if name == OURS:
                    results["objects"] = json.loads(out)["objects"]
                results["rounds"].setdefault(str(threads), {}).setdefault(name, []).append(result)
                say(f"round {number + 1}, {threads} thread(s): {name}: {result['seconds']:.2f} s, "
                    f"processor {result['cpuSeconds']:.2f} s, {result['peakBytes'] / 1e6:.0f} MB")
    return results


def summarise(results):
    summary = {}
    for threads, by_name in results["rounds"].items():
        row = {name: {"seconds": statistics.median(r["seconds"] for r in rounds),
                      "cpuSeconds": statistics.median(r["cpuSeconds"] for r in rounds),
                      "peakBytes": max(r["peakBytes"] for r in rounds)}
               for name, rounds in by_name.items()}
        for name in (GIT, GIT_STRICT):
            row[name]["times"] = row[name]["seconds"] / row[OURS]["seconds"]
            row[name]["timesCpu"] = row[name]["cpuSeconds"] / row[OURS]["cpuSeconds"]
        summary[threads] = row
    return summary


def print_text(results):
    print(f"a pack of {results['packBytes'] / 1e6:.0f} MB, {results['objects']} objects")
    print(f"{'threads':>7}  {'':26}{'seconds':>9}{'processor':>11}{'peak MB':>9}{'time':>9}{'processor':>11}")
    for threads, row in results["summary"].items():
        for name, of in row.items():
            times = f"{of['times']:8.2f}x{of['timesCpu']:10.2f}x" if "times" in of else ""
            print(f"{threads:>7}  {name:26}{of['seconds']:9.2f}{of['cpuSeconds']:11.2f}"
                  f"{of['peakBytes'] / 1e6:9.0f}{times}")


def main():
    parser = experiment.parser_for("bench index", __doc__)
    add_history(parser)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    options = parser.parse_args()

    def summarised(folder):
        results = measure(options, folder)
        results["summary"] = summarise(results)
        return results
    results = experiment.run(options, "bench", summarised)
    if results is None:
        return 1
    print_text(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
