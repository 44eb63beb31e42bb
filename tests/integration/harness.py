"""What the integration tests share: clusters of real processes in temporary folders, the real git
with a configuration of its own, and a load of small pushes that remembers what was acknowledged.

PACKMOOR_BIN names the folder with packmoord and packmoorctl. Nothing here sleeps for a fixed time
to let something happen: conditions are polled, with a deadline that fails the test.
"""
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
from cluster import Cluster, Problem, tail, wait_for  # noqa: E402
from push_chains import git_object, pkt, receive_body, small_pack  # noqa: E402

BIN = os.environ.get("PACKMOOR_BIN", os.path.join(ROOT, "build", "bin"))
CTL = os.path.join(BIN, "packmoorctl")
DAEMON = os.path.join(BIN, "packmoord")
ZERO = "0" * 40
GIT_ENVIRONMENT = {
    **os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0", "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000",
}
# Small segments: tests make many journals.
SMALL = '\n[replication]\nsegment = "4 MiB"\n'


def run(command, check=True, cwd=None, data=None, environment=None, timeout=300):
    result = subprocess.run(command, cwd=cwd, input=data, capture_output=True,
                            env=environment or GIT_ENVIRONMENT, timeout=timeout)
    result.stdout = result.stdout.decode(errors="replace")
    result.stderr = result.stderr.decode(errors="replace")
    if check and result.returncode != 0:
        raise AssertionError(f"{command} exits with {result.returncode}:\n{result.stdout}"
                             f"{result.stderr}")
    return result


def git(*arguments, cwd=None, check=True, config=()):
    options = [part for setting in config for part in ("-c", setting)]
    return run(["git", *options, *arguments], check=check, cwd=cwd)


class PackmoorTest(unittest.TestCase):
    """A test with a temporary folder; self.start() gives it a running cluster."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="packmoor-it-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.clusters = []

    def start(self, nodes=1, extra="", name="c", prepare=None, **etcd):
        """`etcd`: etcds, etcd_tls, etcd_auth, as in Cluster.create. `prepare`: called with the cluster
        before anything of it runs."""
        cluster = Cluster(os.path.join(self.folder, name), BIN)
        cluster.create(nodes, extra=extra or SMALL, **etcd)
        self.addCleanup(self.finish, cluster)
        self.clusters.append(cluster)
        if prepare:
            prepare(cluster)
        cluster.up()
        return cluster

    def finish(self, cluster):
        late = cluster.down()
        failed = not self.outcome_is_good()
        if failed or late:
            for node in cluster.state["nodes"]:
                print(f"--- log of {node['id']}:\n{tail(cluster.log_of(node), 60)}", file=sys.stderr)
        self.assertEqual(late, [], "a node did not stop when it was asked to")

    def outcome_is_good(self):
        outcome = self._outcome
        problems = getattr(outcome, "errors", None)  # before Python 3.11
        if problems is None:  # while it cleans up, outcome.success is that of the cleaning up
            result = outcome.result
            return not any(test is self for test, _ in result.errors + result.failures)
        return outcome.success and not any(error for _, error in problems)

    def url(self, node, repository="r"):
        return f"http://{node['http']}/{repository}.git"

    def ctl(self, node, *arguments, code=0):
        """Runs packmoorctl with text output and checks its exit code."""
        result = run([CTL, "--socket", node["control"], *arguments], check=False)
        self.assertEqual(result.returncode, code,
                         f"packmoorctl {' '.join(arguments)}:\n{result.stdout}{result.stderr}")
        return result

    def wait_told(self, cluster, node, code, part="", there=True):
        """A health code, with a message that has `part` (both regular expressions), is in the status as
        JSON and as text; and the log has the code, with the message that it had first. Or it is not told
        any more, and the log says that."""
        def told():
            status = cluster.status(node)
            return status is not None and there == any(
                re.fullmatch(code, h["code"]) and re.search(part, h["message"])
                for h in status["health"])
        wait_for(told, f"{code} is {'not ' if there else 'still '}told by {node['id']}: {part}", 60)
        if there:  # a person reads the same
            self.assertRegex(self.ctl(node, "status", "--local").stdout,
                             rf"on {node['id']} \({code}\): .*{part}")
        self.wait_line(cluster, node, rf"health: ({code}){': ' if there else ' is over'}")

    def wait_line(self, cluster, node, line):
        """Until a line of the node's log matches."""
        def logged():
            with open(cluster.log_of(node), encoding="utf-8", errors="replace") as f:
                return re.search(line, f.read())
        wait_for(logged, f"the log of {node['id']} has no line: {line}", 60)

    def work(self, name="work"):
        """An empty repository with a work tree."""
        path = os.path.join(self.folder, name)
        git("init", "-q", "-b", "main", path)
        return path

    def commit(self, work, name, content, message="change"):
        path = os.path.join(work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        git("add", "-A", cwd=work)
        git("commit", "-qm", message, cwd=work)
        return git("rev-parse", "HEAD", cwd=work).stdout.strip()

    def refs(self, node, repository="r"):
        lines = git("ls-remote", self.url(node, repository)).stdout.splitlines()
        return {name: oid for oid, name in (line.split("\t") for line in lines)}

    def assert_clone_equals(self, node, work, repository="r"):
        """A mirror clone from the node is sound and has just the objects of `work`."""
        clone = tempfile.mkdtemp(prefix="clone-", dir=self.folder)
        git("clone", "-q", "--mirror", self.url(node, repository), clone)
        git("fsck", "--full", "--strict", cwd=clone)
        listing = ["rev-list", "--objects", "--all"]
        names = [sorted(line.split(" ")[0] for line in git(*listing, cwd=path).stdout.splitlines())
                 for path in (work, clone)]
        self.assertEqual(names[0], names[1], f"objects differ in the clone from {node['id']}")
        shutil.rmtree(clone)

    def verify(self, cluster, node=None):
        """Every member agrees at one index."""
        answer = cluster.ctl(node or cluster.state["nodes"][0], "volume", "verify", "main")
        self.assertTrue(answer["equal"], answer)
        self.assertEqual(len(answer["members"]), len(cluster.state["nodes"]))
        return answer["members"]

    def wait_level(self, cluster, seconds=300):
        """Until every node has applied the same index; that index."""
        nodes = cluster.state["nodes"]

        def level():
            applied = set()
            for node in nodes:
                status = cluster.status(node)
                if not status or not status["volumes"]:
                    return None
                applied.add(status["volumes"][0]["applied"])
            return applied.pop() if len(applied) == 1 else None
        return wait_for(level, "The nodes do not come to one index", seconds)


# --- small pushes ------------------------------------------------------------------------------


class Pusher(threading.Thread):
    """One client with one connection that makes a new branch with each push.

    acknowledged: {ref: commit} that the server said "ok" to. After a push that fails it goes on with
    the next one, at the next node.
    """

    def __init__(self, name, nodes, pushes, repository="r"):
        super().__init__(daemon=True)
        self.label, self.nodes, self.pushes, self.repository = name, nodes, pushes, repository
        self.acknowledged, self.failures, self.problem = {}, [], None
        self.stopped = threading.Event()

    def run(self):
        connection = self.push_all()
        if connection is not None:
            connection.close()

    def push_all(self):
        connection, turn = None, sum(map(ord, self.label))
        number = 0
        while number < self.pushes and not self.stopped.is_set():
            commit, pack = small_pack(f"{self.label}-{number}")
            ref = f"refs/heads/{self.label}-{number}"
            try:
                if connection is None:
                    host, port = self.nodes[turn % len(self.nodes)]["http"].rsplit(":", 1)
                    connection = http.client.HTTPConnection(host, int(port), timeout=180)
                connection.request(
                    "POST", f"/{self.repository}.git/git-receive-pack",
                    receive_body(ZERO, commit, ref, pack),
                    {"Content-Type": "application/x-git-receive-pack-request"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200 and f"ok {ref}".encode() in body:
                    self.acknowledged[ref] = commit
                    number += 1
                    continue
                self.failures.append(f"{ref}: {answer.status} {body[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{ref}: {error!r}")
            if connection is not None:
                connection.close()
            connection = None
            turn += 1
            # The push may have been applied although its answer was lost: go on with the next.
            number += 1
            self.stopped.wait(0.05)
        return connection


def push_load(nodes, pushes, connections=8, repository="r"):
    """Starts the load; join the threads, then read what they acknowledged."""
    threads = [Pusher(f"p{i}", nodes[i % len(nodes):] + nodes[:i % len(nodes)],
                      pushes // connections, repository) for i in range(connections)]
    for thread in threads:
        thread.start()
    return threads


def raw_request(address, data, seconds=20):
    """Sends bytes to host:port or a unix socket path; what comes back until the end."""
    family = socket.AF_UNIX if address.startswith("/") else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(seconds)
        if family == socket.AF_UNIX:
            s.connect(address)
        else:
            host, port = address.rsplit(":", 1)
            s.connect((host, int(port)))
        received = b""
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while True:
                part = s.recv(65536)
                if not part:
                    break
                received += part
        except OSError:  # closed, reset, or silent for too long: what came is the answer
            pass
        return received


__all__ = ["BIN", "CTL", "DAEMON", "GIT_ENVIRONMENT", "ZERO", "SMALL", "Cluster", "PackmoorTest",
           "Problem", "Pusher", "ROOT", "git", "git_object", "os", "pkt", "push_load", "raw_request",
           "receive_body", "run", "signal", "small_pack", "subprocess", "tail", "threading", "time",
           "unittest", "wait_for"]
