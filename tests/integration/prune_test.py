"""repo prune: what nothing reaches goes, everywhere; what stock git pushes afterwards is whole."""
import sys

from harness import (CTL, ZERO, PackmoorTest, git, os, push_load, raw_request, receive_body, run,
                     subprocess, unittest, wait_for)

EXTRA = '''
[replication]
segment = "4 MiB"
extent_expiry_ms = 500
checkpoint_interval_ms = 500
'''


class Prune(PackmoorTest):
    def statistics(self, cluster, node):
        return cluster.ctl(node, "repo", "show", "r")["statistics"]

    def prune(self, cluster, node, *options):
        return cluster.ctl(node, "repo", "prune", "r", *options)

    def raw_push(self, node, work, commit, ref, revisions):
        """A push whose pack holds just these revisions, whatever the server has."""
        pack = subprocess.run(["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=work,
                              input="\n".join(revisions).encode(), capture_output=True,
                              check=True).stdout
        body = receive_body(ZERO, commit, ref, pack)
        return raw_request(node["http"], (
            f"POST /r/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: application/x-git-receive-pack-request\r\n\r\n").encode() + body)

    def test_force_pushed_away_pruned_and_pushed_again(self):
        cluster = self.start(3, extra=EXTRA)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.commit(work, "a", "first\n")
        git("push", "-q", self.url(nodes[0]), "main", cwd=work)
        git("checkout", "-q", "-b", "big", cwd=work)
        big = self.commit(work, "big", os.urandom(2 << 20))
        git("checkout", "-q", "-b", "small", "main", cwd=work)
        small = self.commit(work, "small", "small\n")
        git("push", "-q", self.url(nodes[1]), "big", "small", cwd=work)
        full = self.statistics(cluster, nodes[0])
        self.assertEqual(full["packs"], 1)
        # Both branches are rewritten; what they were is reached by nothing.
        for branch in ("big", "small"):
            git("checkout", "-q", "-B", branch, "main", cwd=work)
            self.commit(work, "rewritten", branch)
        git("push", "-q", "--force", self.url(nodes[2]), "big", "small", cwd=work)

        self.assertIn("there is nothing to drop", self.ctl(nodes[0], "repo", "prune", "r").stdout)
        would = self.prune(cluster, nodes[1], "--dry-run", "--grace", "0")
        self.assertTrue(would["dry_run"])
        self.assertEqual(would["packs"], 1)
        self.assertEqual(would["pack_bytes"], full["pack_bytes"])
        self.assertIn("would be pruned", self.ctl(nodes[1], "repo", "prune", "r", "--dry-run",
                                                  "--grace", "0s").stdout)
        self.assertEqual(self.statistics(cluster, nodes[0])["packs"], 1)

        text = self.ctl(nodes[1], "repo", "prune", "r", "--grace", "0").stdout
        self.assertRegex(text, r"^Repository r is pruned \(volume main, record \d+\):\n"
                               r"  hot objects  \d+, .+\n  packs        1, \d+ objects, 2.0 MiB\n"
                               r"  kept         \d+ objects\n$")
        again = self.prune(cluster, nodes[2], "--grace", "0")
        self.assertEqual((again["hot_objects"], again["packs"]), (0, 0))
        for node in nodes:
            after = self.statistics(cluster, node)
            self.assertEqual((after["packs"], after["pack_bytes"]), (0, 0))
        self.assert_clone_equals(nodes[0], self.mirror(nodes[1]))
        self.verify(cluster)

        # Pushes that believe that it is there still are refused. Stock git sends what it must.
        git("checkout", "-q", "-B", "on-top", small, cwd=work)
        top = self.commit(work, "top", "top\n")
        answer = self.raw_push(nodes[0], work, top, "refs/heads/on-top", [top, "^" + small])
        self.assertIn(b"ng refs/heads/on-top missing necessary objects", answer)
        answer = self.raw_push(nodes[2], work, small, "refs/heads/again", [small, "^" + small])
        self.assertIn(b"ng refs/heads/again missing necessary objects", answer)
        git("push", "-q", self.url(nodes[0]), "on-top", f"{big}:refs/heads/big-again", cwd=work)
        git("branch", "big-again", big, cwd=work)
        for node in nodes:
            self.assert_clone_equals(node, work)
        self.verify(cluster)
        self.check_disk(cluster, work)

    def mirror(self, node):
        path = os.path.join(self.folder, "mirror")
        git("clone", "-q", "--mirror", self.url(node), path)
        return path

    def check_disk(self, cluster, work):
        """The dropped pack's file goes. The journal's records hold on to it; with the state behind the
        prune durable, a restart needs them no more."""
        nodes = cluster.state["nodes"]
        index = self.wait_level(cluster)
        for node in nodes:
            cluster.wait_node(node, lambda s: s["volumes"][0]["checkpoint"] >= index,
                              "no checkpoint is made")
        for node in nodes:
            cluster.kill_node(node)
        cluster.up()

        def sealed():
            return [cluster.status(node)["extents"]["sealed"] for node in nodes]
        wait_for(lambda: sealed() == [2, 2, 2], "files of the pruned pack stay")
        self.assert_clone_equals(nodes[0], work)

    def test_pushes_while_it_is_pruned(self):
        """Branches come and go while every node prunes and the primary is killed; whatever is left is
        whole."""
        cluster = self.start(3, extra=EXTRA)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.commit(work, "a", "first\n")
        git("push", "-q", self.url(nodes[0]), "main", cwd=work)
        threads = push_load(nodes, 1_000_000, connections=1)
        pruned = busy = 0
        alive = nodes
        for round_number in range(24):
            if round_number == 8:
                self.ctl(nodes[0], "volume", "switchover", "main", "--to", nodes[2]["id"])
                cluster.kill_node(nodes[2])
                alive = nodes[:2]
            if round_number == 16:
                cluster.start_node(nodes[2])
            node = alive[round_number % len(alive)]
            # The same commit comes back and goes again: its objects are pruned in between, or not.
            git("branch", "-f", "comes", "main", cwd=work)
            git("checkout", "-q", "comes", cwd=work)
            self.commit(work, "b", str(round_number % 3))
            git("push", "-q", "--force", self.url(node), "comes", cwd=work)
            git("push", "-q", self.url(alive[(round_number + 1) % len(alive)]), ":comes", cwd=work)
            git("checkout", "-q", "main", cwd=work)
            result = run([CTL, "--socket", node["control"], "repo", "prune", "r", "--grace", "0"],
                         check=False)
            self.assertIn(result.returncode, (0, 1), result.stderr)
            if result.returncode == 1:
                self.assertIn("was pushed to, or settled, each time", result.stderr)
                busy += 1
            pruned += "is pruned" in result.stdout
        expected = {}
        for thread in threads:
            thread.stopped.set()
            thread.join()
            self.assertEqual(thread.failures, [])
            expected.update(thread.acknowledged)
        print(f"{len(expected)} pushes, {pruned} prunes, {busy} times too busy", file=sys.stderr)
        self.assertGreater(pruned, 0)
        cluster.wait_serving(nodes[2])
        self.wait_level(cluster)
        self.ctl(nodes[0], "repo", "prune", "r", "--grace", "0")
        for node in nodes:
            refs = self.refs(node)
            self.assertEqual({ref: refs.get(ref) for ref in expected}, expected)
            clone = os.path.join(self.folder, "clone-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node), clone)
            git("fsck", "--full", cwd=clone)
        self.verify(cluster)

    def test_exit_codes(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        missing = self.ctl(node, "repo", "prune", "none", code=1)
        self.assertRegex(missing.stderr, r"^error: The repository none was not pruned\.\ncause: There "
                                         r"is no repository .+\ntry: See `packmoorctl repo list`\.\n$")
        self.ctl(node, "repo", "create", "r")
        nothing = self.prune(cluster, node, "--grace", "0")
        self.assertEqual(nothing["repository"]["name"], "r")
        self.assertEqual((nothing["hot_objects"], nothing["packs"], nothing["kept_objects"]), (0, 0, 0))
        self.assertEqual(run([CTL, "repo", "prune"], check=False).returncode, 2)
        for grace in ("-1", "3x", "soon"):
            self.ctl(node, "repo", "prune", "r", "--grace", grace, code=2)
        status = node["control"].replace(".sock", "-status.sock")
        denied = run([CTL, "--socket", status, "repo", "prune", "r"], check=False)
        self.assertEqual(denied.returncode, 4)


if __name__ == "__main__":
    unittest.main()
