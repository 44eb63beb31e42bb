"""Settings of repositories: packmoorctl repo set and show in text, lines and JSON, from any node, and what
pushes by stock git make of them, beside a stock repository with the same configuration."""
import json

from harness import PackmoorTest, git, os, run, unittest, CTL


class Settings(PackmoorTest):
    def lines(self, node, name):
        """repo show -H: the values of each key."""
        found = {}
        for line in self.ctl(node, "repo", "show", name, "-H").stdout.splitlines():
            key, value = line.split("\t")
            found.setdefault(key, []).append(value)
        return found

    def shown(self, node, name):
        reply = json.loads(self.ctl(node, "--json", "repo", "show", name).stdout)
        return reply, {s["key"]: s for s in reply["settings"]}

    def test_any_node_sets_and_shows(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "team/app", "--description", "An app")
        for i, node in enumerate(nodes):
            said = self.ctl(node, "repo", "set", "team/app", f"receive.maxCommands={i + 5}",
                            "transfer.hideRefs=refs/ci/", "transfer.hiderefs=!refs/ci/public",
                            f"description=of node {i}")
            self.assertIn("Repository team/app is changed (volume main, record ", said.stdout)
            self.assertIn("transfer.hideRefs                 refs/ci, !refs/ci/public", said.stdout)
            for other in nodes:
                lines = self.lines(other, "team/app")
                self.assertEqual(lines["receive.maxCommands"], [str(i + 5)])
                self.assertEqual(lines["transfer.hideRefs"], ["refs/ci", "!refs/ci/public"])
                self.assertEqual(lines["description"], [f"of node {i}"])
                self.assertEqual(lines["receive.denyDeletes"], ["false"])
                self.assertEqual(lines["name"], ["team/app"])
        self.ctl(nodes[1], "repo", "set", "team/app", "HEAD=trunk", "--unset", "receive.maxCommands",
                 "--unset", "transfer.hideRefs")
        reply, settings = self.shown(nodes[2], "team/app")
        self.assertEqual(reply["repository"]["head"], "refs/heads/trunk")
        self.assertEqual(settings["HEAD"]["values"], ["refs/heads/trunk"])
        self.assertTrue(settings["HEAD"]["set"])
        self.assertEqual(settings["receive.maxCommands"]["values"], ["0"])
        self.assertFalse(settings["receive.maxCommands"]["set"])
        text = self.ctl(nodes[2], "repo", "show", "team/app").stdout
        self.assertIn("head         refs/heads/trunk", text)
        self.assertNotIn("receive.", text)
        changed = json.loads(self.ctl(nodes[0], "--json", "repo", "set", "team/app",
                                      "receive.denydeletes=yes").stdout)
        self.assertGreater(changed["index"], reply["index"])
        self.assertIn(["true"], [s["values"] for s in changed["settings"]
                                 if s["key"] == "receive.denyDeletes"])
        # The others apply it with the next record or heartbeat; a push is judged by it at once.
        work = self.work()
        self.commit(work, "a", "1")
        for node in nodes:
            git("push", "-q", self.url(node, "team/app"), "HEAD:trunk", "HEAD:side", cwd=work)
            refused = git("push", self.url(node, "team/app"), ":side", cwd=work, check=False)
            self.assertIn("! [remote rejected] side (deletion prohibited)", refused.stderr)
        self.verify(cluster)
        # Over a restart of everything.
        for node in nodes:
            cluster.kill_node(node)
        for node in nodes:
            cluster.start_node(node)
        for node in nodes:
            cluster.wait_serving(node)
        self.assertEqual(self.lines(nodes[2], "team/app")["receive.denyDeletes"], ["true"])

    def test_what_cannot_be_set(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        for arguments, code, says in (
                (["none", "HEAD=x"], 1, "there is no repository with the name 'none'"),
                (["r", "receive.denyDelete=1"], 1, "there is no setting 'receive.denyDelete'"),
                (["r", "receive.denyDeletes=maybe"], 1, "receive.denyDeletes must be true or false"),
                (["r", "--unset", "nothing.at.all"], 1, "there is no setting 'nothing.at.all'"),
                (["r", "HEAD=a..b"], 1, "HEAD must name a branch"),
                (["r", "receive.denyDeletes"], 2, "sets nothing"),
                (["r", "=x"], 2, "sets nothing"),
                (["r"], 2, "Nothing is to be changed"),
                (["r", "HEAD=a", "--unset", "HEAD"], 2, "set and unset")):
            self.assertRegex(self.ctl(node, "repo", "set", *arguments, code=code).stderr.lower(),
                             says.lower())
        # Only shown to who may not administer.
        status = ["--socket", node["control"].replace(".sock", "-status.sock")]
        self.assertEqual(run([CTL, *status, "repo", "set", "r", "HEAD=x"], check=False).returncode, 4)
        self.assertEqual(run([CTL, *status, "repo", "show", "r", "-H"]).returncode, 0)
        self.assertIn("receive.denyNonFastForwards", run([CTL, "repo", "set", "--help"]).stdout)


class AsStockGit(PackmoorTest):
    """Each command against Packmoor and against a stock repository that is configured alike."""

    def setUp(self):
        super().setUp()
        self.node = self.start().state["nodes"][0]
        self.source = self.work()

    def pair(self, *settings):
        """URLs of two repositories with one history."""
        self.count = getattr(self, "count", 0) + 1
        name = f"r{self.count}"
        stock = os.path.join(self.folder, f"stock{self.count}.git")
        self.ctl(self.node, "repo", "create", name)
        git("init", "-q", "--bare", "-b", "main", stock)
        git("config", "receive.advertisePushOptions", "true", cwd=stock)
        urls = [self.url(self.node, name), stock]
        for url in urls:
            git("push", "-q", url, "--all", "--follow-tags", cwd=self.source)
        for setting in settings:
            git("config", "--add", *setting.split("=", 1), cwd=stock)
        if settings:
            self.ctl(self.node, "repo", "set", name, *settings)
        return urls

    def push(self, urls, *arguments, cwd=None, code=0):
        """What git prints of each ref and passes on from the server; the same for both."""
        outcomes = []
        for url in urls:
            result = git("push", "--porcelain", url, *arguments, cwd=cwd or self.source, check=False)
            lines = [line for line in result.stdout.splitlines()
                     if line != "Done" and not line.startswith("To ")]
            told = [line.rstrip() for line in result.stderr.splitlines()
                    if line.startswith(("remote: error:", "remote: warning:"))]
            outcomes.append((result.returncode, sorted(lines), sorted(told)))
        self.assertEqual(outcomes[0], outcomes[1], "Packmoor and stock git differ")
        self.assertEqual(outcomes[0][0], code, outcomes[0])
        listed = [git("ls-remote", url, "refs/*").stdout for url in urls]
        self.assertEqual(listed[0], listed[1], "the refs differ afterwards")
        return "\n".join(outcomes[0][1] + outcomes[0][2])

    def test_policies(self):
        self.commit(self.source, "a", "1")
        git("branch", "side", cwd=self.source)
        git("tag", "v1", cwd=self.source)
        self.commit(self.source, "a", "2")
        git("branch", "grown", cwd=self.source)
        for settings, arguments, code, says in (
                (["receive.denyNonFastForwards=true"], ["+side:grown"], 1, "non-fast-forward"),
                (["receive.denyNonFastForwards=true"], ["grown:side", "+grown:refs/tags/v1"], 0, "v1"),
                (["receive.denyDeletes=true"], [":side"], 1, "deletion prohibited"),
                (["receive.denyDeletes=true"], ["--atomic", ":side", "main:new"], 1, "atomic"),
                (["receive.denyDeleteCurrent=refuse"], [":main"], 1, "deletion of the current branch"),
                (["receive.denyDeleteCurrent=warn"], [":main"], 0, "warning: deleting the current"),
                (["receive.denyDeleteCurrent=ignore"], [":main"], 0, "[deleted]"),
                (["transfer.hideRefs=refs/ci"], ["main:refs/ci/x"], 1, "deny updating a hidden ref"),
                (["receive.hideRefs=refs/heads", "receive.hideRefs=!refs/heads/open"],
                 ["main:open/x", "main:closed/x"], 1, "open/x"),
                ([], ["main:refs/odd"], 1, "funny refname"),
                ([], ["main:main/below"], 1, "failed to update ref"),
                ([], ["-o", "ci.skip", "-o", "x=y", "main:new"], 0, "[new branch]")):
            with self.subTest(settings=settings, arguments=arguments):
                self.assertIn(says, self.push(self.pair(*settings), *arguments, code=code))

    def test_hidden_refs_are_not_shown(self):
        self.commit(self.source, "a", "1")
        git("update-ref", "refs/ci/x", "HEAD", cwd=self.source)
        urls = self.pair()
        self.push(urls, "refs/ci/x")
        name = urls[0].rsplit("/", 1)[1].removesuffix(".git")
        self.ctl(self.node, "repo", "set", name, "receive.hideRefs=refs/ci")
        git("config", "receive.hideRefs", "refs/ci", cwd=urls[1])
        for url in urls:  # the client does not see it, and so would make it anew
            refused = git("push", "--porcelain", url, "HEAD:refs/ci/x", cwd=self.source, check=False)
            self.assertRegex(refused.stdout, r"\[remote rejected\] \(deny updating a hidden ref\)")
            self.assertNotIn("refs/ci", git("push", "--dry-run", "--prune", "-v", url,
                                            "refs/heads/*:refs/heads/*", cwd=self.source).stderr)

    def test_too_large_a_push(self):
        self.commit(self.source, "a", "1")
        for pushed, setting in ((200_000, "receive.maxInputSize=100k"),
                                (2_000_000, "receive.maxInputSize=1m")):
            urls = self.pair(setting)
            git("config", "receive.unpackLimit", "1", cwd=urls[1])
            self.commit(self.source, "large", os.urandom(pushed))
            self.assertIn("[remote rejected] (unpacker error)", self.push(urls, "main", code=1))
            git("reset", "-q", "--hard", "HEAD~", cwd=self.source)

    def test_pushes_from_shallow_clones(self):
        for i in range(5):
            self.commit(self.source, "a", f"{i}")
        urls = self.pair()
        shallow = os.path.join(self.folder, "shallow")
        git("clone", "-q", "--depth=2", f"file://{urls[1]}", shallow)
        self.commit(shallow, "b", "1")
        self.assertIn("main", self.push(urls, "main", "main:new", cwd=shallow))
        git("tag", "-am", "t", "v1", cwd=shallow)
        self.assertIn("v1", self.push(urls, "v1", cwd=shallow))
        git("reset", "-q", "--hard", "HEAD~2", cwd=shallow)
        self.commit(shallow, "c", "aside")
        self.assertIn("forced update", self.push(urls, "+main", cwd=shallow))
        # To where none of it is, it would be cut off.
        git("init", "-q", "-b", "main", os.path.join(self.folder, "other"))
        self.source = os.path.join(self.folder, "other")
        self.commit(self.source, "other", "root")
        others = self.pair("receive.denyDeleteCurrent=refuse")
        self.assertIn("shallow update not allowed",
                      self.push(others, "main:refs/heads/cut", cwd=shallow, code=1))
        self.assertIn("shallow update not allowed",
                      self.push(others, "main:refs/heads/cut", ":main", cwd=shallow, code=1))
        for url in (urls[0], others[0]):
            clone = os.path.join(self.folder, "clone" + url.rsplit("/", 1)[1])
            git("clone", "-q", "--mirror", url, clone)
            git("fsck", "--full", "--strict", cwd=clone)


if __name__ == "__main__":
    unittest.main()
