"""A standby is away until no log holds the records that it lacks. It comes back while clients go on
pushing, fetches a checkpoint of the state, and follows again; it and its source are killed on the
way. No push fails, nothing is lost, and the members are equal at the end."""
import json

from harness import CTL, PackmoorTest, git, os, run, unittest, wait_for
from push_chains import Load, missing_commits

# So little is kept that a pause of a second is too long; so slow that there is time for the kills. What
# is pushed stays in the state, however fast the load is.
CONFIGURATION = """
[replication]
segment = "1 MiB"
checkpoint_bytes = "64 KiB"
checkpoint_interval_ms = 300
log_retain = "0"
transfer_rate = "2 MiB"

[git]
settle_objects = 1000000
"""


class Transfer(PackmoorTest):
    def volume(self, cluster, node):
        status = cluster.status(node) if cluster.lives(node) else None
        return ((status or {}).get("volumes") or [None])[0]

    def primary(self, cluster):
        def leads():
            for node in cluster.state["nodes"]:
                volume = self.volume(cluster, node)
                if volume and volume["role"] == "primary":
                    return node
            return None
        return wait_for(leads, "No node leads", 60)

    def push_some(self, node, work, count, size):
        for number in range(count):
            self.commit(work, f"f-{size}-{number}", os.urandom(size))
            git("push", "-q", self.url(node), "HEAD:refs/heads/large", cwd=work)

    def wait_transfer(self, cluster, node, done, what):
        """Until a transfer runs at the node for which `done` holds; its status."""
        def look():
            volume = self.volume(cluster, node)
            transfer = (volume or {}).get("transfer")
            return transfer if transfer and done(transfer) else None
        return wait_for(look, what, 120)

    def fetched(self, transfer):
        return transfer["file_bytes_done"] + transfer["extent_bytes_done"]

    def test_a_standby_that_was_away_for_long_converges(self):
        cluster = self.start(3, extra=CONFIGURATION)
        nodes = cluster.state["nodes"]
        primary = self.primary(cluster)
        away, spared = [node for node in nodes if node is not primary]
        self.ctl(primary, "repo", "create", "r")
        work = self.work()
        self.push_some(primary, work, 2, 100_000)
        self.wait_level(cluster)
        before = self.volume(cluster, away)["last"]
        cluster.kill_node(away)

        load = Load([spared], "r", connections=4, pause=0.002)
        self.addCleanup(lambda: [client.stopped.set() for client in load.clients])
        load.start()
        self.push_some(spared, work, 25, 200_000)     # stays in the state
        self.push_some(spared, work, 6, 1_500_000)    # extents
        wait_for(lambda: self.volume(cluster, primary)["base"] > before + 10,
                 "the log is not recycled", 60)

        cluster.start_node(away)
        seen = self.wait_transfer(cluster, away, lambda t: self.fetched(t) > 1_500_000,
                                  "no transfer runs")
        text = self.ctl(away, "volume", "show", "main").stdout
        self.assertIn("transfer", text)
        self.assertIn(f"from {seen['source']}", text)
        shown = json.loads(run([CTL, "--socket", away["control"], "--json", "volume", "show",
                                "main"]).stdout)
        self.assertGreater(shown["transfer"]["file_bytes"], 4_000_000)
        self.assertGreaterEqual(shown["transfer"]["extent_bytes"], 9_000_000)
        self.wait_told(cluster, away, "STATE_TRANSFER", "fetches a checkpoint from " + seen["source"])

        cluster.kill_node(away)
        cluster.start_node(away)
        resumed = self.wait_transfer(cluster, away, lambda t: t["phase"] == "fetching",
                                     "the transfer does not go on")
        self.assertGreater(self.fetched(resumed), 1_000_000, "what was fetched is kept")

        source = next(node for node in nodes if node["id"] == resumed["source"])
        cluster.kill_node(source)
        cluster.start_node(source)

        def follows():
            volume = self.volume(cluster, away)
            return volume and volume["transfers_installed"] > 0 and not volume["problem"] and \
                not volume.get("transfer")
        wait_for(follows, "the standby does not follow", 240)
        count = load.count()
        wait_for(lambda: load.count() >= count + 50, "the load does not get on", 120)
        load.stop()
        self.assertEqual(load.failures(), [], "a client of a living node sees no error")
        self.wait_level(cluster)
        self.verify(cluster)
        clone = os.path.join(self.folder, "clone")
        git("clone", "-q", "--mirror", self.url(away), clone)
        git("fsck", "--full", "--strict", cwd=clone)
        self.assertEqual(missing_commits(clone, load.heads(), lambda c: run(c).stdout), [])
        head = git("rev-parse", "HEAD", cwd=work).stdout
        self.assertEqual(git("rev-parse", "refs/heads/large", cwd=clone).stdout, head)
        # Restarted, it has the state that was installed.
        cluster.kill_node(away)
        cluster.start_node(away)
        self.wait_level(cluster)
        self.verify(cluster)
        volumes = os.path.join(away["data"], "volumes")
        state = [name for volume in os.listdir(volumes)
                 for name in os.listdir(os.path.join(volumes, volume)) if name.startswith("state")]
        self.assertEqual(len(state), 1, "what was replaced is removed")


if __name__ == "__main__":
    unittest.main()
