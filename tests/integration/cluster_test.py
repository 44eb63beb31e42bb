"""Three nodes with etcd: every node's front, crashes, a standby that comes and goes, the lead moved
by hand. Everything that was acknowledged must be there at the end, on every node."""
import socket
import sys

from harness import (GIT_ENVIRONMENT, ZERO, PackmoorTest, git, os, push_load, raw_request,
                     receive_body, signal, subprocess, unittest, wait_for)

PUSHES = int(os.environ.get("PACKMOOR_IT_PUSHES", "2000"))


class ThreeNodes(PackmoorTest):
    def acknowledged(self, threads):
        """What the load was told is kept, after all its threads have ended."""
        for thread in threads:
            thread.join(timeout=600)
            self.assertFalse(thread.is_alive(), "the load does not end")
        return {ref: oid for thread in threads for ref, oid in thread.acknowledged.items()}

    def failures(self, threads):
        return [failure for thread in threads for failure in thread.failures]

    def assert_all_there(self, cluster, expected):
        for node in cluster.state["nodes"]:
            refs = self.refs(node)
            lost = {ref: oid for ref, oid in expected.items() if refs.get(ref) != oid}
            self.assertEqual(lost, {}, f"acknowledged pushes are missing on {node['id']}")

    def test_push_to_each_node_and_clone_from_each(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[1], "repo", "create", "r")
        work = self.work()
        for i, node in enumerate(nodes):
            # Small and large: through the state store, and as extents.
            self.commit(work, f"small{i}", f"{i}\n")
            git("push", "-q", self.url(node), f"HEAD:refs/heads/small{i}", cwd=work)
            self.commit(work, f"large{i}", os.urandom(900_000))
            git("push", "-q", self.url(node), "HEAD:refs/heads/main", cwd=work)
            git("branch", "-q", f"small{i}", "HEAD~1", cwd=work)
        for node in nodes:
            self.assert_clone_equals(node, work)
        self.verify(cluster)
        status = cluster.ctl(nodes[2], "status")
        self.assertEqual(sorted(other["node"] for other in status["others"]), ["n1", "n2"])
        self.assertTrue(all(other["status"] for other in status["others"]))
        listed = cluster.ctl(nodes[0], "node", "list")["nodes"]
        self.assertEqual([node["connected"] for node in listed], [True] * 3)

    def test_kill_all_at_once_under_load_loses_nothing(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        threads = push_load(nodes, PUSHES)
        wait_for(lambda: sum(len(t.acknowledged) for t in threads) >= PUSHES * 9 // 10,
                 "the load does not get on", 600)
        for node in nodes:
            os.kill(node["pid"], signal.SIGKILL)
        for thread in threads:
            thread.stopped.set()
        expected = self.acknowledged(threads)
        wait_for(lambda: not any(cluster.lives(node) for node in nodes), "the nodes live on")
        cluster.up()
        index = self.wait_level(cluster)
        self.assertGreaterEqual(len(expected), PUSHES * 9 // 10)
        print(f"{len(expected)} pushes were acknowledged when all nodes were killed; all are at index "
              f"{index} after the restart", file=sys.stderr)
        self.assert_all_there(cluster, expected)
        members = self.verify(cluster)
        self.assertGreaterEqual(members[0]["ref_count"], len(expected))

    def test_a_standby_that_is_killed_again_and_again_fails_no_push(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        threads = push_load(nodes[:2], PUSHES)  # clients of the two that stay
        kills = 0
        while any(thread.is_alive() for thread in threads):
            cluster.kill_node(nodes[2])
            cluster.start_node(nodes[2])
            cluster.wait_node(nodes[2], lambda s: s["phase"] == "serving", "does not start")
            kills += 1
            threads[0].join(timeout=0.3)
        expected = self.acknowledged(threads)
        self.assertEqual(self.failures(threads), [])
        self.assertEqual(len(expected), PUSHES // 8 * 8)
        self.assertGreater(kills, 0)
        index = self.wait_level(cluster)
        print(f"{len(expected)} pushes while a standby was killed {kills} times; all are at index "
              f"{index}", file=sys.stderr)
        self.assert_all_there(cluster, expected)
        self.verify(cluster)

    def test_what_a_push_leaves_that_is_not_made(self):
        cluster = self.start(3, extra='\n[replication]\nsegment = "4 MiB"\nextent_expiry_ms = 500\n')
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        head = self.commit(work, "large", os.urandom(8 << 20))
        pack = subprocess.run(["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=work,
                              input=b"main\n", capture_output=True, check=True).stdout
        before = self.verify(cluster)

        def extents(key):
            return [cluster.status(node)["extents"][key] for node in nodes]

        # The client is killed half-way, through a standby's front.
        body = receive_body(ZERO, head, "refs/heads/main", pack)
        host, port = nodes[1]["http"].split(":")
        with socket.create_connection((host, int(port))) as s:
            s.sendall(self.head_of(body) + body[:len(body) // 2])
            wait_for(lambda: min(extents("quarantined")) > 0, "the pack does not come to all members")
        wait_for(lambda: max(extents("quarantined")) == 0, "half a pack stays")
        self.assertEqual(extents("sealed"), [0, 0, 0])
        # All of the pack is there, sealed on the members, when the primary refuses the push. Members
        # hold on to it for minutes, in case that it is tried again; a restart ends that.
        body = receive_body("1" * 40, head, "refs/heads/main", pack)
        answer = raw_request(nodes[1]["http"], self.head_of(body) + body)
        self.assertIn(b"ng refs/heads/main ", answer)
        self.assertEqual(extents("quarantined"), [0, 0, 0])
        self.assertEqual(max(extents("sealed")), 2)
        for node in nodes:
            cluster.kill_node(node)
        cluster.up()
        wait_for(lambda: max(extents("sealed")) == 0, "extents that nothing names stay")
        for node in nodes:
            folder = os.path.join(node["data"], "extents")
            self.assertEqual([f for _, _, files in os.walk(folder) for f in files], [])
            self.assertEqual(self.refs(node), {})
        after = self.verify(cluster)
        for a, b in zip(before, after):
            self.assertEqual((a["objects"], a["ref_count"]), (b["objects"], b["ref_count"]))
        git("push", "-q", self.url(nodes[1]), "main", cwd=work)
        self.assert_clone_equals(nodes[2], work)

    def head_of(self, body):
        return (f"POST /r/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                f"Content-Type: application/x-git-receive-pack-request\r\n\r\n").encode()

    def test_a_stopped_standby_catches_up(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        cluster.kill_node(nodes[1], signal.SIGSTOP)
        work = self.work()
        self.commit(work, "large", os.urandom(2_000_000))
        git("push", "-q", self.url(nodes[0]), "main", cwd=work)
        threads = push_load(nodes[:1], 200)
        expected = self.acknowledged(threads)
        self.assertEqual(self.failures(threads), [])
        os.kill(nodes[1]["pid"], signal.SIGCONT)
        self.wait_level(cluster)
        self.assert_all_there(cluster, expected)
        git("clone", "-q", self.url(nodes[1]), os.path.join(self.folder, "clone"))
        self.verify(cluster)

    def test_switchover_under_load(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        threads = push_load(nodes, PUSHES // 2)
        epochs = [cluster.ctl(nodes[0], "volume", "show", "main")["epoch"]]
        for target in ("n2", "n3", "n1"):
            before = sum(len(t.acknowledged) for t in threads)
            moved = self.ctl(nodes[0], "volume", "switchover", "main", "--to", target)
            self.assertIn(f"is led by {target}", moved.stdout)
            wait_for(lambda: sum(len(t.acknowledged) for t in threads) > before + 20
                     or not any(t.is_alive() for t in threads), "no push after the switch")
            epochs.append(cluster.ctl(nodes[0], "volume", "show", "main")["epoch"])
        self.assertEqual(epochs, sorted(set(epochs)), "each switch is a new epoch")
        expected = self.acknowledged(threads)
        self.assertEqual(self.failures(threads), [], "a client of a living node sees no error")
        self.wait_level(cluster)
        self.assert_all_there(cluster, expected)
        self.verify(cluster)

    def test_git_is_kept_alive_while_its_push_waits_for_the_quorum(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.commit(work, "a", "1")
        trace = os.path.join(self.folder, "trace")
        pids = [node["pid"] for node in nodes[1:]]
        # Runs when git has been shown the refs, which needs the quorum, and before it sends the pack.
        hook = os.path.join(work, ".git", "hooks", "pre-push")
        os.makedirs(os.path.dirname(hook), exist_ok=True)
        with open(hook, "w") as f:
            f.write("#!/bin/sh\nexec kill -STOP " + " ".join(map(str, pids)) + "\n")
        os.chmod(hook, 0o755)

        def traced():
            if not os.path.exists(trace):
                return ""
            with open(trace) as f:
                return f.read()
        try:
            process = subprocess.Popen(
                ["git", "push", self.url(nodes[0]), "main"], cwd=work, text=True,
                stderr=subprocess.PIPE, env={**GIT_ENVIRONMENT, "GIT_TRACE_PACKET": trace})
            wait_for(lambda: "sideband< \\1" in traced(), "git hears nothing",
                     alive=lambda: process.poll() is None)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        said = process.communicate(timeout=300)[1]
        self.assertEqual(process.returncode, 0, said)
        self.assert_clone_equals(nodes[1], work)

    def test_without_a_quorum_nothing_is_acknowledged(self):
        cluster = self.start(3, extra='\n[replication]\nsegment = "4 MiB"\n'
                                      'propose_timeout_ms = 5000\nread_timeout_ms = 5000\n')
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        work = self.work()
        self.commit(work, "a", "1")
        git("push", "-q", self.url(nodes[0]), "main", cwd=work)
        for node in nodes[1:]:
            cluster.kill_node(node)
        self.commit(work, "a", "2")
        refused = git("push", self.url(nodes[0]), "main", cwd=work, check=False)
        self.assertNotEqual(refused.returncode, 0)
        result = self.ctl(nodes[0], "status")
        self.assertIn("NO_QUORUM", result.stdout)
        made = self.run_ctl(nodes[0], "repo", "create", "other")
        self.assertIn(made.returncode, (5, 6), made.stderr)
        for node in nodes[1:]:
            cluster.start_node(node)
        for node in nodes:
            cluster.wait_serving(node)
        git("push", "-q", self.url(nodes[2]), "main", cwd=work)
        self.assert_clone_equals(nodes[1], work)

    def run_ctl(self, node, *arguments):
        from harness import CTL, run
        return run([CTL, "--socket", node["control"], *arguments], check=False)

    def test_volumes_go_on_while_etcd_is_down(self):
        cluster = self.start(3)
        nodes = cluster.state["nodes"]
        self.ctl(nodes[0], "repo", "create", "r")
        etcd = cluster.state["etcd"][0]
        os.kill(etcd["pid"], signal.SIGSTOP)
        try:
            work = self.work()
            self.commit(work, "a", "1")
            git("push", "-q", self.url(nodes[1]), "main", cwd=work)
            self.assert_clone_equals(nodes[2], work)
            wait_for(lambda: "NO_COORDINATOR" in self.ctl(nodes[0], "status").stdout,
                     "status does not say that the coordinator is away")
        finally:
            os.kill(etcd["pid"], signal.SIGCONT)
        wait_for(lambda: "NO_COORDINATOR" not in self.ctl(nodes[0], "status").stdout,
                 "status does not say that the coordinator is back")


if __name__ == "__main__":
    unittest.main()
