"""Small pushes from one process: clients that each extend a branch of their own, one commit of one
blob of 1 KiB after another, and remember every commit that was acknowledged and when.

Used by the failover benchmark and by the integration tests. A client makes the two requests of a
stock git: info/refs, then receive-pack, over one connection that it keeps.
"""
import hashlib
import http.client
import threading
import time
import zlib

ZERO = "0" * 40
CAPABILITIES = b"report-status agent=packmoor-load"


def git_object(kind, content):
    """Name and pack entry of an object."""
    name = hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).digest()
    number = {"commit": 1, "tree": 2, "blob": 3}[kind]
    size = len(content)
    header = [(number << 4) | (size & 15)]
    size >>= 4
    while size:
        header[-1] |= 0x80
        header.append(size & 0x7f)
        size >>= 7
    return name, bytes(header) + zlib.compress(content, 1)


def small_pack(seed, parent=None):
    """A commit of one blob of 1 KiB: its name and a pack."""
    blob, blob_entry = git_object("blob", (seed * (1024 // len(seed) + 1))[:1024].encode())
    tree, tree_entry = git_object("tree", b"100644 f\0" + blob)
    text = f"tree {tree.hex()}\n" + (f"parent {parent}\n" if parent else "")
    text += f"author t <t@example.org> 1700000000 +0000\ncommitter t <t@example.org> 1700000000 +0000"
    commit, commit_entry = git_object("commit", f"{text}\n\n{seed}\n".encode())
    body = b"PACK" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big")
    body += commit_entry + tree_entry + blob_entry
    return commit.hex(), body + hashlib.sha1(body).digest()


def pkt(text):
    return f"{len(text) + 4:04x}".encode() + text


def receive_body(old, new, ref, pack, capabilities=CAPABILITIES):
    return pkt(f"{old} {new} {ref}".encode() + b"\0" + capabilities) + b"0000" + pack


class Client(threading.Thread):
    """Extends one branch until it is stopped, at the address that it was last told."""

    def __init__(self, label, address, repository, pause, interval=0):
        super().__init__(daemon=True, name=label)
        self.label, self.repository, self.pause = label, repository, pause
        self.interval = interval  # from the beginning of a push to that of the next, at least
        self.ref = f"refs/heads/{label}"
        self.address = self.wanted = address
        self.acknowledged = []   # (commit, when sent, when acknowledged), in order
        self.failures = []       # sentences
        self.failed = []         # (address, when sent, when it failed), for each of them
        self.moves = 0
        self.stopped = threading.Event()

    def run(self):
        connection, head, number = None, ZERO, 0
        while not self.stopped.is_set():
            if connection is None or self.address != self.wanted:
                if connection is not None:
                    connection.close()
                self.address = self.wanted
                self.moves += 1
                host, port = self.address.rsplit(":", 1)
                connection = http.client.HTTPConnection(host, int(port), timeout=60)
            number += 1
            commit, pack = small_pack(f"{self.label}-{number}", None if head == ZERO else head)
            sent = time.monotonic()
            try:
                self.push(connection, head, commit, pack)
                self.acknowledged.append((commit, sent, time.monotonic()))
                head = commit
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                self.failures.append(f"{self.ref} at {self.address} after "
                                     f"{time.monotonic() - sent:.3f} s: {error!r}")
                self.failed.append((self.address, sent, time.monotonic()))
                connection.close()
                connection = None
                head = self.look(head)
            pause = max(self.pause, sent + self.interval - time.monotonic())
            if pause > 0:
                self.stopped.wait(pause)
        if connection is not None:
            connection.close()

    def get(self, connection, path):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return body

    def refs(self, connection):
        return self.get(connection, f"/{self.repository}.git/info/refs?service=git-receive-pack")

    def push(self, connection, old, new, pack):
        self.refs(connection)
        connection.request("POST", f"/{self.repository}.git/git-receive-pack",
                           receive_body(old, new, self.ref, pack),
                           {"Content-Type": "application/x-git-receive-pack-request"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or f"ok {self.ref}".encode() not in body:
            raise RuntimeError(f"push: {answer.status} {body[:300]!r}")

    def look(self, head):
        """After a failed push: where the branch is."""
        while not self.stopped.is_set():
            host, port = self.wanted.rsplit(":", 1)
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                for line in self.refs(connection).split(b"\n"):
                    name = b" " + self.ref.encode()
                    at = line.find(name)
                    if at >= 40 and line[at + len(name):at + len(name) + 1] in (b"", b"\0"):
                        return line[at - 40:at].decode()
                return head
            except (OSError, http.client.HTTPException, RuntimeError):
                self.stopped.wait(0.1)
            finally:
                connection.close()
        return head


class Load:
    """Some clients. Start it, tell it which nodes to use, stop it, read what it did."""

    def __init__(self, nodes, repository, connections=8, label="p", pause=0, interval=0):
        self.clients = [Client(f"{label}{i}", nodes[i % len(nodes)]["http"], repository, pause,
                               interval) for i in range(connections)]

    def start(self):
        for client in self.clients:
            client.start()
        return self

    def use(self, nodes, seconds=60):
        """Moves every client to one of these nodes and waits until each has pushed there."""
        for i, client in enumerate(self.clients):
            if client.wanted not in [node["http"] for node in nodes]:
                client.wanted = nodes[i % len(nodes)]["http"]
        marks = [len(client.acknowledged) for client in self.clients]
        deadline = time.monotonic() + seconds
        for client, mark in zip(self.clients, marks):
            while client.address != client.wanted or len(client.acknowledged) < mark + 2:
                if time.monotonic() > deadline or not client.is_alive():
                    raise RuntimeError(f"{client.label} does not push to {client.wanted}: "
                                       f"{client.failures[-1:]}")
                time.sleep(0.002)

    def count(self):
        return sum(len(client.acknowledged) for client in self.clients)

    def failures(self):
        return [failure for client in self.clients for failure in client.failures]

    def stop(self, seconds=120):
        for client in self.clients:
            client.stopped.set()
        for client in self.clients:
            client.join(seconds)
            if client.is_alive():
                raise RuntimeError(f"{client.label} does not end")

    def times(self, since):
        """When pushes were acknowledged from `since` on, in order."""
        return sorted(when for client in self.clients
                      for _, _, when in reversed_until(client.acknowledged, since))

    def heads(self):
        """{ref: every acknowledged commit, oldest first}."""
        return {client.ref: [commit for commit, _, _ in client.acknowledged]
                for client in self.clients if client.acknowledged}


def reversed_until(acknowledged, since):
    for entry in reversed(acknowledged):
        if entry[2] < since:
            return
        yield entry


def longest_pause(times, begin, end):
    """The longest time in [begin, end] without an acknowledged push."""
    points = [begin] + [t for t in times if begin <= t <= end] + [end]
    return max(b - a for a, b in zip(points, points[1:]))


def missing_commits(repository_path, heads, run):
    """What a mirror clone lacks of what was acknowledged: sentences. `run` gives git's output."""
    lost = []
    for ref, commits in heads.items():
        have = set(run(["git", "-C", repository_path, "rev-list", ref]).split())
        lost += [f"{commit} of {ref}" for commit in commits if commit not in have]
    return lost
