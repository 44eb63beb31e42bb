"""A volume's primary is killed or stopped while clients push to the nodes that survive: no push
fails, nothing is lost, and the members are equal at the end. No time is asserted here; tools/dev
bench failover measures them."""
from harness import (GIT_ENVIRONMENT, PackmoorTest, git, os, run, signal, subprocess, unittest,
                     wait_for)
from push_chains import Load, missing_commits

ROUNDS = int(os.environ.get("PACKMOOR_IT_FAILOVERS", "3"))
PUSHES = 60   # between two faults, at least


class Failover(PackmoorTest):
    def volume(self, cluster, node):
        status = cluster.status(node) if cluster.lives(node) else None
        volumes = (status or {}).get("volumes") or [None]
        return volumes[0]

    def primary(self, cluster, besides=None):
        def leads():
            for node in cluster.state["nodes"]:
                volume = self.volume(cluster, node) if node is not besides else None
                if volume and volume["role"] == "primary":
                    return node
            return None
        return wait_for(leads, "No node leads", 60)

    def others(self, cluster, node):
        return [other for other in cluster.state["nodes"] if other is not node]

    def load(self, cluster):
        self.ctl(cluster.state["nodes"][0], "repo", "create", "r")
        load = Load(cluster.state["nodes"], "r", pause=0.002)
        self.addCleanup(lambda: [client.stopped.set() for client in load.clients])
        return load.start()

    def wait_pushes(self, load, count):
        start = load.count()
        wait_for(lambda: load.count() >= start + count, "the load does not get on", 120)

    def wait_follows(self, cluster, node):
        def follows():
            volume = self.volume(cluster, node)
            return volume and volume["role"] == "standby" and not volume["problem"]
        wait_for(follows, f"{node['id']} does not follow", 60)

    def finish_load(self, cluster, load):
        """Every client ended well, and every node has all that was acknowledged."""
        load.stop()
        self.assertEqual(load.failures(), [], "a client of a living node sees no error")
        self.wait_level(cluster)
        for node in cluster.state["nodes"]:
            clone = os.path.join(self.folder, "clone-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node), clone)
            git("fsck", "--full", "--strict", cwd=clone)
            lost = missing_commits(clone, load.heads(), lambda command: run(command).stdout)
            self.assertEqual(lost, [], f"acknowledged pushes are missing on {node['id']}")
        self.verify(cluster)

    def test_kill_of_the_primary_fails_no_push(self):
        cluster = self.start(3)
        load = self.load(cluster)
        for _ in range(ROUNDS):
            primary = self.primary(cluster)
            load.use(self.others(cluster, primary))
            self.wait_pushes(load, PUSHES)
            cluster.kill_node(primary)
            self.primary(cluster, besides=primary)
            self.wait_pushes(load, PUSHES)
            cluster.start_node(primary)
            self.wait_follows(cluster, primary)
        self.finish_load(cluster, load)

    def test_a_stopped_primary_is_replaced_and_follows_when_it_goes_on(self):
        cluster = self.start(3)
        load = self.load(cluster)
        for _ in range(ROUNDS):
            primary = self.primary(cluster)
            load.use(self.others(cluster, primary))
            self.wait_pushes(load, PUSHES)
            os.kill(primary["pid"], signal.SIGSTOP)
            try:
                self.wait_pushes(load, PUSHES)
            finally:
                os.kill(primary["pid"], signal.SIGCONT)
            self.primary(cluster, besides=primary)
            self.wait_follows(cluster, primary)
        self.finish_load(cluster, load)

    def test_large_pushes_survive_the_loss_of_the_primary(self):
        cluster = self.start(3)
        self.ctl(cluster.state["nodes"][0], "repo", "create", "r")
        work = self.work()
        for number in range(ROUNDS):
            primary = self.primary(cluster)
            front = self.others(cluster, primary)[0]
            self.commit(work, f"large{number}", os.urandom(6_000_000))
            pushing = self.push_in_background(work, front)
            wait_for(lambda: pushing.poll() is not None or self.receives(cluster, front),
                     "the pack does not arrive", 60)
            cluster.kill_node(primary)
            self.assertEqual(pushing.wait(timeout=120), 0, pushing.stderr.read())
            pushing.stderr.close()
            cluster.start_node(primary)
            self.wait_follows(cluster, primary)
        for node in cluster.state["nodes"]:
            self.assert_clone_equals(node, work)
        self.verify(cluster)

    def push_in_background(self, work, node):
        return subprocess.Popen(["git", "push", "-q", self.url(node), "main"], cwd=work,
                                env=GIT_ENVIRONMENT, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)

    def receives(self, cluster, node):
        """A pack is on its way into the node's extents."""
        folder = os.path.join(node["data"], "extents", "quarantine")
        return os.path.isdir(folder) and bool(os.listdir(folder))

    def test_a_client_that_lost_its_connection_gets_the_truth_on_retry(self):
        cluster = self.start(3)
        self.ctl(cluster.state["nodes"][0], "repo", "create", "r")
        work = self.work()
        for number in range(ROUNDS):
            primary = self.primary(cluster)
            others = self.others(cluster, primary)
            head = self.commit(work, "f", f"{number}\n" * 100)
            pushing = self.push_in_background(work, primary)
            cluster.kill_node(primary)
            pushing.wait(timeout=120)
            pushing.stderr.close()
            # Whether it was committed or not: the same push again ends with it in place.
            git("push", "-q", self.url(others[0]), "main", cwd=work)
            for node in others:
                self.assertEqual(self.refs(node)["refs/heads/main"], head)
            cluster.start_node(primary)
            self.wait_follows(cluster, primary)
        self.wait_level(cluster)
        for node in cluster.state["nodes"]:
            self.assert_clone_equals(node, work)
        self.verify(cluster)

    def test_a_primary_without_its_members_answers_with_an_error(self):
        cluster = self.start(3, extra='\n[replication]\nsegment = "4 MiB"\n'
                                      'propose_timeout_ms = 1500\nread_timeout_ms = 1500\n')
        self.ctl(cluster.state["nodes"][0], "repo", "create", "r")
        primary = self.primary(cluster)
        for node in self.others(cluster, primary):
            os.kill(node["pid"], signal.SIGSTOP)
        try:
            work = self.work()
            self.commit(work, "a", "1")
            refused = git("push", self.url(primary), "main", cwd=work, check=False)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("ewer members than the write quorum", refused.stderr)
        finally:
            for node in self.others(cluster, primary):
                os.kill(node["pid"], signal.SIGCONT)
        self.primary(cluster)
        git("push", "-q", self.url(primary), "main", cwd=work)
        self.wait_level(cluster)
        self.assert_clone_equals(primary, work)


if __name__ == "__main__":
    unittest.main()
