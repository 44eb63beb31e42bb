"""Forks share their parent's packs: whatever becomes of one of the two, a fresh clone of the other is whole, on
every member, behind restarts and another primary."""
import json

from harness import CTL, PackmoorTest, git, os, push_load, run, unittest, wait_for

EXTRA = '''
[replication]
segment = "4 MiB"
extent_expiry_ms = 500
checkpoint_interval_ms = 500
'''


class Fork(PackmoorTest):
    def fill(self, cluster):
        """"parent" with a large pack and small pushes; its work tree."""
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "parent")
        work = self.work()
        self.commit(work, "a", "first\n")
        git("push", "-q", self.url(node, "parent"), "main", cwd=work)
        git("checkout", "-q", "-b", "big", cwd=work)
        self.commit(work, "big", os.urandom(2 << 20))
        git("push", "-q", self.url(node, "parent"), "big", cwd=work)
        return work

    def sealed(self, cluster):
        return [cluster.status(node)["extents"]["sealed"] for node in cluster.state["nodes"]]

    def clean_up(self, cluster):
        """Makes a checkpoint and restarts all, so that what nothing names goes from the disk."""
        nodes = cluster.state["nodes"]
        index = self.wait_level(cluster)
        for node in nodes:
            cluster.wait_node(node, lambda s: s["volumes"][0]["checkpoint"] >= index,
                              "no checkpoint is made")
        for node in nodes:
            cluster.kill_node(node)
        cluster.up()

    def test_verb(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        self.fill(cluster)
        made = self.ctl(node, "repo", "fork", "parent", "me/fork")
        self.assertRegex(made.stdout,
                         r"^Repository me/fork is made as a fork of parent \(volume main, record \d+\)\.\n"
                         r"It has 2 refs, and shares 1 packs with it, 2\.0 MiB\.\n$")
        answer = json.loads(self.ctl(node, "--json", "repo", "fork", "me/fork", "one",
                                     "--default-branch-only").stdout)
        self.assertEqual(answer["repository"]["forked_from"], "me/fork")
        self.assertEqual(answer["statistics"]["refs"], 1)
        self.assertEqual(list(self.refs(node, "one")), ["HEAD", "refs/heads/main"])
        self.ctl(node, "repo", "rename", "me/fork", "me/renamed")
        self.assertIn("fork of      me/renamed, ", self.ctl(node, "repo", "show", "one").stdout)
        self.assertIn("forked_from\tme/renamed\n", self.ctl(node, "repo", "show", "one", "-H").stdout)
        refused = self.ctl(node, "repo", "fork", "parent", "one", code=1)
        self.assertRegex(refused.stderr, r"^error: The repository parent was not forked\.\ncause: .*'one' exists")
        self.assertIn("no repository", self.ctl(node, "repo", "fork", "none", "x", code=1).stderr)
        self.ctl(node, "repo", "fork", "parent", "../x", code=1)
        self.ctl(node, "repo", "fork", "parent", code=2)
        self.assertIn("--default-branch-only", self.ctl(node, "repo", "fork", "--help").stdout)
        status = node["control"].replace(".sock", "-status.sock")
        denied = run([CTL, "--socket", status, "repo", "fork", "parent", "x"], check=False)
        self.assertEqual(denied.returncode, 4)

    def test_whatever_becomes_of_the_parent(self):
        cluster = self.start(3, extra=EXTRA)
        nodes = cluster.state["nodes"]
        work = self.fill(cluster)
        self.ctl(nodes[1], "repo", "fork", "parent", "fork")
        self.assertEqual(self.sealed(cluster), [2, 2, 2], "a pack and its index, and no copies")
        for node in nodes:
            self.assert_clone_equals(node, work, "fork")
        # What comes to the parent afterwards is not seen in the fork.
        git("checkout", "-q", "-b", "later", "main", cwd=work)
        later = self.commit(work, "later", "later\n")
        git("push", "-q", self.url(nodes[0], "parent"), "later", cwd=work)
        git("checkout", "-q", "main", cwd=work)
        git("branch", "-q", "-D", "later", cwd=work)
        self.ctl(nodes[0], "repo", "set", "fork", "uploadpack.allowAnySHA1InWant=true")
        clone = os.path.join(self.folder, "one")
        git("clone", "-q", self.url(nodes[2], "fork"), clone)
        refused = git("fetch", "-q", "origin", later, cwd=clone, check=False)
        self.assertNotEqual(refused.returncode, 0)

        # The parent loses all that the fork was made of.
        git("push", "-q", self.url(nodes[2], "parent"), ":big", cwd=work)
        pruned = cluster.ctl(nodes[0], "repo", "prune", "parent", "--grace", "0")
        self.assertEqual(pruned["packs"], 1)
        self.clean_up(cluster)
        for node in nodes:
            self.assert_clone_equals(node, work, "fork")
        self.verify(cluster)
        self.ctl(nodes[2], "repo", "fork", "fork", "fork/of/fork")
        self.ctl(nodes[0], "repo", "delete", "parent", "--now")
        self.ctl(nodes[0], "repo", "delete", "fork", "--now")
        self.clean_up(cluster)
        self.assertEqual(self.sealed(cluster), [2, 2, 2])
        for node in nodes:
            self.assert_clone_equals(node, work, "fork/of/fork")
        self.verify(cluster)
        # Only when nobody is left who names it the pack goes.
        self.ctl(nodes[1], "repo", "delete", "fork/of/fork", "--now")
        self.clean_up(cluster)
        wait_for(lambda: self.sealed(cluster) == [0, 0, 0], "the files of the shared pack stay")
        self.verify(cluster)

    def test_whatever_becomes_of_the_fork(self):
        cluster = self.start(3, extra=EXTRA)
        nodes = cluster.state["nodes"]
        work = self.fill(cluster)
        self.ctl(nodes[1], "repo", "fork", "parent", "fork")
        git("push", "-q", self.url(nodes[0], "fork"), ":big", cwd=work)
        self.assertEqual(cluster.ctl(nodes[2], "repo", "prune", "fork", "--grace", "0")["packs"], 1)
        self.clean_up(cluster)
        for node in nodes:
            self.assert_clone_equals(node, work, "parent")
        # A member that was away learns of all this by the records, or by a checkpoint.
        cluster.kill_node(nodes[2])
        self.ctl(nodes[0], "repo", "fork", "parent", "again")
        self.ctl(nodes[0], "repo", "delete", "parent", "--now")
        cluster.start_node(nodes[2])
        cluster.wait_serving(nodes[2])
        self.clean_up(cluster)
        for node in nodes:
            self.assert_clone_equals(node, work, "again")
        self.verify(cluster)

    def test_forked_while_it_is_pushed_to(self):
        """Each fork is the parent at one moment; the primary is killed meanwhile."""
        cluster = self.start(3, extra=EXTRA)
        nodes = cluster.state["nodes"]
        work = self.fill(cluster)
        threads = push_load(nodes[:2], 1_000_000, connections=2, repository="parent")
        wait_for(lambda: all(len(t.acknowledged) > 10 for t in threads), "the load does not get on")
        kept = {}
        for number in range(6):
            acknowledged = {}
            for thread in threads:
                acknowledged.update(dict(thread.acknowledged))
            if number == 3:
                self.ctl(nodes[0], "volume", "switchover", "main", "--to", nodes[2]["id"])
                cluster.kill_node(nodes[2])
            self.ctl(nodes[number % 2], "repo", "fork", "parent", f"f{number}")
            kept[f"f{number}"] = acknowledged
            self.ctl(nodes[0], "repo", "prune", f"f{number}", "--grace", "0")
        for thread in threads:
            thread.stopped.set()
            thread.join()
        cluster.start_node(nodes[2])
        cluster.wait_serving(nodes[2])
        self.wait_level(cluster)
        self.ctl(nodes[0], "repo", "delete", "parent", "--now")
        for name, expected in kept.items():
            refs = self.refs(nodes[2], name)
            self.assertEqual({ref: refs.get(ref) for ref in expected}, expected)
            clone = os.path.join(self.folder, name)
            git("clone", "-q", "--mirror", self.url(nodes[2], name), clone)
            git("fsck", "--full", cwd=clone)
        git("push", "-q", self.url(nodes[1], "f5"), "main:refs/heads/again", cwd=work)
        self.verify(cluster)


if __name__ == "__main__":
    unittest.main()
