"""tools/dev bench maintenance: what many small pushes cost those who clone and fetch, and what merging
packs makes of it.

Some clients push commit after commit, each a changed file in a tree of folders, each to a branch of its
own. Clones and fetches of one commit are timed with packs never merged, after they were merged, and beside
each on a repository that got the same history in one push; rounds alternate between the two. One node.
"""
import hashlib
import http.client
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time

import experiment
from cluster import Cluster, Problem, say, wait_for
from push_chains import ZERO, git_object, receive_body

FOLDERS, FILES, LINES = 40, 25, 50
EXTRA = """
[replication]
segment = "64 MiB"

[git]
settle_objects = {settle}
repack_packs = {packs}
repack_rate = "0"
"""
ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
               "GIT_TERMINAL_PROMPT": "0"}


def git(*arguments, cwd=None):
    return subprocess.run(["git", *arguments], cwd=cwd, env=ENVIRONMENT, check=True,
                          capture_output=True, text=True).stdout


class Tree:
    """A work tree in memory: what a change of one file makes new."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.files = [[[self.line() for _ in range(LINES)] for _ in range(FILES)]
                      for _ in range(FOLDERS)]
        self.blobs = [[None] * FILES for _ in range(FOLDERS)]
        self.trees = [None] * FOLDERS
        self.entries = []
        for folder in range(FOLDERS):
            for file in range(FILES):
                self.put_file(folder, file)
            self.put_folder(folder)

    def line(self):
        return " ".join(self.random.choice(WORDS) for _ in range(6))

    def put(self, kind, content):
        name, entry = git_object(kind, content)
        self.entries.append(entry)
        return name

    def put_file(self, folder, file):
        content = "\n".join(self.files[folder][file]).encode()
        self.blobs[folder][file] = self.put("blob", content)

    def put_folder(self, folder):
        rows = [f"100644 file{i:02d}\0".encode() + blob for i, blob in enumerate(self.blobs[folder])]
        self.trees[folder] = self.put("tree", b"".join(rows))

    def change(self):
        folder, file = self.random.randrange(FOLDERS), self.random.randrange(FILES)
        self.files[folder][file][self.random.randrange(LINES)] = self.line()
        self.put_file(folder, file)
        self.put_folder(folder)

    def commit(self, parent, number):
        """Its name and a pack of what is new since the last one."""
        rows = [f"40000 dir{i:02d}\0".encode() + tree for i, tree in enumerate(self.trees)]
        root = self.put("tree", b"".join(rows))
        who = f"t <t@example.org> {1700000000 + number} +0000"
        text = f"tree {root.hex()}\n" + (f"parent {parent}\n" if parent != ZERO else "")
        name = self.put("commit", f"{text}author {who}\ncommitter {who}\n\nchange {number}\n".encode())
        body = b"PACK" + (2).to_bytes(4, "big") + len(self.entries).to_bytes(4, "big")
        body += b"".join(self.entries)
        self.entries = []
        return name.hex(), body + hashlib.sha1(body).digest()


WORDS = [f"{random.Random(i).randrange(1 << 30):x}" for i in range(3000)]


def push(connection, repository, old, new, ref, pack):
    connection.request("POST", f"/{repository}.git/git-receive-pack",
                       receive_body(old, new, ref, pack),
                       {"Content-Type": "application/x-git-receive-pack-request"})
    body = connection.getresponse().read()
    if f"ok {ref}".encode() not in body:
        raise Problem(f"A push failed: {body[:300]!r}")


def push_branch(address, branch, count, failures):
    try:
        host, port = address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        tree, ref, head = Tree(7), f"refs/heads/{branch}", ZERO
        tree.random.seed(branch)
        for number in range(count):
            if number:
                tree.change()
            commit, pack = tree.commit(head, number)
            push(connection, "many", head, commit, ref, pack)
            head = commit
    except Exception as error:  # told by the main thread
        failures.append(f"{branch}: {error}")


def timed(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


class Readers:
    """Times clones, and fetches of one commit, of both repositories in turn."""

    def __init__(self, folder, address, rounds):
        self.folder, self.address, self.rounds = folder, address, rounds

    def url(self, repository):
        return f"http://{self.address}/{repository}.git"

    def clone(self, repository):
        path = os.path.join(self.folder, "clone")
        shutil.rmtree(path, ignore_errors=True)
        seconds = timed(lambda: git("clone", "-q", "--mirror", self.url(repository), path))
        packs = os.path.join(path, "objects", "pack")
        return seconds, sum(os.path.getsize(os.path.join(packs, name))
                            for name in os.listdir(packs) if name.endswith(".pack"))

    def fetch(self, repository, base):
        path = os.path.join(self.folder, "fetch")
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base, path)
        return timed(lambda: git("fetch", "-q", self.url(repository),
                                 "refs/heads/b0:refs/heads/b0", cwd=path))

    def base(self):
        """A repository that lacks the newest commit of a branch."""
        path = os.path.join(self.folder, "base")
        if not os.path.exists(path):
            tip = os.path.join(self.folder, "tip")
            git("clone", "-q", "--bare", "--single-branch", "-b", "b0", self.url("whole"), tip)
            git("branch", "older", "b0~1", cwd=tip)
            git("init", "-q", "--bare", path)
            git("fetch", "-q", tip, "older:refs/heads/b0", cwd=path)
        return path

    def measure(self):
        base = self.base()
        found = {name: {"clone": [], "fetch": [], "bytes": 0} for name in ("many", "whole")}
        for _ in range(self.rounds):
            for name, entry in found.items():
                seconds, entry["bytes"] = self.clone(name)
                entry["clone"].append(seconds)
                entry["fetch"] += [self.fetch(name, base) for _ in range(3)]
        return {name: {"clone_s": statistics.median(entry["clone"]),
                       "fetch_s": statistics.median(entry["fetch"]), "clone_bytes": entry["bytes"]}
                for name, entry in found.items()}


def report(title, found, packs):
    many, whole = found["many"], found["whole"]
    say(f"{title}: {packs} packs; clone {many['clone_s']:.3f} s, {many['clone_bytes'] / 1e6:.1f} MB "
        f"({many['clone_s'] / whole['clone_s']:.2f} x pushed at once, "
        f"{many['clone_bytes'] / whole['clone_bytes']:.2f} x its bytes); "
        f"fetch of one commit {many['fetch_s'] * 1000:.0f} ms "
        f"({many['fetch_s'] / whole['fetch_s']:.2f} x)")


def measure_in(folder, options):
    cluster = Cluster(os.path.join(folder, "cluster"))
    settings = {"settle": options.settle_objects, "packs": 0}
    cluster.create(1, base_port=options.base_port, extra=EXTRA.format(**settings))
    cluster.up()
    node = cluster.state["nodes"][0]
    try:
        cluster.ctl(node, "repo", "create", "many")
        cluster.ctl(node, "repo", "create", "whole")
        failures = []
        threads = [threading.Thread(target=push_branch, daemon=True, args=(
            node["http"], f"b{i}", options.pushes // options.clients, failures))
            for i in range(options.clients)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begin
        if failures:
            raise Problem(failures[0])
        say(f"{options.pushes} pushes in {seconds:.0f} s")
        source = os.path.join(folder, "source")
        git("clone", "-q", "--mirror", f"http://{node['http']}/many.git", source)
        git("repack", "-adfq", "--window=10", "--depth=50", cwd=source)
        git("push", "-q", "--mirror", f"http://{node['http']}/whole.git", cwd=source)
        readers = Readers(folder, node["http"], options.rounds)

        def packs():
            return cluster.ctl(node, "repo", "show", "many")["statistics"]["packs"]
        results = {"pushes": options.pushes, "push_seconds": seconds}
        results["before"] = {"packs": packs(), **readers.measure()}
        report("Packs never merged", results["before"], results["before"]["packs"])

        cluster.kill_node(node, 15)
        with open(cluster.config_of(node), encoding="utf-8") as f:
            text = f.read()
        with open(cluster.config_of(node), "w", encoding="utf-8") as f:
            f.write(text.replace("repack_packs = 0", "repack_packs = 8"))
        cluster.start_node(node)
        cluster.wait_serving(node)
        begin = time.monotonic()

        def merged():
            lane = cluster.status(node)["maintenance"]["repacking"]
            return lane["done"] and not lane["repository"]
        wait_for(merged, "Nothing is merged", 600)
        results["merge_seconds"] = time.monotonic() - begin
        results["after"] = {"packs": packs(), **readers.measure()}
        report(f"Merged in {results['merge_seconds']:.0f} s", results["after"],
               results["after"]["packs"])
        return results
    finally:
        cluster.down()


def main():
    parser = experiment.parser_for("bench maintenance", __doc__)
    experiment.add_base_port(parser)
    parser.add_argument("--pushes", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--settle-objects", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results = experiment.run(options, "bench-maintenance", lambda folder: measure_in(folder, options))
    return 1 if results is None else 0


if __name__ == "__main__":
    sys.exit(main())
