"""One node without etcd: git's whole life of a repository, the control socket, and restarts."""
import json

from harness import (CTL, PackmoorTest, git, os, raw_request, run, signal, unittest, wait_for)


class SingleNode(PackmoorTest):
    def test_push_clone_fetch_and_change(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "team/app", "--description", "An app")
        url, work = self.url(node, "team/app"), self.work()
        self.commit(work, "a.txt", "one\n")
        git("push", "-q", url, "main", cwd=work)
        clone = os.path.join(self.folder, "clone")
        git("clone", "-q", url, clone)
        self.assertEqual(git("rev-parse", "HEAD", cwd=clone).stdout,
                         git("rev-parse", "HEAD", cwd=work).stdout)
        # Further commits travel as a thin pack, and are fetched.
        self.commit(work, "a.txt", "one\ntwo\n")
        git("tag", "-a", "v1", "-m", "first", cwd=work)
        git("push", "-q", "--follow-tags", url, "main", cwd=work)
        git("pull", "-q", cwd=clone)
        self.assertEqual(git("describe", cwd=clone).stdout.strip(), "v1")
        # A branch is deleted, another rewritten by force and by lease.
        git("push", "-q", url, "main:refs/heads/gone", cwd=work)
        git("push", "-q", url, ":refs/heads/gone", cwd=work)
        git("commit", "-q", "--amend", "-m", "rewritten", cwd=work)
        refused = git("push", url, "main", cwd=work, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("non-fast-forward", refused.stderr)
        git("push", "-q", "--force", url, "main", cwd=work)
        self.assertEqual(sorted(self.refs(node, "team/app")),
                         ["HEAD", "refs/heads/main", "refs/tags/v1", "refs/tags/v1^{}"])
        git("update-ref", "refs/tags/v1", "v1^{tag}", cwd=work)
        self.assert_refs_sound(node, "team/app")

    def assert_refs_sound(self, node, repository):
        clone = os.path.join(self.folder, "sound")
        git("clone", "-q", "--mirror", self.url(node, repository), clone)
        git("fsck", "--full", cwd=clone)

    def test_every_protocol_version_and_body_encoding(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        work = self.work()
        for i in range(30):
            self.commit(work, f"d{i % 3}/f{i}", os.urandom(20_000))
        # A small post buffer makes git send the pack in chunks.
        git("push", "-q", self.url(node), "main", cwd=work, config=["http.postBuffer=65536"])
        for version in (0, 1, 2):
            clone = os.path.join(self.folder, f"v{version}")
            git("clone", "-q", self.url(node), clone, config=[f"protocol.version={version}"])
            git("fsck", "--full", cwd=clone)
            # Many haves: git compresses the request.
            for i in range(40):
                self.commit(clone, f"local{i}", f"{version} {i}")
            self.commit(work, "news", f"{version}\n")
            git("push", "-q", self.url(node), "main", cwd=work)
            git("fetch", "-q", cwd=clone, config=[f"protocol.version={version}"])
            self.assertEqual(git("rev-parse", "origin/main", cwd=clone).stdout,
                             git("rev-parse", "main", cwd=work).stdout)
        self.assert_clone_equals(node, work)

    def test_atomic_and_partly_refused_pushes(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        work = self.work()
        first = self.commit(work, "a", "1")
        git("push", "-q", self.url(node), "main", cwd=work)
        self.commit(work, "a", "2")
        git("push", "-q", self.url(node), "main", cwd=work)
        git("branch", "old", first, cwd=work)
        # One of two refs is stale: without --atomic the other goes through.
        lease = f"--force-with-lease=main:{first}"
        result = git("push", "--atomic", lease, self.url(node), "old:main", "main:new", cwd=work,
                     check=False)
        self.assertEqual(result.returncode, 1)
        self.assertNotIn("refs/heads/new", self.refs(node))

    def test_stop_and_kill_keep_everything(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        work = self.work()
        self.commit(work, "big", os.urandom(600_000))
        git("push", "-q", self.url(node), "main", cwd=work)
        for signum in (signal.SIGTERM, signal.SIGKILL):
            self.commit(work, "small", signum.name)
            git("push", "-q", self.url(node), "main", cwd=work)
            cluster.kill_node(node, signum)
            verified = run([CTL, "journal", "verify", "--data", node["data"], "--json"])
            self.assertTrue(json.loads(verified.stdout)["sound"])
            cluster.start_node(node)
            cluster.wait_serving(node)
            self.assert_clone_equals(node, work)

    def test_many_repositories_are_listed_in_pages(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        for i in range(25):
            self.ctl(node, "repo", "create", f"g{i % 5}/r{i:02}")
        listed = cluster.ctl(node, "repo", "list")["repositories"]
        self.assertEqual([r["name"] for r in listed],
                         sorted(f"g{i % 5}/r{i:02}" for i in range(25)))
        self.ctl(node, "repo", "delete", "g0/r00")
        self.assertEqual(len(cluster.ctl(node, "repo", "list")["repositories"]), 24)
        refused = git("ls-remote", self.url(node, "g0/r00"), check=False)
        self.assertEqual(refused.returncode, 128)


class Control(PackmoorTest):
    """Each verb of packmoorctl: its text, its JSON, its exit code."""

    def test_verbs(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        made = self.ctl(node, "repo", "create", "r", "--head", "trunk", "--description", "d")
        self.assertRegex(made.stdout, r"^Repository r is made \(volume main, record \d+\)\.\n$")
        shown = cluster.ctl(node, "repo", "show", "r")
        self.assertEqual(shown["repository"]["head"], "refs/heads/trunk")
        self.assertEqual(shown["statistics"]["refs"], 0)
        self.assertIsInstance(shown["index"], int)
        self.assertIn("refs/heads/trunk", self.ctl(node, "repo", "show", "r").stdout)
        self.assertIn("trunk", self.ctl(node, "repo", "list").stdout)

        again = self.ctl(node, "repo", "create", "r", code=1)
        self.assertRegex(again.stderr, r"^error: The repository r was not created\.\ncause: .+\n")
        self.assertEqual(again.stdout, "")
        self.ctl(node, "repo", "create", "../evil", code=1)
        missing = self.ctl(node, "repo", "show", "nope", code=1)
        self.assertIn("try: See `packmoorctl repo list`.", missing.stderr)
        self.ctl(node, "repo", "delete", "nope", code=1)

        status = cluster.ctl(node, "status")["self"]
        self.assertEqual(status["node"], "n1")
        self.assertEqual(status["phase"], "serving")
        self.assertIn(status["io_backend"], ("io_uring", "threads"))
        self.assertEqual(status["volumes"][0]["role"], "primary")
        self.assertGreater(status["resident_bytes"], 0)
        self.assertEqual(sum(status["journal_status"]["latency_counts"]),
                         status["journal_status"]["batches"])
        text = self.ctl(node, "status").stdout
        self.assertIn("Node n1 of cluster dev: serving", text)
        self.assertIn("Health: good", text)

        self.assertEqual([n["node"] for n in cluster.ctl(node, "node", "list")["nodes"]], ["n1"])
        self.assertIn("this node", self.ctl(node, "node", "list").stdout)
        volumes = cluster.ctl(node, "volume", "list")["volumes"]
        self.assertEqual([(v["name"], v["primary"], v["write_quorum"]) for v in volumes],
                         [("main", "n1", 1)])
        self.assertIn("1 of 1", self.ctl(node, "volume", "list").stdout)
        self.assertEqual(cluster.ctl(node, "volume", "show", "main")["phase"], "active")
        self.assertIn("this node", self.ctl(node, "volume", "show", "main").stdout)
        self.ctl(node, "volume", "show", "none", code=1)
        self.ctl(node, "volume", "create", "main", "--members", "n1", "--write-quorum", "1", code=1)
        self.ctl(node, "volume", "create", "two", "--members", "n7", "--write-quorum", "1", code=1)
        self.ctl(node, "volume", "create", "two", "--members", "n1", "--write-quorum", "2", code=1)
        self.ctl(node, "volume", "switchover", "main", "--to", "n9", code=1)
        self.assertIn("equal", self.ctl(node, "volume", "verify", "main").stdout)
        self.ctl(node, "volume", "verify", "none", code=1)

    def test_usage_and_reaching_the_daemon(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.assertEqual(run([CTL], check=False).returncode, 2)
        self.assertEqual(run([CTL, "repo"], check=False).returncode, 2)
        self.assertEqual(run([CTL, "repo", "create"], check=False).returncode, 2)
        self.assertEqual(run([CTL, "nonsense"], check=False).returncode, 2)
        self.assertEqual(run([CTL, "--help"]).returncode, 0)
        self.assertIn("packmoorctl 0.", run([CTL, "--version"]).stdout)
        by_config = run([CTL, "--config", cluster.config_of(node), "node", "list"])
        self.assertIn("n1", by_config.stdout)
        away = run([CTL, "--socket", "/nonexistent.sock", "status"], check=False)
        self.assertEqual(away.returncode, 3)
        self.assertIn("error: ", away.stderr)
        self.assertIn("try: ", away.stderr)

    def test_the_status_socket_takes_no_changes(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        status = node["control"].replace(".sock", "-status.sock")
        self.assertEqual(os.stat(status).st_mode & 0o777, 0o666)
        self.assertEqual(os.stat(node["control"]).st_mode & 0o777, 0o600)
        self.assertEqual(run([CTL, "--socket", status, "status"]).returncode, 0)
        denied = run([CTL, "--socket", status, "repo", "create", "x"], check=False)
        self.assertEqual(denied.returncode, 4)
        self.assertEqual(cluster.ctl(node, "repo", "list")["repositories"], [])

    def test_journal_commands_read_a_stopped_node(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        busy = run([CTL, "journal", "verify", "--data", node["data"]], check=False)
        self.assertEqual(busy.returncode, 1)
        self.assertIn("in use", busy.stderr)
        cluster.kill_node(node, signal.SIGTERM)
        self.assertIn("The journal is sound.",
                      run([CTL, "journal", "verify", "--data", node["data"]]).stdout)
        dump = json.loads(run([CTL, "journal", "dump", "--data", node["data"], "--json"]).stdout)
        self.assertTrue(dump["closed"])
        self.assertGreaterEqual(dump["records"], 2)
        self.assertIn("record of volume", run([CTL, "journal", "dump", "--data",
                                               node["data"]]).stdout)
        self.damage(node)
        broken = run([CTL, "journal", "verify", "--data", node["data"]], check=False)
        self.assertEqual(broken.returncode, 1)
        self.assertIn("damage: ", broken.stderr)
        cluster.start_node(node)
        wait_for(lambda: cluster.status(node) or not cluster.lives(node), "neither up nor down")

    def damage(self, node):
        """Turns a bit of the second batch, with valid batches behind it."""
        folder = os.path.join(node["data"], "journal")
        segment = sorted(name for name in os.listdir(folder) if name.startswith("segment"))[0]
        with open(os.path.join(folder, segment), "r+b") as f:
            f.seek(4096 + 40)
            byte = f.read(1)
            f.seek(4096 + 40)
            f.write(bytes([byte[0] ^ 0x10]))


class Http(PackmoorTest):
    def test_health_and_connections_that_stay(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        self.assertEqual(raw_request(node["http"], one * 3).count(b"\r\n\r\nok\n"), 3)
        answer = raw_request(node["http"], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"Packmoor", answer)

    def test_a_volume_that_does_not_open_is_told(self):
        for nodes in (1, 3):
            with self.subTest(nodes=nodes):
                self.check_volume_that_does_not_open(self.start(nodes, name=f"c{nodes}"))

    def check_volume_that_does_not_open(self, cluster):
        node = cluster.state["nodes"][-1]
        cluster.kill_node(node)
        volumes = os.path.join(node["data"], "volumes")
        volume = os.path.join(volumes, os.listdir(volumes)[0])
        os.rename(volume, volume + ".away")
        open(volume, "w").close()  # a file where the state store's folder was
        cluster.start_node(node)

        def notes(status):
            return [h["message"] for h in status["health"] if h["code"] == "STARTING"
                    and "not open here yet" in h["message"]
                    and "it is being opened" not in h["message"]]
        status = cluster.wait_node(node, notes, "does not say why its volume is not open")
        note = notes(status)[0]
        self.assertTrue(note.startswith("This node is starting. Volume main is not open here yet: "),
                        note)
        self.wait_told(cluster, node, "STARTING", "Volume main is not open here yet: ")
        health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = raw_request(node["http"], health).decode()
        self.assertIn(" 503 ", answer)
        self.assertTrue(answer.endswith("\r\n\r\n" + note + "\n"), answer)
        os.kill(node["pid"], signal.SIGSTOP)  # so that it does not try between the two
        os.remove(volume)
        os.rename(volume + ".away", volume)
        os.kill(node["pid"], signal.SIGCONT)
        cluster.wait_serving(node)
        wait_for(lambda: b" 200 OK" in raw_request(node["http"], health), "/health does not get good")
        self.wait_told(cluster, node, "STARTING", there=False)


if __name__ == "__main__":
    unittest.main()
