"""Clients that mean harm. Each is refused with a sentence, or served within bounds; the node's memory grows
by no more than is stated here; and a bystander with stock git pushes and fetches meanwhile.

The table of limits is in rpc/README.md. What nobody can make, objects of one name, is in
tests/unit/gitlayer/collision_check_test.cc and checked_sha1_test.cc.
"""
import itertools
import socket
import zlib

from abuse import (ATTACKER, CAPABILITIES, CHUNK_BYTES, RECEIVE, TYPES, UPLOAD, AbuseTest, Pack, commands, delta,
                   exchange, host_and_port, numbered_names, over_socket, post, post_head, push_parts,
                   zeros_deflated, zeros_named)
from harness import ZERO, os, pkt, threading, unittest, wait_for

GIB = 1 << 30
FETCH = [pkt(b"command=fetch"), b"0001"]


class Packs(AbuseTest):
    def test_inflate_bombs(self):
        """A blob of a gigabyte in a megabyte is somebody's right; it takes no memory. What would is refused."""
        self.serve()
        honest, size = Pack(), GIB
        honest.add_raw(TYPES["blob"], size, zeros_deflated(size))
        tree = honest.add("tree", b"100644 zeros\0" + zeros_named("blob", size))
        tip = honest.add_commit(tree)
        self.assertLess(len(honest.body), size // 900)
        answers = self.attack([self.push_of(honest, tip)], 96)
        self.assertIn(b"ok refs/heads/abuse", answers[0])
        lies = []
        for kind, claimed, real in (("blob", 8 * GIB, 1000), ("blob", 1000, 64 << 20),
                                    ("blob", 32 << 20, 64 << 20), ("tree", 513 << 20, 1000),
                                    ("commit", 8 * GIB, 1000), ("tag", 1 << 50, 10)):
            pack = Pack()
            pack.add_raw(TYPES[kind], claimed, zeros_deflated(real))
            pack.add("blob", os.urandom(600_000))  # not a small push, and more is to come
            lies.append(self.push_of(pack))
        self.refused(lies, 96, "inflate", "inflate", "inflate", "(git.held_object_max)",
                     "(git.held_object_max)", "is larger than 17179869184 bytes")

    def test_delta_bombs(self):
        self.serve(git='held_object_max = "16 MiB"')
        huge, wide, deep = Pack(), Pack(), Pack()
        base = huge.add_raw(TYPES["blob"], 60_000, zlib.compress(bytes(60_000)))
        huge.add_delta(base, delta(60_000, 70_000))  # 4 GiB
        base = wide.add_raw(TYPES["blob"], 60_000, zlib.compress(bytes(60_000)))
        for number in range(100):
            wide.add_delta(base, delta(60_000, 250, str(number).encode()))  # 15 MB each
        content = os.urandom(1000)
        at = deep.add_raw(TYPES["blob"], len(content), zlib.compress(content))
        for number in range(10_001):
            at = deep.add_delta(at, delta(len(content) + number, 1, b"x"))
        answers = self.attack([self.push_of(pack) for pack in (huge, wide, deep)], 256)
        self.assertIn(b"is larger than 16777216 bytes (git.held_object_max)", answers[0])
        self.assertIn(b"missing necessary objects", answers[1])  # 1.5 GB of objects, but not its tip
        self.assertIn(b"the pack has a chain of more than 10000 deltas", answers[2])

    def test_many_objects_that_are_only_claimed(self):
        self.serve()
        small, large = Pack(), Pack()
        small.add("blob", b"b")
        large.add("blob", os.urandom(300_000))
        self.refused([self.push_of(small, claimed=0xffffffff), self.push_of(large, claimed=60_000_000),
                      self.push_of(large, claimed=0xffffffff)], 64,
                     "early EOF", "early EOF", "pack has too many objects")

    def test_trees_that_are_deep_or_wide(self):
        self.serve()
        deep, wide = Pack(), Pack()
        name = deep.add("blob", b"at the bottom")
        mode = b"100644"
        for _ in range(100_000):
            name, mode = deep.add("tree", mode + b" d\0" + name), b"40000"
        deep_tip = deep.add_commit(name)
        blob = wide.add("blob", b"everywhere")
        names = b"".join(b"100644 file%07d\0" % number + blob for number in range(1_000_000))
        wide_tip = wide.add_commit(wide.add("tree", names))
        answers = self.attack([self.push_of(deep, deep_tip)], 192)
        self.assertIn(b"ok refs/heads/abuse", answers[0])
        answers = self.attack([lambda: post(self.node, RECEIVE,
                                            push_parts(wide_tip, wide.bytes(), "refs/heads/wide"))], 320)
        self.assertIn(b"ok refs/heads/wide", answers[0])
        wants = [pkt(f"want {tip}\n".encode()) for tip in (deep_tip, wide_tip)]
        ends = [pkt(b"done\n"), b"0000"]
        fetches = [self.fetch_of(FETCH, wants, ends),
                   self.fetch_of(FETCH, wants, [pkt(b"filter blob:none\n")], ends),
                   self.fetch_of(FETCH, wants, [pkt(b"filter tree:50000\n")], ends)]
        for answer in self.attack(fetches, 512):
            self.assertTrue(answer.endswith(b"0000\r\n0\r\n\r\n"), answer[-100:])
            self.assertIn(b"packfile", answer[:500])


class Requests(AbuseTest):
    def test_wants_and_haves_without_end(self):
        self.serve()
        tip = self.make_tip()
        want = [pkt(f"want {tip}\n".encode())]
        want_v0 = [pkt(f"want {tip} multi_ack_detailed no-done\n".encode()), b"0000"]
        self.refused([self.fetch_of(FETCH, numbered_names("want "))], 256,
                     "more than 1000000 objects are wanted at once")
        self.refused([self.fetch_of(FETCH, want, numbered_names("have "))], 256,
                     "more than 1000000 haves in one request")
        self.refused([self.fetch_of(want_v0, numbered_names("have "), protocol=0)], 256,
                     "more than 1000000 haves in one request")
        self.refused([self.fetch_of(numbered_names("want "), protocol=1)], 256,
                     "more than 1000000 objects are wanted at once")

    def test_lines_without_end(self):
        """What is no new name is bounded by the size of the body."""
        self.serve(http='fetch_body_max = "8 MiB"')
        tip = self.make_tip()
        want = [pkt(f"want {tip}\n".encode())]
        same = itertools.repeat
        too_large = "than the 8388608 bytes that this server takes (http.fetch_body_max)"
        self.refused(
            [self.fetch_of(FETCH, same(want[0])), self.fetch_of(FETCH, want, same(pkt(b"deepen 1\n"))),
             self.fetch_of(want, same(pkt(b"deepen 1\n")), protocol=0),
             self.fetch_of([pkt(b"command=fetch")], same(pkt(b"server-option=x\n"))),
             self.fetch_of(want + [b"0000"], same(b"0000"), protocol=0)], 96, too_large)
        self.refused(
            [self.fetch_of(FETCH, numbered_names("shallow ")),
             self.fetch_of(FETCH, (pkt(b"deepen-not refs/heads/%d\n" % n) for n in itertools.count())),
             self.fetch_of(FETCH, same(pkt(b"deepen-not " + b"x" * 60_000))),
             self.fetch_of(FETCH, want, same(pkt(b"filter combine:" + b"blob:none+" * 5000)))], 96,
            too_large, "more than 1000 deepen-not lines", "is not the name of one ref",
            "too many filters are combined")

    def test_ref_prefixes_without_number(self):
        self.serve()
        self.make_tip()
        prefixes = (pkt(b"ref-prefix refs/heads/%d\n" % n) for n in range(1_000_000))
        answer = self.attack([self.fetch_of([pkt(b"command=ls-refs"), b"0001"], prefixes, [b"0000"])],
                             96)[0]
        self.assertIn(b"refs/heads/main", answer)  # too many: all are listed, as git does

    def test_pushes_of_very_many_commands(self):
        self.serve()
        tip = self.make_tip()
        lines = (f"{ZERO} {tip} refs/heads/b{n}" for n in range(1_000_000))
        self.refused([lambda: post(self.node, RECEIVE, commands(lines))], 192,
                     "a push may change at most 100000 refs here (git.commands_max")
        long_names = (f"{ZERO} {tip} refs/heads/{n}" + "x" * 60_000 for n in itertools.count())
        self.refused([lambda: post(self.node, RECEIVE, commands(long_names))], 128,
                     "longer than 256 bytes on average")
        many = [f"{ZERO} {tip} refs/heads/b{n}" for n in range(100_000)]
        empty_pack = Pack().bytes()
        answers = self.attack([lambda: post(self.node, RECEIVE,
                                            itertools.chain(commands(many), [empty_pack]))], 512)
        self.assertNotIn(b"ng refs/heads/b", answers[0])
        self.assertEqual(len(self.refs(self.node)), 100_002)

    def test_packets_that_are_none(self):
        self.serve()
        for length in (b"fff1", b"ffff", b"0003", b"zzzz", b"-001", b" 12a"):
            for service, begin in ((RECEIVE, b""), (UPLOAD, b"")):
                answer = post(self.node, service, [begin + length + b"x" * 70_000])
                self.assertIn(b"bad packet length", answer)
        self.assert_others_are_served()

    def test_a_record_that_does_not_fit_into_the_journal(self):
        self.serve(replication='segment = "4 MiB"')
        tip = self.make_tip()
        many = (f"{ZERO} {tip} refs/heads/b{n}" for n in range(60_000))
        answers = self.attack([lambda: post(self.node, RECEIVE,
                                            itertools.chain(commands(many, CAPABILITIES + " atomic"),
                                                            [Pack().bytes()]))], 256)
        self.assertIn(b"does not fit into the journal, whose segments have 4194304 (replication.segment)",
                      answers[0])
        self.assertEqual(self.refs(self.node), {"HEAD": tip, "refs/heads/main": tip})


class Http(AbuseTest):
    def test_heads_and_paths_and_chunks(self):
        self.serve()
        address = self.node["http"]
        bodies = post_head(RECEIVE, headers="Transfer-Encoding: chunked\r\n\r\n")
        for request, text in (
                (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"longer than 4096 bytes"),
                # kj-http closes the connection of a head of more than 128 KiB without a word.
                (b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", b""),
                (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", b""),
                (bodies + b"f" * 17 + b"\r\n", b"400 Bad Request"),
                (bodies + b"-1\r\n", b"400 Bad Request"),
                (bodies + b"1;" + b"x" * 1_000_000 + b"\r\n", b"400 Bad Request"),
                (post_head(RECEIVE, headers="Content-Length: 99999999999999999999\r\n\r\n"), b"")):
            answer = exchange(address, [request], ATTACKER)
            self.assertIn(text, answer, request[:60])
            self.assertNotIn(b"200 OK", answer, request[:60])
        def endless():
            yield b"GET / HTTP/1.1\r\n"
            yield from itertools.repeat(b"X: " + b"y" * 60_000 + b"\r\n")
        for answer in self.attack([lambda: exchange(address, endless(), ATTACKER)] * 4, 64):
            self.assertNotIn(b"200 OK", answer)

    def test_gzip_bombs(self):
        self.serve()
        gzipped = "Content-Encoding: gzip\r\n"
        bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
        line = pkt(b"deepen 1\n") * 70_000
        packed = bomb.compress(FETCH[0] + FETCH[1])
        packed += b"".join(bomb.compress(line) for _ in range(1000)) + bomb.flush()  # 900 MB
        self.assertLess(len(packed), 8 << 20)
        parts = [packed[at:at + CHUNK_BYTES] for at in range(0, len(packed), CHUNK_BYTES)]
        headers = gzipped + "Git-Protocol: version=2\r\n"
        self.refused([lambda: post(self.node, UPLOAD, parts, headers)], 64,
                     "than the 67108864 bytes that this server takes (http.fetch_body_max)")
        bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
        packed = bomb.compress(b"".join(commands([f"{ZERO} {'1' * 40} refs/heads/x"])))
        packed += b"".join(bomb.compress(bytes(CHUNK_BYTES)) for _ in range(1000)) + bomb.flush()
        self.refused([lambda: post(self.node, RECEIVE, [packed], gzipped)], 64, "pack signature mismatch")

    def hold(self, count, data):
        """So many connections of the attacker that have sent `data`."""
        held = []
        for _ in range(count):
            s = socket.create_connection(host_and_port(self.node["http"]), 60, (ATTACKER, 0))
            self.addCleanup(s.close)
            s.sendall(data)
            held.append(s)
        return held

    def answers_of(self, held):
        answers = []
        for s in held:
            answer = b""
            try:
                while part := s.recv(65536):
                    answer += part
            except ConnectionError:
                pass
            answers.append(answer)
        return answers

    def connections(self):
        return self.cluster.status(self.node)["front"]["connections"]

    def serve_impatiently(self, head_ms, stall_ms):
        self.serve(http=f"connections_max = 120\nconnections_per_client_max = 100\n"
                        f"header_timeout_ms = {head_ms}\nstall_timeout_ms = {stall_ms}")

    def test_connections_that_only_begin(self):
        """One address has only so many; heads have a deadline."""
        self.serve_impatiently(5000, 60_000)
        held = self.hold(100, b"GET / HTTP/1.1\r\nX: ")
        one_more = exchange(self.node["http"], [b"GET / HTTP/1.1\r\n\r\n"], ATTACKER)
        self.assertIn(b"429 Too Many Requests", one_more)
        self.assertIn(b"(http.connections_per_client_max)", one_more)
        self.assert_others_are_served()
        for answer in self.answers_of(held):
            self.assertNotIn(b"200 OK", answer)
        self.assert_others_are_served()

    def test_bodies_that_trickle(self):
        self.serve_impatiently(5000, 500)
        begun = post_head(RECEIVE, headers="Content-Length: 1000000\r\n\r\n")
        silent, slow = self.hold(49, begun), self.hold(49, begun)
        stopped = threading.Event()

        def trickle():
            while not stopped.wait(0.1):  # more often than stall_timeout_ms
                for s in slow:
                    try:
                        s.sendall(b"0")
                    except OSError:
                        pass
        thread = threading.Thread(target=trickle)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stopped.set)
        self.assert_others_are_served()
        for answer in self.answers_of(silent):
            self.assertIn(b"408 Request Timeout", answer)
            self.assertIn(b"made no progress for too long", answer)
        self.assert_others_are_served()
        for answer in self.answers_of(slow):  # "0000" is a flush, and then nothing is wanted
            self.assertNotIn(b"unpack ok", answer)

    def test_clients_that_do_not_read(self):
        self.serve_impatiently(5000, 2000)
        size = 48 << 20
        tip = self.make_tip(os.urandom(size))
        body = b"".join(FETCH) + pkt(f"want {tip}\n".encode()) + pkt(b"done\n") + b"0000"
        head = post_head(UPLOAD, headers=f"Git-Protocol: version=2\r\nContent-Length: {len(body)}\r\n\r\n")
        held = []
        self.attack([lambda: held.extend(self.hold(40, head + body))], 160)
        wait_for(lambda: self.connections() < 40, "connections whose client does not read stay open", 120)
        for answer in self.answers_of(held):
            self.assertLess(len(answer), size)


class Ssh(AbuseTest):
    """The socket that packmoor-shell connects to has the same limits."""

    def over(self, service, parts, **options):
        return lambda: over_socket(self.socket, service, parts, **options)

    def one_more(self, user):
        return over_socket(self.socket, UPLOAD, [b"0000"], user=user)

    def wait_answering(self):
        def answers():
            try:
                return b"capabilities^{}" in self.one_more("alice")
            except OSError:  # it does not listen yet
                return False
        wait_for(answers, "the git socket does not answer")

    def test_limits_of_requests(self):
        self.serve(http='fetch_body_max = "8 MiB"')
        self.wait_answering()
        tip = self.make_tip()
        too_large = "than the 8388608 bytes that this server takes (http.fetch_body_max)"
        want = [pkt(f"want {tip}\n".encode())]
        chain = itertools.chain
        self.refused(
            [self.over(UPLOAD, chain(FETCH, numbered_names("want ")), protocol=2),
             self.over(UPLOAD, chain(want, [b"0000"], numbered_names("have "))),
             self.over(UPLOAD, chain(want, itertools.repeat(pkt(b"deepen 1\n")))),
             self.over(RECEIVE, commands(f"{ZERO} {tip} refs/heads/b{n}" for n in range(1_000_000))),
             self.over(RECEIVE, [b"zzzz"])], 192,
            too_large, too_large, too_large, "a push may change at most 100000 refs here",
            "bad packet length")
        bomb = Pack()
        base = bomb.add_raw(TYPES["blob"], 60_000, zlib.compress(bytes(60_000)))
        bomb.add_delta(base, delta(60_000, 70_000))
        self.refused([self.over(RECEIVE, push_parts("1" * 40, bomb.bytes()))], 96, "(git.held_object_max)")

    def test_one_user_has_only_so_many(self):
        self.serve(ssh="connections_max = 20\nconnections_per_user_max = 10")
        self.wait_answering()
        stopped = threading.Event()

        def wait_then_end():
            stopped.wait()
            yield b"0000"
        threads = [threading.Thread(target=over_socket, args=(self.socket, UPLOAD, wait_then_end()))
                   for _ in range(10)]
        for thread in threads:
            thread.start()
            self.addCleanup(thread.join)
        self.addCleanup(stopped.set)

        wait_for(lambda: b"(ssh.connections_per_user_max)" in self.one_more("mallory"),
                 "one user may have more connections")
        self.assertIn(b"capabilities^{}", self.one_more("alice"))
        self.assert_others_are_served()
        frame = exchange(self.socket, [b"\xff\xff\xff\xff" + b"x" * 100])
        self.assertLess(len(frame), 1000)


if __name__ == "__main__":
    unittest.main()
