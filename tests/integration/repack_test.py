"""Many small pushes make many packs; they are merged while pushes go on. Whoever merges is killed in the
middle of it, again and again: no push that was acknowledged is lost, clones are sound, the members equal,
and the packs few."""
import os
import sys

from harness import PackmoorTest, git, push_load, run, unittest, wait_for

# Packs come fast, and are merged slowly enough to be killed on the way.
CONFIGURATION = """
[replication]
segment = "4 MiB"
extent_expiry_ms = 500
checkpoint_interval_ms = 500

[git]
settle_objects = 30
repack_packs = 3
repack_rate = "2 MiB"
"""
FAST = CONFIGURATION.replace('repack_rate = "2 MiB"', 'repack_rate = "0"')
AWAY = FAST.replace('[replication]\nsegment = "4 MiB"', '''[replication]
segment = "1 MiB"
checkpoint_bytes = "64 KiB"
log_retain = "0"''')
KILLS = 3


class Repack(PackmoorTest):
    def maintenance(self, cluster, node):
        return (cluster.status(node) or {}).get("maintenance") or {}

    def merging(self, cluster):
        """The node that merges packs now."""
        for node in cluster.state["nodes"]:
            if cluster.lives(node) and self.maintenance(cluster, node).get("repacking", {}).get(
                    "repository"):
                return node
        return None

    def statistics(self, cluster, node):
        return cluster.ctl(node, "repo", "show", "r")["statistics"]

    def test_killed_while_it_merges(self):
        cluster = self.start(3, extra=CONFIGURATION)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        threads = push_load(nodes, 1_000_000, connections=4)
        for _ in range(KILLS):
            node = wait_for(lambda: self.merging(cluster), "no packs are merged", 120)
            cluster.kill_node(node)
            cluster.start_node(node)
            cluster.wait_serving(node)
        wait_for(lambda: any(self.statistics(cluster, node)["last_repack"] for node in nodes),
                 "no merge is done", 180)
        acknowledged = {}
        for thread in threads:
            thread.stopped.set()
            thread.join()
            acknowledged.update(thread.acknowledged)
        self.wait_level(cluster)
        print(f"{len(acknowledged)} pushes, {self.statistics(cluster, nodes[0])}", file=sys.stderr)
        self.assertGreater(len(acknowledged), 30)
        for node in nodes:
            refs = self.refs(node)
            self.assertEqual({ref: refs.get(ref) for ref in acknowledged}, acknowledged)
            clone = os.path.join(self.folder, "clone-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node), clone)
            git("fsck", "--full", "--strict", cwd=clone)
        self.verify(cluster)

    def test_a_member_that_was_away(self):
        """It comes back when packs that its next records name were merged, and merged again, and are gone."""
        cluster = self.start(3, extra=AWAY)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        threads = push_load(nodes[:2], 1_000_000, connections=3)
        wait_for(lambda: self.statistics(cluster, nodes[0])["last_repack"], "no merge is done", 180)
        cluster.kill_node(nodes[2])
        merges = set()
        def merged_often():
            merges.add(self.statistics(cluster, nodes[0])["last_repack"])
            return len(merges) > 4
        wait_for(merged_often, "packs are not merged while a member is away", 180)
        cluster.start_node(nodes[2])
        cluster.wait_serving(nodes[2])
        for thread in threads:
            thread.stopped.set()
            thread.join()
        self.wait_level(cluster)
        self.verify(cluster)
        clone = os.path.join(self.folder, "clone")
        git("clone", "-q", "--mirror", self.url(nodes[2]), clone)
        git("fsck", "--full", "--strict", cwd=clone)

    def test_packs_become_few_and_their_files_go(self):
        cluster = self.start(3, extra=FAST)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        self.assertIn("  repacked     never\n", self.ctl(nodes[0], "repo", "show", "r").stdout)
        threads = push_load(nodes, 1_000_000, connections=4)
        wait_for(lambda: self.statistics(cluster, nodes[0])["last_repack"], "no merge is done", 180)
        pushed = 0
        for thread in threads:
            thread.stopped.set()
            thread.join()
            self.assertEqual(thread.failures, [])
            pushed += len(thread.acknowledged)
        self.wait_level(cluster)
        # A geometric progression of a few MiB at most, and what is too few to be merged.
        wait_for(lambda: self.statistics(cluster, nodes[0])["packs"] <= 10, "the packs stay many", 120)
        self.wait_level(cluster)
        for node in nodes:
            numbers = self.statistics(cluster, node)
            self.assertLessEqual(numbers["packs"], 10)
            self.assertEqual(numbers["packed_objects"] + numbers["hot_objects"], 3 * pushed)
            self.assertGreater(numbers["last_repack"], 0)
            self.assertRegex(self.ctl(node, "repo", "show", "r").stdout,
                             r"  repacked     \d{4}-\d\d-\d\d .+, record [\d,]+\n")
        done = [self.maintenance(cluster, node)["repacking"]["done"] for node in nodes]
        self.assertGreater(sum(map(int, done)), 0)
        self.assertRegex(self.ctl(nodes[0], "status").stdout, r"maintained  \d+ settled, \d+ repacked")
        self.verify(cluster)
        clone = os.path.join(self.folder, "clone")
        git("clone", "-q", "--mirror", self.url(nodes[1]), clone)
        git("fsck", "--full", "--strict", cwd=clone)

        # The journal's records hold on to the old packs; behind a durable state a restart needs none.
        index = self.wait_level(cluster)
        for node in nodes:
            cluster.wait_node(node, lambda s: s["volumes"][0]["checkpoint"] >= index,
                              "no checkpoint is made")
        for node in nodes:
            cluster.kill_node(node)
        cluster.up()

        def few():
            return all(cluster.status(node)["extents"]["sealed"] <=
                       2 * self.statistics(cluster, node)["packs"] for node in nodes)
        wait_for(few, "files of merged packs stay", 120)
        # Stock git reads them where it looks for packs; the names are made and removed in the background.
        for node in nodes:
            def indexes(node=node):
                return run(["find", os.path.join(cluster.folder, node["id"], "volumes"), "-name",
                            "*.idx"]).stdout.split()
            packs = self.statistics(cluster, node)["packs"]
            wait_for(lambda: len(indexes()) == packs, "old names of packs stay", 60)
            for path in indexes():
                run(["git", "verify-pack", path])


if __name__ == "__main__":
    unittest.main()
