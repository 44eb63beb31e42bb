"""packmoorctl scrub: each verb's text, JSON and exit code, and what stands over a restart."""
import json

from harness import PackmoorTest, unittest, wait_for


class Scrub(PackmoorTest):
    def scrubbed(self, cluster, node):
        return cluster.status(node)["scrub"]

    def test_the_verbs(self):
        cluster = self.start(1)
        node = cluster.state["nodes"][0]
        self.ctl(node, "repo", "create", "r")
        self.assertIn("waits for its next pass", self.ctl(node, "scrub", "status").stdout)
        self.assertIn("none was complete", self.ctl(node, "scrub", "status").stdout)

        self.assertIn("A pass begins", self.ctl(node, "scrub", "start").stdout)
        done = wait_for(lambda: (lambda s: s["passes"] == 1 and s)(self.scrubbed(cluster, node)),
                        "The pass does not end", 60)
        self.assertEqual(done["phase"], "idle")
        self.assertGreater(done["last_pass_ms"], 0)
        self.assertEqual(done["findings"], [])

        self.assertIn("is paused", self.ctl(node, "scrub", "pause").stdout)
        self.assertIn("The scrubber is paused.", self.ctl(node, "scrub", "status").stdout)
        self.assertIn("idle, paused", self.ctl(node, "status").stdout)
        cluster.kill_node(node)
        cluster.start_node(node)
        cluster.wait_serving(node)
        paused = json.loads(self.ctl(node, "--json", "scrub", "start").stdout)
        self.assertTrue(paused["paused"])
        self.assertEqual(paused["passes"], 1)
        resumed = json.loads(self.ctl(node, "--json", "scrub", "resume").stdout)
        self.assertFalse(resumed["paused"])
        wait_for(lambda: self.scrubbed(cluster, node)["passes"] == 2, "It does not go on", 60)
        self.assertIn("not told of any more", self.ctl(node, "scrub", "acknowledge").stdout)

        status = json.loads(self.ctl(node, "--json", "scrub", "status").stdout)
        self.assertEqual([status[kind] for kind in ("extents", "journal", "state")],
                         [{"found": 0, "mended": 0}] * 3)
        self.ctl(node, "scrub", code=2)
        only_status = {"control": node["control"][:-5] + "-status.sock"}
        self.ctl(only_status, "scrub", "status")
        for verb in ("start", "pause", "resume", "acknowledge"):
            self.ctl(only_status, "scrub", verb, code=4)


if __name__ == "__main__":
    unittest.main()
