"""What the tests of abuse share: requests that never end, packs written entry by entry, and how much
memory a node takes meanwhile."""
import hashlib
import socket
import struct
import threading
import zlib

from harness import ZERO, PackmoorTest, git, os, pkt

TYPES = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}
ATTACKER = "127.0.0.2"  # another address than stock git's
CHUNK_BYTES = 1 << 20
RECEIVE, UPLOAD = "git-receive-pack", "git-upload-pack"
CAPABILITIES = "report-status side-band-64k agent=abuse"


def entry_header(kind, size):
    header = [kind << 4 | size & 15]
    size >>= 4
    while size:
        header[-1] |= 0x80
        header.append(size & 0x7f)
        size >>= 7
    return bytes(header)


def varint(value):
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def zeros_deflated(size):
    """A zlib stream of `size` zeros, without holding them."""
    deflater = zlib.compressobj(9)
    zeros = bytes(CHUNK_BYTES)
    parts = [deflater.compress(zeros[:min(size - at, CHUNK_BYTES)])
             for at in range(0, size, CHUNK_BYTES)]
    return b"".join(parts) + deflater.flush()


def zeros_named(kind, size):
    name = hashlib.sha1(f"{kind} {size}\0".encode())
    zeros = bytes(CHUNK_BYTES)
    for at in range(0, size, CHUNK_BYTES):
        name.update(zeros[:min(size - at, CHUNK_BYTES)])
    return name.digest()


class Pack:
    """A pack, entry by entry; entries may lie."""

    def __init__(self):
        self.body, self.count = bytearray(12), 0

    def add(self, kind, content, level=1):
        """The object's name."""
        self.add_raw(TYPES[kind], len(content), zlib.compress(content, level))
        return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).digest()

    def add_raw(self, kind, claimed, stream, extra=b""):
        """Where the entry begins."""
        at = len(self.body)
        self.body += entry_header(kind, claimed) + extra + stream
        self.count += 1
        return at

    def add_delta(self, base, delta):
        """`base`: where the base's entry begins."""
        distance = len(self.body) - base
        encoded = [distance & 0x7f]
        while distance >> 7:
            distance = (distance >> 7) - 1
            encoded.insert(0, distance & 0x7f | 0x80)
        return self.add_raw(6, len(delta), zlib.compress(delta, 1), bytes(encoded))

    def add_commit(self, tree):
        who = "t <t@example.org> 1700000000 +0000"
        text = f"tree {tree.hex()}\nauthor {who}\ncommitter {who}\n\nabuse\n"
        return self.add("commit", text.encode()).hex()

    def bytes(self, claimed=None):
        count = self.count if claimed is None else claimed
        self.body[:12] = b"PACK" + struct.pack(">II", 2, count)
        return bytes(self.body) + hashlib.sha1(self.body).digest()


def delta(base_bytes, copies, tail=b""):
    """`copies` times the base, which is shorter than 64 KiB, and `tail`."""
    copy = b"\xb0" + struct.pack("<H", base_bytes)
    return (varint(base_bytes) + varint(base_bytes * copies + len(tail)) + copy * copies
            + (bytes([len(tail)]) + tail if tail else b""))


def exchange(address, parts, source=None, seconds=240):
    """Sends `parts` for as long as the other side takes them, and reads meanwhile; what came back. Of
    something that never ends, the sending ends when an answer has come to its end."""
    family = socket.AF_UNIX if address.startswith("/") else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(seconds)
        if source:
            s.bind((source, 0))
        s.connect(address if family == socket.AF_UNIX else host_and_port(address))
        received = []

        def read():
            try:
                while part := s.recv(65536):
                    received.append(part)
            except OSError:
                pass
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for part in parts:
                s.sendall(part)
                if not reader.is_alive():
                    break
            s.shutdown(socket.SHUT_WR)
        except OSError:  # it has answered, and takes no more
            pass
        reader.join(seconds)
        return b"".join(received)


def host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def post_head(service, repository="r", headers=""):
    return (f"POST /{repository}.git/{service} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: application/x-{service}-request\r\n{headers}").encode()


def chunked(parts):
    """The chunks of a body."""
    held = bytearray()
    for part in parts:
        held += part
        if len(held) >= CHUNK_BYTES:
            yield f"{len(held):x}\r\n".encode() + held + b"\r\n"
            held = bytearray()
    yield f"{len(held):x}\r\n".encode() + held + b"\r\n0\r\n\r\n" if held else b"0\r\n\r\n"


def post(node, service, parts, headers="", source=None):
    """A POST whose body is `parts`, which may never end."""
    def request():
        yield post_head(service, headers=headers + "Transfer-Encoding: chunked\r\n\r\n")
        yield from chunked(parts)
    return exchange(node["http"], request(), source)


def over_socket(path, service, parts, protocol=0, user="mallory", repository="r"):
    """The same over the socket of packmoor-shell, without a shell."""
    number = {UPLOAD: 1, RECEIVE: 2}[service]

    def text(field, value):
        return bytes([field << 3 | 2, len(value)]) + value.encode()
    opening = (b"\x08\x01" + bytes([0x10, number]) + text(3, repository) + bytes([0x20, protocol])
               + text(5, user))

    def request():
        yield struct.pack(">I", len(opening)) + opening
        yield from parts
    return exchange(path, request())


def commands(lines, capabilities=CAPABILITIES):
    """The packets of a push before its pack; `lines` may never end."""
    for number, line in enumerate(lines):
        yield pkt(line.encode() + (b"\0" + capabilities.encode() if number == 0 else b""))
    yield b"0000"


def push_parts(tip, pack, ref="refs/heads/abuse"):
    yield from commands([f"{ZERO} {tip} {ref}"])
    for at in range(0, len(pack), CHUNK_BYTES):
        yield pack[at:at + CHUNK_BYTES]


def numbered_names(prefix, count=None):
    """Packets "<prefix> <name of an object>", each with another name; without an end unless counted."""
    number = 0
    while count is None or number < count:
        number += 1
        yield pkt(f"{prefix}{number:040x}\n".encode())


def status_number(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    raise AssertionError(f"no {name} in the status of {pid}")


class AbuseTest(PackmoorTest):
    """One node, and a bystander with stock git."""

    def serve(self, **settings):
        """`settings`: lines for tables of the configuration, by the table's name."""
        def prepare(cluster):
            path = cluster.config_of(cluster.state["nodes"][0])
            with open(path, encoding="utf-8") as f:
                text = f.read()
            for table, lines in settings.items():
                head, both = f"[{table}]\n", f"[{table}]\n{lines}\n"
                text = text.replace(head, both) if head in text else text + both
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        self.cluster = self.start(extra="\n", prepare=prepare)
        self.node = self.cluster.state["nodes"][0]
        self.ctl(self.node, "repo", "create", "r")
        self.ctl(self.node, "repo", "create", "bystander")
        self.socket = os.path.join(self.node["data"], "git.sock")
        self.bystander = self.work("bystander")
        self.commit(self.bystander, "f", "0")
        self.rounds = 0
        self.assert_others_are_served()

    def assert_others_are_served(self):
        """A push and a fetch of stock git."""
        self.rounds += 1
        head = self.commit(self.bystander, "f", f"{self.rounds}")
        url = self.url(self.node, "bystander")
        git("push", "-q", url, "main", cwd=self.bystander)
        clone = os.path.join(self.folder, "bystanders-clone")
        if not os.path.exists(clone):
            git("clone", "-q", url, clone)
        git("fetch", "-q", "origin", cwd=clone)
        self.assertEqual(git("rev-parse", "origin/main", cwd=clone).stdout.strip(), head)

    def make_tip(self, content="1"):
        """A commit that the repository has."""
        work = self.work("tip")
        tip = self.commit(work, "f", content)
        git("push", "-q", self.url(self.node), "main", cwd=work)
        return tip

    def attack(self, attacks, megabytes):
        """Runs the attacks at the same time, has others served meanwhile, and bounds by how much the node's
        memory grew at its peak. The answers, in order."""
        pid = self.node["pid"]
        with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as f:
            f.write("5")  # VmHWM begins anew
        before = status_number(pid, "VmRSS")
        answers = [None] * len(attacks)

        def run(number):
            answers[number] = attacks[number]()
        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(attacks))]
        for thread in threads:
            thread.start()
        self.assert_others_are_served()
        for thread in threads:
            thread.join(600)
            self.assertFalse(thread.is_alive(), "an attack goes on and on")
        self.assertTrue(self.cluster.lives(self.node), "the node is gone")
        grown = (status_number(pid, "VmHWM") - before) >> 20
        print(f"    {self.id().rsplit('.', 1)[-1]}: grew by {grown} MiB, of {megabytes} MiB", flush=True)
        self.assertLess(grown, megabytes, "memory that grew, in MiB")
        self.assert_others_are_served()
        return answers

    def refused(self, attacks, megabytes, *texts):
        """Every answer has its text, in order; one text is for all."""
        answers = self.attack(attacks, megabytes)
        for number, answer in enumerate(answers):
            text = texts[number if len(texts) > 1 else 0]
            self.assertIn(text.encode(), answer, answer[:300])

    def push_of(self, pack, tip="1" * 40, claimed=None):
        data = pack.bytes(claimed) if isinstance(pack, Pack) else pack
        return lambda: post(self.node, RECEIVE, push_parts(tip, data), source=ATTACKER)

    def fetch_of(self, *parts, protocol=2):
        """`parts`: of iterables of bytes, one behind the other."""
        def body():
            for part in parts:
                yield from part
        headers = f"Git-Protocol: version={protocol}\r\n"
        return lambda: post(self.node, UPLOAD, body(), headers, source=ATTACKER)


__all__ = ["ATTACKER", "CAPABILITIES", "CHUNK_BYTES", "RECEIVE", "TYPES", "UPLOAD", "AbuseTest", "Pack",
           "chunked", "commands", "delta", "exchange", "host_and_port", "numbered_names", "over_socket",
           "post", "post_head", "push_parts", "status_number", "zeros_deflated", "zeros_named"]
