"""What must be refused: each with a clear message and a fitting code, with nothing lost and the node
serving on. Ports get garbage, pushes get broken packs, disks fill up, configurations have typos."""
import random
import shutil
import socket
import struct

from harness import (BIN, CTL, DAEMON, SMALL, ZERO, Cluster, PackmoorTest, git, git_object, os,
                     raw_request, receive_body, run, signal, small_pack, subprocess, tail, unittest,
                     wait_for)

PACK_TYPE = b"Content-Type: application/x-git-receive-pack-request\r\n"


def post(node, repository, service, body, headers=PACK_TYPE):
    head = (f"POST /{repository}/{service} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            .encode() + headers + b"\r\n")
    return raw_request(node["http"], head + body)


class Requests(PackmoorTest):
    def test_unknown_repositories_and_paths(self):
        node = self.start().state["nodes"][0]
        for verb in (["ls-remote"], ["clone", "-q"]):
            result = git(*verb, self.url(node, "nope"), check=False, cwd=self.folder)
            self.assertEqual(result.returncode, 128)
            self.assertIn("not found", result.stderr)
            self.assertIn("remote: ", result.stderr)
        work = self.work()
        self.commit(work, "a", "1")
        self.assertEqual(git("push", self.url(node, "nope"), "main", cwd=work,
                             check=False).returncode, 128)
        for path in ("/../../etc/passwd/info/refs?service=git-upload-pack",
                     "/%2e%2e/%2e%2e/etc/info/refs?service=git-upload-pack",
                     "/a/%2e%2e%2fb/info/refs?service=git-upload-pack",
                     "/a%00b/info/refs?service=git-upload-pack"):
            answer = raw_request(node["http"], f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertIn(b"400 Bad Request", answer, path)
        answer = raw_request(node["http"], b"GET /x.git/info/refs HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"403 Forbidden", answer)
        self.assertIn(b"smart HTTP", answer)

    def test_garbage_on_every_port(self):
        cluster = self.start(3)
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        source = random.Random(7)
        lumps = [b"", b"\0", b"\n" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
                 struct.pack(">I", 0xffffffff), struct.pack(">I", 5) + b"abcde",
                 *(bytes(source.randrange(256) for _ in range(n)) for n in (1, 100, 10_000, 300_000))]
        status = node["control"].replace(".sock", "-status.sock")
        for port in (node["http"], node["rpc"], node["control"], status):
            for lump in lumps:
                raw_request(port, lump, seconds=15)
        refusal = raw_request(node["control"], b"GET / HTTP/1.1\r\n\r\n")
        self.assertIn(b"Use packmoorctl", refusal)
        self.assertTrue(cluster.lives(node))
        work = self.work()
        self.commit(work, "a", "1")
        git("push", "-q", self.url(node), "main", cwd=work)
        self.assert_clone_equals(cluster.state["nodes"][1], work)
        self.verify(cluster)


class Packs(PackmoorTest):
    def setUp(self):
        super().setUp()
        self.cluster = self.start()
        self.node = self.cluster.state["nodes"][0]
        self.ctl(self.node, "repo", "create", "r")

    def refused(self, body, part):
        """The push is refused, with these words somewhere, and changes nothing."""
        answer = post(self.node, "r", "git-receive-pack", body)
        self.assertIn(part.encode(), answer)
        self.assertNotIn(b"ok refs/", answer)
        self.assertEqual(self.refs(self.node), {})
        self.assertEqual(self.ctl_json("repo", "show", "r")["statistics"]["hot_objects"], 0)

    def ctl_json(self, *arguments):
        return self.cluster.ctl(self.node, *arguments)

    def test_packs_that_end_early_or_are_damaged(self):
        commit, pack = small_pack("x")
        ref = "refs/heads/main"
        for cut in (1, 11, 12, 40, len(pack) - 21, len(pack) - 1):
            self.refused(receive_body(ZERO, commit, ref, pack[:cut]), "unpack ")
        wrong_sum = pack[:-1] + bytes([pack[-1] ^ 1])
        self.refused(receive_body(ZERO, commit, ref, wrong_sum), "unpack ")
        for place in (3, 7, 11, 13, 60, len(pack) // 2):
            damaged = bytearray(pack)
            damaged[place] ^= 0x55
            self.refused(receive_body(ZERO, commit, ref, bytes(damaged)), "ng refs/heads/main")

    def test_objects_that_are_missing_or_not_what_they_should_be(self):
        ref = "refs/heads/main"
        commit, pack = small_pack("x")
        self.refused(receive_body(ZERO, "1" * 40, ref, pack), "ng refs/heads/main")
        orphan, orphan_pack = small_pack("y", parent="2" * 40)  # its parent is nowhere
        self.refused(receive_body(ZERO, orphan, ref, orphan_pack), "ng refs/heads/main")
        self.refused(receive_body(ZERO, orphan, ref, orphan_pack, b"report-status side-band-64k"),
                     f"error: the pack names commit {'2' * 40}, which is neither in it nor in the "
                     "repository\n")
        blob, _ = git_object("blob", b"b")
        self.refused(receive_body(ZERO, blob.hex(), ref, pack), "ng refs/heads/main")
        for name in ("refs/heads/a..b", "refs/heads/.x", "HEAD~1", "refs/heads/x.lock", "main"):
            self.refused(receive_body(ZERO, commit, name, pack), "ng ")
        self.refused(receive_body("3" * 40, commit, ref, pack), "ng refs/heads/main")

    def test_requests_that_are_no_requests(self):
        for body in (b"", b"0000", b"zzzz", b"0004", b"0005x", b"ffff", b"00100000000000"):
            answer = post(self.node, "r", "git-receive-pack", body)
            self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer)
            self.assertNotIn(b"500 Internal", answer, body)
        for body in (b"", b"zzzz", b"0032want 1234", b"0014command=nonsense0000"):
            answer = post(self.node, "r", "git-upload-pack", body,
                          b"Content-Type: application/x-git-upload-pack-request\r\n"
                          b"Git-Protocol: version=2\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer)
            self.assertNotIn(b"500 Internal", answer, body)
        self.assertEqual(self.refs(self.node), {})

    def test_a_client_that_dies_half_way_leaves_nothing(self):
        work = self.work()
        self.commit(work, "large", os.urandom(8 << 20))
        pack = subprocess.run(["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=work,
                              input=b"main\n", capture_output=True, check=True).stdout
        head = git("rev-parse", "main", cwd=work).stdout.strip()
        body = receive_body(ZERO, head, "refs/heads/main", pack)
        request = (f"POST /r/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                   f"Content-Length: {len(body)}\r\n").encode() + PACK_TYPE + b"\r\n"
        host, port = self.node["http"].split(":")
        with socket.create_connection((host, int(port))) as s:
            s.sendall(request + body[:len(body) // 2])
            wait_for(lambda: self.extents()["quarantined"] > 0, "the pack does not arrive")
        wait_for(lambda: self.extents()["quarantined"] == 0, "the half pack stays")
        self.assertEqual(self.extents()["sealed"], 0)
        self.assertEqual(self.refs(self.node), {})
        git("push", "-q", self.url(self.node), "main", cwd=work)
        self.assert_clone_equals(self.node, work)

    def extents(self):
        return self.cluster.status(self.node)["extents"]


class FullDisk(PackmoorTest):
    """A file system of 160 MB where mounting is permitted, else a limit on the size of files."""

    def mount(self, path):
        os.makedirs(path)
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", path],
                                capture_output=True)
        if result.returncode != 0:
            self.skipTest("mounting a small file system is not permitted here")
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=True)

    def test_a_full_disk_refuses_pushes_and_keeps_the_rest(self):
        small = os.path.join(self.folder, "small")
        self.mount(small)
        cluster = Cluster(os.path.join(small, "c"), BIN)
        cluster.create(1, extra=SMALL)
        self.addCleanup(self.finish, cluster)
        cluster.up()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        work = self.work()
        self.commit(work, "a", os.urandom(1 << 20))
        git("push", "-q", self.url(node), "main", cwd=work)
        kept = self.refs(node)
        git("checkout", "-q", "-b", "big", cwd=work)
        self.commit(work, "b", os.urandom(200 << 20))
        refused = git("push", self.url(node), "big", cwd=work, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr, "(?i)no space|full|space left")
        self.assertTrue(cluster.lives(node), "a pack that does not fit must not end the node")
        self.assertEqual(self.refs(node), kept)
        git("checkout", "-q", "main", cwd=work)
        git("branch", "-qD", "big", cwd=work)
        self.commit(work, "c", "still works\n")
        git("push", "-q", self.url(node), "main", cwd=work)
        self.assert_clone_equals(node, work)


class Starting(PackmoorTest):
    """packmoord that cannot start: one clear error and its exit code."""

    def config(self, text, name="bad.toml"):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def node_toml(self, name="n1", cluster="dev", data=None, http="127.0.0.1:0", rest=""):
        data = data or os.path.join(self.folder, "data")
        return self.config(f'[node]\nid = "{name}"\ncluster = "{cluster}"\ndata = "{data}"\n'
                           f'[http]\nlisten = "{http}"\n{rest}', f"{name}-{cluster}.toml")

    def refused(self, path, code, *parts):
        result = run([DAEMON, "--config", path], check=False, timeout=60)
        self.assertEqual(result.returncode, code, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        self.assertLess(len(result.stderr.splitlines()), 8, result.stderr)
        return result

    def test_configurations_with_mistakes(self):
        path = self.config('[node]\nid = "n1"\ndata = "/x"\n[http]\nlisen = "127.0.0.1:1"\n')
        expected = f'{path}:5:1: There is no key "lisen" in [http]. Is "listen" meant?'
        self.refused(path, 2, expected)
        checked = run([DAEMON, "--check-config", path], check=False)
        self.assertEqual(checked.returncode, 2)
        self.assertIn(expected, checked.stderr)
        self.refused(self.config('[node]\nid = 7\ndata = "/x"\n'), 2, "must be text in quotes")
        self.refused("/nonexistent.toml", 2, "No such file")
        self.refused(self.config("this is not toml"), 2, "not TOML")
        good = run([DAEMON, "--check-config", self.node_toml()])
        self.assertIn("the configuration is good", good.stdout)
        self.assertEqual(run([DAEMON, "--nonsense"], check=False).returncode, 2)

    def test_busy_ports(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            busy = f"127.0.0.1:{s.getsockname()[1]}"
            self.refused(self.node_toml(http=busy), 4, busy, "http.listen", "Address already in use")
        cluster = self.start()
        node = cluster.state["nodes"][0]
        rest = f'[control]\nsocket = "{node["control"]}"\n'
        self.refused(self.node_toml(rest=rest), 4, node["control"],
                     "another process is listening on it. This node may be running already.\n")
        too_long = "/tmp/" + "x" * 200 + ".sock"
        self.refused(self.node_toml(rest=f'[control]\nsocket = "{too_long}"\n'), 4, "at most 107")
        self.assertTrue(cluster.lives(node))
        self.ctl(node, "status")

    def test_data_directories_of_others(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.refused(self.node_toml(data=node["data"]), 3, "in use by another packmoord")
        cluster.kill_node(node, signal.SIGTERM)
        self.refused(self.node_toml(name="n2", data=node["data"]), 3, "belongs to node n1")
        self.refused(self.node_toml(cluster="other", data=node["data"]), 3,
                     "belongs to cluster dev")
        foreign = os.path.join(self.folder, "foreign")
        os.makedirs(foreign)
        open(os.path.join(foreign, "thesis.txt"), "w").close()
        self.refused(self.node_toml(data=foreign), 3, "thesis.txt")
        self.assertEqual(sorted(os.listdir(foreign)), ["lock", "thesis.txt"])
        self.refused(self.node_toml(data="/proc/nowhere"), 3, "/proc/nowhere")
        shutil.rmtree(os.path.join(node["data"], "journal"))
        cluster.start_node(node)
        wait_for(lambda: not cluster.lives(node), "a node without its journal goes on")
        self.assertIn("The journal of this data directory is missing. Put it back",
                      tail(cluster.log_of(node)))

    def test_certificates_that_are_no_good(self):
        cluster = Cluster(os.path.join(self.folder, "c"), BIN)
        cluster.create(3, extra=SMALL)
        node = cluster.state["nodes"][0]
        with open(cluster.config_of(node)) as f:
            text = f.read()
        for wrong, part in (("/n1.crt", "/n2.crt"), ("/n1.key", "/n2.key"), ("/ca.crt", "/none.crt")):
            result = self.refused(self.config(text.replace(wrong, part)), 2)
            self.assertIn("n1" if "none" not in part else "none.crt", result.stderr)

    def test_etcd_that_is_not_there(self):
        cluster = Cluster(os.path.join(self.folder, "c"), BIN)
        cluster.create(3, extra=SMALL)
        self.addCleanup(self.finish, cluster)
        node = cluster.state["nodes"][0]
        cluster.start_node(node)
        status = cluster.wait_node(
            node, lambda s: any(h["code"] == "NO_COORDINATOR" for h in s["health"]),
            "does not say that etcd is away")
        self.assertEqual(status["phase"], "starting")
        refused = git("ls-remote", self.url(node), check=False)
        self.assertEqual(refused.returncode, 128)
        self.assertIn("coordinator", refused.stderr)
        self.assertIn(b"503", raw_request(node["http"], b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))
        result = run([CTL, "--socket", node["control"], "volume", "create", "main", "--members",
                      "n1,n2,n3", "--write-quorum", "2"], check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("The coordinator does not answer", tail(cluster.log_of(node)))
        cluster.up()  # with etcd
        self.ctl(node, "repo", "create", "r")


if __name__ == "__main__":
    unittest.main()
