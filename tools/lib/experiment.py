"""What benchmarks and the torture share: their command line, a folder that is removed again, results in
a file, and what is wrong as a sentence."""
import argparse
import json
import os
import shutil
import sys
import tempfile

from processes import Problem

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def say(text):
    print(text, file=sys.stderr, flush=True)


def parser_for(command, text):
    """Of `tools/dev COMMAND`; `text`'s first line describes it."""
    parser = argparse.ArgumentParser(prog="tools/dev " + command, description=text.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")
    parser.add_argument("--dir", help="work in DIR (default: a new folder beside the build)")
    return parser


def add_base_port(parser):
    parser.add_argument("--base-port", type=int, help="use ports from here on (default: free ones)")


def add_keep_logs(parser):
    parser.add_argument("--keep-logs", metavar="DIR", help="copy the nodes' logs to DIR at the end")


def keep_logs(options, cluster):
    if options.keep_logs:
        os.makedirs(options.keep_logs, exist_ok=True)
        for node in cluster.state["nodes"]:
            shutil.copy(cluster.log_of(node), options.keep_logs)


def run(options, name, measure):
    """The results of measure(folder). None: it failed, and why has been said."""
    parent = options.dir or os.path.join(ROOT, "build")
    os.makedirs(parent, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=name + "-", dir=parent)
    try:
        results = measure(folder)
    except Problem as problem:
        say(f"error: {problem}")
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as f:
            json.dump(results, f, indent=2)
    return results
