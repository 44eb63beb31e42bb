"""Repositories get other names, are deleted and brought back: packmoorctl in text and JSON, from any node, and
what git finds at each of the names."""
import json

from harness import CTL, PackmoorTest, Pusher, git, os, run, unittest, wait_for

# Deleted repositories end at once, and so do their files.
NOTHING_KEPT = '''
[git]
deleted_keep_ms = 0
[replication]
segment = "4 MiB"
extent_expiry_ms = 500
checkpoint_interval_ms = 500
'''


class Names(PackmoorTest):
    def names(self, node, *options):
        reply = json.loads(self.ctl(node, "--json", "repo", "list", *options).stdout)
        return [repository["name"] for repository in reply["repositories"]]

    def head(self, node, name):
        found = git("ls-remote", self.url(node, name), "refs/heads/main", check=False)
        return found.stdout.split("\t")[0] if found.returncode == 0 else None

    def test_rename_delete_and_undelete(self):
        cluster = self.start(3)
        n1, n2, n3 = cluster.state["nodes"]
        work = self.work()
        commit = self.commit(work, "a", "1")
        self.ctl(n1, "repo", "create", "a")
        git("push", "-q", self.url(n1, "a"), "main", cwd=work)

        renamed = self.ctl(n2, "repo", "rename", "a", "team/b")
        self.assertRegex(renamed.stdout,
                         r"^Repository team/b was a before \(volume main, record \d+\)\.\n$")
        for node in (n1, n2, n3):
            self.assertEqual(self.head(node, "team/b"), commit)
            self.assertIsNone(self.head(node, "a"))
            refused = git("push", self.url(node, "a"), "main:other", cwd=work, check=False)
            self.assertEqual(refused.returncode, 128)
            self.assertIn("it is called 'team/b' now", refused.stderr)
        self.ctl(n3, "repo", "create", "a")
        self.assertIn("'a' exists", self.ctl(n1, "repo", "rename", "team/b", "a", code=1).stderr)
        self.assertIn("no repository", self.ctl(n1, "repo", "rename", "none", "c", code=1).stderr)
        self.ctl(n1, "repo", "rename", "team/b", "../c", code=1)
        answer = json.loads(self.ctl(n1, "--json", "repo", "rename", "a", "c").stdout)
        self.assertEqual(answer["repository"]["name"], "c")

        deleted = self.ctl(n3, "repo", "delete", "team/b")
        self.assertIn("packmoorctl repo undelete team/b", deleted.stdout)
        for node in (n1, n2, n3):
            self.assertIsNone(self.head(node, "team/b"))
        refused = git("push", self.url(n1, "team/b"), "main:other", cwd=work, check=False)
        self.assertIn("packmoorctl repo undelete team/b", refused.stderr)
        self.assertIn("packmoorctl repo undelete team/b",
                      self.ctl(n2, "repo", "show", "team/b", code=1).stderr)
        self.assertEqual(self.names(n1), ["c"])
        self.assertEqual(self.names(n1, "--deleted"), ["team/b"])
        self.assertRegex(self.ctl(n2, "repo", "list", "--deleted").stdout, r"team/b +main ")
        self.assertIn("no deleted repository",
                      self.ctl(n2, "repo", "undelete", "none", code=1).stderr)
        self.assertIn("'c' exists",
                      self.ctl(n2, "repo", "undelete", "team/b", "--as", "c", code=1).stderr)
        self.assertRegex(self.ctl(n2, "repo", "undelete", "team/b", "--as", "back").stdout,
                         "^Repository back is there again ")
        for node in (n1, n2, n3):
            self.assertEqual(self.head(node, "back"), commit)
        self.assertEqual(self.names(n3, "--deleted"), [])
        self.verify(cluster)

        self.ctl(n1, "repo", "delete", "back")
        again = json.loads(self.ctl(n1, "--json", "repo", "undelete", "back").stdout)
        self.assertEqual(again["repository"]["deleted_at_ms"], 0)
        self.ctl(n1, "repo", "delete", "back")
        gone = self.ctl(n1, "repo", "delete", "back", "--now")
        self.assertNotIn("undelete", gone.stdout)
        self.ctl(n1, "repo", "undelete", "back", code=1)
        self.assertEqual(self.ctl(n1, "repo", "list", "--deleted").stdout,
                         "No deleted repository is kept.\n")
        self.verify(cluster)

    def test_exit_codes(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        for arguments in (["rename"], ["rename", "r"], ["undelete"], ["delete"]):
            self.ctl(node, "repo", *arguments, code=2)
        status = node["control"].replace(".sock", "-status.sock")
        for arguments in (["rename", "r", "s"], ["undelete", "r"], ["delete", "r"]):
            denied = run([CTL, "--socket", status, "repo", *arguments], check=False)
            self.assertEqual(denied.returncode, 4, denied.stderr)
        for verb in ("rename", "undelete", "delete"):
            self.assertIn("NAME", self.ctl(node, "repo", verb, "--help").stdout)

    def test_renamed_while_it_is_pushed_to(self):
        """Whatever was acknowledged under the old name is there under the new one; what comes later is told."""
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "a")
        pushers = [Pusher(f"p{i}", [nodes[i]], 1_000_000, "a") for i in range(3)]
        for pusher in pushers:
            pusher.start()
        wait_for(lambda: all(len(p.acknowledged) > 20 for p in pushers), "the load does not get on")
        self.ctl(nodes[1], "repo", "rename", "a", "team/b")
        wait_for(lambda: all(p.failures for p in pushers), "pushes to the old name go on")
        before = [len(p.acknowledged) for p in pushers]
        wait_for(lambda: all(len(p.failures) > 5 for p in pushers), "pushers do not go on")
        expected = {}
        for pusher, count in zip(pushers, before):
            pusher.stopped.set()
            pusher.join()
            self.assertEqual(len(pusher.acknowledged), count, "the old name is of no use any more")
            for failure in pusher.failures:
                self.assertIn("it is called 'team/b' now", failure)
            expected.update(pusher.acknowledged)
        for node in nodes:
            refs = self.refs(node, "team/b")
            self.assertEqual({ref: refs.get(ref) for ref in expected}, expected)
        self.ctl(nodes[2], "repo", "create", "a")
        self.assertEqual(self.refs(nodes[0], "a"), {}, "the name is another's now")
        self.verify(cluster)

    def test_undeleted_behind_restarts_and_another_primary(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.commit(work, "small", "1")
        git("push", "-q", self.url(nodes[0]), "main", cwd=work)
        git("checkout", "-q", "-b", "big", cwd=work)
        self.commit(work, "big", os.urandom(1 << 20))
        git("push", "-q", self.url(nodes[0]), "big", cwd=work)
        refs = self.refs(nodes[0])
        self.ctl(nodes[0], "repo", "delete", "r")
        # The name is free at once, and who has it is left alone.
        self.ctl(nodes[1], "repo", "create", "r")
        self.commit(work, "other", "2")
        git("push", "-q", self.url(nodes[1]), "HEAD:refs/heads/other", cwd=work)
        git("reset", "-q", "--hard", "HEAD~1", cwd=work)
        for node in nodes:
            cluster.kill_node(node)
        cluster.up()
        refused = self.ctl(nodes[2], "repo", "undelete", "r", code=1)
        self.assertIn("exists by now, and is left alone", refused.stderr)
        self.assertIn("--as NAME", refused.stderr)

        def leads(node):
            volumes = (cluster.status(node) or {}).get("volumes") or [{}]
            return volumes[0].get("role") == "primary"
        primary = wait_for(lambda: next((n for n in nodes if leads(n)), None), "nobody leads")
        cluster.kill_node(primary)
        others = [node for node in nodes if node is not primary]
        wait_for(lambda: any(leads(n) for n in others), "nobody leads", 60)
        self.ctl(others[0], "repo", "undelete", "r", "--as", "old/r")
        cluster.start_node(primary)
        cluster.wait_serving(primary)
        self.assertIn("refs/heads/other", self.refs(primary, "r"))
        for node in nodes:
            self.assertEqual(self.refs(node, "old/r"), refs)
            self.assert_clone_equals(node, work, "old/r")
        self.commit(work, "small", "2")
        git("push", "-q", self.url(primary, "old/r"), "big", cwd=work)
        self.verify(cluster)

    def test_what_was_kept_for_long_enough_is_gone_from_the_disk(self):
        cluster = self.start(3, extra=NOTHING_KEPT)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.commit(work, "big", os.urandom(1 << 20))
        git("push", "-q", self.url(nodes[0]), "main", cwd=work)
        self.assertEqual([cluster.status(node)["extents"]["sealed"] for node in nodes], [2, 2, 2])
        self.ctl(nodes[1], "repo", "delete", "r")
        wait_for(lambda: self.names(nodes[2], "--deleted") == [], "it is still kept", 60)
        self.assertIn("no deleted repository", self.ctl(nodes[2], "repo", "undelete", "r", code=1).stderr)
        gone = git("ls-remote", self.url(nodes[1]), check=False)
        self.assertIn("there is no repository 'r'", gone.stderr)
        # The journal's records hold on to its files; behind a checkpoint a restart needs them no more.
        index = self.wait_level(cluster)
        for node in nodes:
            cluster.wait_node(node, lambda s: s["volumes"][0]["checkpoint"] >= index,
                              "no checkpoint is made")
        for node in nodes:
            cluster.kill_node(node)
        cluster.up()
        wait_for(lambda: all(cluster.status(node)["extents"]["sealed"] == 0 for node in nodes),
                 "the files of what was deleted stay")
        self.verify(cluster)


if __name__ == "__main__":
    unittest.main()
