"""etcd as it really behaves: TLS, users, a leader that dies, compaction, an etcd that hangs, nodes that
restart meanwhile, and an etcd that was restored from a backup. Pushes and fetches go on throughout."""
import json
import os
import shutil

from harness import CTL, PackmoorTest, git, run, signal, unittest, wait_for

LONG = 120  # seconds that a condition may take on a slow machine


class Etcd(PackmoorTest):
    def push(self, node, work, text):
        self.pushed = getattr(self, "pushed", 0) + 1
        self.commit(work, "a", f"{self.pushed}: {text}")
        git("push", "-q", self.url(node), "main", cwd=work)

    def has(self, node, code):
        """None while the node does not answer."""
        result = self.may_fail(node, "status", "--local")
        return code in result.stdout if result.returncode == 0 else None

    def wait_health(self, nodes, code, present=True):
        for node in nodes:
            wait_for(lambda: self.has(node, code) == present,
                     f"{node['id']} {'does not say' if present else 'still says'} {code}", LONG)
            if present and code.isupper():
                self.wait_line(self.clusters[-1], node, f"health: {code}: ")

    def may_fail(self, node, *arguments):
        return run([CTL, "--socket", node["control"], *arguments], check=False)

    def switch(self, node, to):
        """Until etcd carries it out: an attempt may meet an election."""
        wait_for(lambda: self.may_fail(node, "volume", "switchover", "main",
                                       "--to", to).returncode == 0, f"{to} does not lead", LONG)

    def epoch(self, cluster, node):
        return cluster.ctl(node, "volume", "show", "main")["epoch"]

    def follow_together(self, cluster, node, other, work):
        """A push through one node is to be had from the other."""
        self.push(node, work, f"from {node['id']} to {other['id']}\n")
        self.wait_level(cluster, LONG)
        self.assert_clone_equals(other, work)

    # --- the connection ----------------------------------------------------------------------

    def leader(self, cluster):
        text = cluster.etcdctl("endpoint", "status", "--write-out", "json")
        for status in json.loads(text):
            if status["Status"]["header"]["member_id"] == status["Status"]["leader"]:
                return next(e for e in cluster.state["etcd"] if e["client"] == status["Endpoint"])
        return None

    def test_tls_users_and_a_leader_that_dies(self):
        cluster = self.start(3, etcds=3, etcd_tls=True, etcd_auth=True)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.push(nodes[0], work, "1\n")
        dead = wait_for(lambda: self.leader(cluster), "etcd has no leader", LONG)
        os.kill(dead["pid"], signal.SIGKILL)
        self.push(nodes[1], work, "2\n")
        self.switch(nodes[0], "n2")
        self.push(nodes[2], work, "3\n")
        cluster.start_etcd()
        self.switch(nodes[0], "n3")
        self.assert_clone_equals(nodes[0], work)
        password = cluster.noted("etcd-password")
        for place in [cluster.log_of(node) for node in nodes] + [
                os.path.join(node["data"], "coordinator-known") for node in nodes]:
            with open(place, errors="replace") as f:
                self.assertNotIn(password, f.read(), f"the password is in {place}")

    def test_a_wrong_password_is_told_without_it(self):
        cluster = self.start(3, etcd_auth=True)
        node = cluster.state["nodes"][0]
        cluster.kill_node(node)
        with open(cluster.path("etcd-password"), "w") as f:
            f.write("not-the-password\n")
        cluster.start_node(node)
        self.wait_health([node], "does not let in the user")
        self.assertNotIn("not-the-password", self.ctl(node, "status", "--local").stdout)
        with open(cluster.log_of(node)) as f:
            self.assertNotIn("not-the-password", f.read())

    def test_changes_are_seen_after_a_restart_with_compaction(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        for i in range(20):
            cluster.etcdctl("put", "/packmoor/dev/other", str(i))
        os.kill(cluster.state["etcd"][0]["pid"], signal.SIGKILL)
        wait_for(lambda: not cluster.etcd_lives(), "etcd lives on")
        cluster.start_etcd()
        wait_for(lambda: cluster.etcdctl("get", "x", check=False) is not None, "etcd is not up", LONG)
        text = cluster.etcdctl("endpoint", "status", "--write-out", "json")
        revision = json.loads(text)[0]["Status"]["header"]["revision"]
        cluster.etcdctl("compact", str(revision), "--physical")
        self.wait_health(nodes, "NO_COORDINATOR", False)
        self.ctl(nodes[0], "volume", "create", "second", "--members", "n1,n2,n3",
                 "--write-quorum", "2")
        for node in nodes:
            cluster.wait_node(node, lambda s: len(s["volumes"]) == 2, "does not see the volume", LONG)

    def test_pushes_go_on_while_etcd_hangs_and_a_node_restarts(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.push(nodes[0], work, "1\n")
        os.kill(cluster.state["etcd"][0]["pid"], signal.SIGSTOP)
        self.push(nodes[0], work, "2\n")
        cluster.kill_node(nodes[2])
        self.push(nodes[1], work, "3\n")
        cluster.start_node(nodes[2])
        cluster.wait_node(nodes[2], lambda s: s["phase"] == "serving" and s["volumes"],
                          "does not serve without etcd", LONG)
        self.wait_health(nodes, "NO_COORDINATOR")
        self.follow_together(cluster, nodes[2], nodes[1], work)
        self.follow_together(cluster, nodes[1], nodes[2], work)
        status = cluster.status(nodes[2])
        self.assertEqual([v["role"] for v in status["volumes"]], ["standby"])
        self.assertIn("leads none until it does", self.ctl(nodes[2], "status", "--local").stdout)
        os.kill(cluster.state["etcd"][0]["pid"], signal.SIGCONT)
        self.wait_health(nodes, "NO_COORDINATOR", False)
        self.switch(nodes[0], "n3")
        self.follow_together(cluster, nodes[0], nodes[2], work)

    # --- packmoorctl coordinator -----------------------------------------------------------------

    def test_the_verbs_where_nothing_is_wrong(self):
        alone = self.start(1, name="one").state["nodes"][0]
        self.assertIn("stands alone", self.ctl(alone, "coordinator", "status").stdout)
        refused = self.ctl(alone, "coordinator", "accept", "--cluster-id", "0" * 16, code=1)
        self.assertIn("There is no etcd to accept", refused.stderr)
        cluster = self.start(3, name="three")
        node = cluster.state["nodes"][0]
        text = self.ctl(node, "coordinator", "status").stdout
        self.assertIn("etcd answers at " + cluster.state["etcd"][0]["client"], text)
        status = self.known(cluster, node)
        self.assertEqual(status["kind"], "etcd")
        self.assertEqual(status["doubt"], "")
        self.assertEqual(status["cluster_id"], status["seen_cluster_id"])
        self.assertGreater(status["revision"], 0)
        self.assertEqual([v["name"] for v in status["volumes"]], ["main"])
        nothing = self.ctl(node, "coordinator", "accept", "--cluster-id", status["cluster_id"],
                           code=1)
        self.assertIn("There is nothing to accept", nothing.stderr)
        self.ctl(node, "--json", "coordinator", "accept", code=2)
        only_status = {"control": node["control"][:-5] + "-status.sock"}
        self.ctl(only_status, "coordinator", "status")
        self.ctl(only_status, "coordinator", "accept", "--cluster-id", "0" * 16, code=4)

    # --- rule 18 -----------------------------------------------------------------------------

    def stop_etcd(self, cluster):
        os.kill(cluster.state["etcd"][0]["pid"], signal.SIGTERM)
        wait_for(lambda: not cluster.etcd_lives(), "etcd does not end", LONG)

    def known(self, cluster, node):
        return cluster.ctl(node, "coordinator", "status")

    def started(self, repository="r"):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", repository)
        work = self.work()
        self.push(nodes[0], work, "before the backup\n")
        return cluster, nodes, work

    def test_an_older_data_directory_is_found_out_and_accepted(self):
        cluster, nodes, work = self.started()
        data = cluster.etcd_data(cluster.state["etcd"][0])
        self.stop_etcd(cluster)
        shutil.copytree(data, data + "-backup")
        cluster.start_etcd()
        self.switch(nodes[0], "n2")
        epoch = self.epoch(cluster, nodes[1])
        self.push(nodes[0], work, "after the backup\n")
        self.stop_etcd(cluster)
        shutil.rmtree(data)
        os.rename(data + "-backup", data)
        cluster.start_etcd()
        self.wait_health(nodes, "COORDINATOR_CHANGED")
        self.follow_together(cluster, nodes[0], nodes[2], work)  # pushes and fetches go on
        refused = self.may_fail(nodes[0], "volume", "switchover", "main", "--to", "n3")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("has gone back", refused.stderr)
        # Neither does a restart forget it, nor does it need etcd to follow.
        cluster.kill_node(nodes[2])
        cluster.start_node(nodes[2])
        self.wait_health(nodes[2:], "COORDINATOR_CHANGED")
        self.follow_together(cluster, nodes[0], nodes[2], work)
        self.assertEqual(self.epoch(cluster, nodes[1]), epoch, "the present primary goes on")
        seen = wait_for(lambda: self.known(cluster, nodes[2])["seen_cluster_id"], "etcd is not seen")
        wrong = self.may_fail(nodes[0], "coordinator", "accept", "--cluster-id", "0" * 16)
        self.assertEqual(wrong.returncode, 1, wrong.stderr)
        typed = run([CTL, "--socket", nodes[0]["control"], "coordinator", "accept"], check=False,
                    data=b"yes\n")
        self.assertEqual(typed.returncode, 1, typed.stderr)
        self.assertTrue(self.has(nodes[0], "COORDINATOR_CHANGED"))
        accepted = run([CTL, "--socket", nodes[0]["control"], "coordinator", "accept"], check=False,
                       data=seen.encode() + b"\n")
        self.assertEqual(accepted.returncode, 0, accepted.stdout + accepted.stderr)
        self.assertIn("n1, n2, n3", accepted.stdout)
        self.accepted(cluster, work, epoch)

    def accepted(self, cluster, work, epoch):
        """All nodes follow; the epochs that etcd had forgotten are there; the lead moves again."""
        nodes = cluster.state["nodes"]
        self.wait_health(nodes, "COORDINATOR_CHANGED", False)
        with open(cluster.log_of(nodes[0])) as f:
            self.assertIn("ordered by user id", f.read())
        listed = cluster.ctl(nodes[0], "volume", "show", "main")
        self.assertEqual((listed["epoch"], listed["primary"], listed["phase"]),
                         (epoch, "n2", "active"))
        self.switch(nodes[0], "n3")
        self.assertGreater(self.epoch(cluster, nodes[2]), epoch)
        self.follow_together(cluster, nodes[0], nodes[1], work)
        self.verify(cluster)

    def test_another_cluster_from_a_snapshot_and_a_member_that_is_away(self):
        cluster, nodes, work = self.started()
        etcd = cluster.state["etcd"][0]
        data = cluster.etcd_data(etcd)
        snapshot = cluster.path("snapshot.db")
        cluster.etcdctl("snapshot", "save", snapshot, etcd=etcd)
        self.switch(nodes[0], "n2")
        epoch = self.epoch(cluster, nodes[1])
        cluster.kill_node(nodes[2])
        self.push(nodes[0], work, "after the snapshot\n")
        self.stop_etcd(cluster)
        shutil.rmtree(data)
        peer = cluster.noted("etcd-peer")
        cluster.etcdctl("snapshot", "restore", snapshot, "--data-dir", data, "--name", "e1",
                        "--initial-cluster", "e1=" + peer, "--initial-advertise-peer-urls", peer,
                        "--initial-cluster-token", "another", etcd=etcd)
        cluster.start_etcd()
        self.wait_health(nodes[:2], "COORDINATOR_CHANGED")
        self.push(nodes[0], work, "in doubt\n")
        status = self.known(cluster, nodes[0])
        self.assertNotEqual(status["seen_cluster_id"], status["cluster_id"])
        command = ["coordinator", "accept", "--cluster-id", status["seen_cluster_id"]]
        refused = self.may_fail(nodes[0], *command)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("Member n3 of volume main does not answer", refused.stderr)
        self.assertTrue(self.has(nodes[0], "COORDINATOR_CHANGED"))
        self.ctl(nodes[0], *command, "--without", "n3")
        self.wait_health(nodes[:2], "COORDINATOR_CHANGED", False)
        # What n3 knows is not missing in etcd: it follows by itself.
        cluster.start_node(nodes[2])
        cluster.wait_serving(nodes[2], LONG)
        wait_for(lambda: self.known(cluster, nodes[2])["cluster_id"] == status["seen_cluster_id"],
                 "n3 does not follow", LONG)
        self.accepted(cluster, work, epoch)


if __name__ == "__main__":
    unittest.main()
