"""Members are added and removed, the write quorum is changed and a pair loses either node, with real
processes while clients push: no push fails, nothing is lost, and the members are equal at the end."""
import json

from harness import CTL, PackmoorTest, git, os, run, unittest, wait_for
from push_chains import Load, missing_commits

PUSHES = 40
ROUNDS = int(os.environ.get("PACKMOOR_IT_PAIR_ROUNDS", "4"))


class Membership(PackmoorTest):
    def wait_pushes(self, load, count):
        start = load.count()
        wait_for(lambda: load.count() >= start + count, "the load does not get on", 120)

    def cluster(self, nodes):
        return self.start(nodes)

    def ask(self, node, *arguments):
        """packmoorctl --json, done."""
        result = run([CTL, "--socket", node["control"], "--json", *arguments])
        return json.loads(result.stdout)

    def refused(self, node, sentence, *arguments, code=1):
        answer = self.ctl(node, *arguments, code=code)
        self.assertIn(sentence.lower(), answer.stderr.lower())

    def show(self, node, volume):
        answer = self.ask(node, "volume", "show", volume)
        return answer["volumes"][0] if "volumes" in answer else answer

    def member(self, node, volume, name):
        return next((m for m in self.show(node, volume)["members"] if m["node"] == name), None)

    def wait_counted(self, node, volume, counted, quorum):
        def reached():
            found = self.show(node, volume)
            names = sorted(m["node"] for m in found["members"] if m["counted"])
            return names == sorted(counted) and found["write_quorum"] == quorum \
                and found["phase"] == "active"
        wait_for(reached, f"{volume} does not come to {counted}", 60)

    def wait_follows(self, cluster, node, volume):
        def follows():
            status = cluster.status(node) or {}
            return any(v["name"] == volume and v["role"] == "standby" and not v["problem"]
                       for v in status.get("volumes") or [])
        wait_for(follows, f"{node['id']} does not follow {volume}", 60)

    def load(self, nodes, repository, label="p"):
        load = Load(nodes, repository, label=label, pause=0.002)
        self.addCleanup(lambda: [client.stopped.set() for client in load.clients])
        return load.start()

    def finish_load(self, load, nodes, repository):
        load.stop()
        self.assertEqual(load.failures(), [], "a client of a living node sees no error")
        for node in nodes:
            clone = os.path.join(self.folder, f"clone-{repository}-{node['id']}")
            git("clone", "-q", "--mirror", self.url(node, repository), clone)
            git("fsck", "--full", "--strict", cwd=clone)
            lost = missing_commits(clone, load.heads(), lambda command: run(command).stdout)
            self.assertEqual(lost, [], f"acknowledged pushes are missing on {node['id']}")

    def test_members_come_and_go_while_clients_push(self):
        cluster = self.cluster(4)
        n1, n2, n3, n4 = cluster.state["nodes"]
        self.ctl(n1, "volume", "create", "v", "--members", "n1,n2,n3", "--write-quorum", "2")
        self.ctl(n1, "repo", "create", "v", "--volume", "v")
        load = self.load([n1, n2], "v")
        self.wait_pushes(load, PUSHES)

        # What cannot be is refused, and says why.
        self.refused(n1, "no node x has registered", "volume", "add-member", "v", "x")
        self.refused(n2, "n1 leads the volume", "volume", "remove-member", "v", "n1")
        self.refused(n1, "between 1 and the number", "volume", "set-quorum", "v", "4")
        self.refused(n1, "no volume of this name", "volume", "set-quorum", "nothing", "1")
        self.ctl(n1, "volume", "set-quorum", "v", "0", code=2)

        # Asked of any node, one that is no member too.
        said = self.ctl(n4, "volume", "add-member", "v", "n4", "--async").stdout
        self.assertIn("async: n4", said)
        self.assertFalse(self.member(n1, "v", "n4")["counted"])
        self.wait_pushes(load, PUSHES)
        answer = self.ask(n2, "volume", "promote", "v", "n4")
        self.assertTrue(next(m for m in answer["members"] if m["node"] == "n4")["counted"])
        self.ctl(n1, "volume", "set-quorum", "v", "3")
        self.wait_counted(n1, "v", ["n1", "n2", "n3", "n4"], 3)
        self.wait_pushes(load, PUSHES)
        self.ctl(n3, "volume", "remove-member", "v", "n3")
        self.refused(n1, "a write is kept on 3 of them", "volume", "remove-member", "v", "n2")
        self.wait_pushes(load, PUSHES)
        self.wait_counted(n1, "v", ["n1", "n2", "n4"], 3)

        # The member that came last leads after the first is killed.
        self.ctl(n1, "volume", "set-quorum", "v", "2")
        load.use([n2])
        self.wait_pushes(load, PUSHES)
        cluster.kill_node(n1)
        self.wait_pushes(load, PUSHES)
        self.ctl(n2, "volume", "switchover", "v", "--to", "n4")
        self.wait_pushes(load, PUSHES)
        cluster.start_node(n1)
        self.wait_follows(cluster, n1, "v")
        self.finish_load(load, [n1, n2, n4], "v")

    def test_a_pair_loses_either_node(self):
        cluster = self.cluster(3)
        n1, n2, n3 = cluster.state["nodes"]
        answer = self.ask(n1, "volume", "create", "p", "--members", "n1,n2", "--pair")
        self.assertTrue(answer["pair"])
        self.ctl(n1, "repo", "create", "p", "--volume", "p")
        self.refused(n1, "the volume is a pair", "volume", "set-quorum", "p", "1")
        self.refused(n1, "the volume is a pair", "volume", "add-member", "p", "n3")
        heads = {}
        for turn, (lost, other) in enumerate(((n1, n2), (n2, n1), (n1, n2))):
            load = self.load([other], "p", f"turn{turn}-")
            self.wait_pushes(load, PUSHES)
            cluster.kill_node(lost)
            self.wait_pushes(load, PUSHES)
            self.wait_counted(other, "p", [other["id"]], 1)
            health = [h["code"] for h in cluster.status(other)["health"]]
            self.assertIn("NO_REDUNDANCY", health)
            cluster.start_node(lost)
            self.wait_counted(other, "p", ["n1", "n2"], 2)
            self.wait_follows(cluster, lost, "p")
            load.stop()
            self.assertEqual(load.failures(), [])
            heads.update(load.heads())
            health = [h["code"] for h in cluster.status(other)["health"]]
            self.assertNotIn("NO_REDUNDANCY", health)
        for node in (n1, n2):
            clone = os.path.join(self.folder, "pair-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node, "p"), clone)
            lost = missing_commits(clone, heads, lambda command: run(command).stdout)
            self.assertEqual(lost, [], f"acknowledged pushes are missing on {node['id']}")

    def test_a_pair_and_its_witness_under_load(self):
        """Two nodes, and etcd as the third vote (rule 19). Clients of both push; whichever node is
        killed (-9), those of the other see no error; after every round the lost one comes back, is
        counted, and the other is killed."""
        cluster = self.cluster(2)
        nodes = cluster.state["nodes"]
        self.ask(nodes[0], "volume", "create", "p", "--members", "n1,n2", "--pair")
        self.ctl(nodes[0], "repo", "create", "p", "--volume", "p")
        self.refused(nodes[0], "its other node would go on alone", "node", "ok-to-stop", "n2")
        heads = {}
        leader_killed = 0
        for turn in range(ROUNDS):
            lost, other = nodes[turn % 2], nodes[1 - turn % 2]
            leader_killed += self.show(other, "p")["primary"] == lost["id"]
            stays = self.load([other], "p", f"t{turn}s-")
            goes = self.load([lost], "p", f"t{turn}g-")
            self.wait_pushes(stays, PUSHES)
            self.wait_pushes(goes, PUSHES)
            cluster.kill_node(lost)
            self.wait_pushes(stays, PUSHES)
            self.wait_counted(other, "p", [other["id"]], 1)
            goes.use([other])
            self.wait_pushes(goes, PUSHES)
            cluster.start_node(lost)
            self.wait_counted(other, "p", ["n1", "n2"], 2)
            self.wait_follows(cluster, lost, "p")
            goes.stop()
            stays.stop()
            self.assertEqual(stays.failures(), [], "a client of the survivor sees no error")
            heads.update(stays.heads())
            heads.update(goes.heads())
            answer = self.ask(other, "volume", "verify", "p")
            self.assertTrue(answer["equal"], answer)
            self.assertEqual(len(answer["members"]), 2)
        self.assertGreater(leader_killed, 0)
        for node in nodes:
            clone = os.path.join(self.folder, "witness-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node, "p"), clone)
            git("fsck", "--full", "--strict", cwd=clone)
            lost = missing_commits(clone, heads, lambda command: run(command).stdout)
            self.assertEqual(lost, [], f"acknowledged pushes are missing on {node['id']}")

    def test_leads_are_spread_and_a_dead_node_moves_only_its_own(self):
        cluster = self.cluster(3)
        n1, n2, n3 = cluster.state["nodes"]
        for name in ("a", "b", "c"):
            self.ctl(n1, "volume", "create", name, "--members", "n1,n2,n3", "--write-quorum", "2")

        def leads():
            found = {}
            for volume in self.ask(n2, "volume", "list")["volumes"]:
                found[volume["name"]] = volume["primary"]
            return found
        wait_for(lambda: set(leads().values()) == {"n1"}, "n1 does not lead", 60)
        self.ctl(n2, "cluster", "balance")
        before = leads()
        counts = sorted(list(before.values()).count(n["id"]) for n in (n1, n2, n3))
        self.assertEqual(counts, [1, 1, 2])
        self.assertIn("nothing was moved", self.ctl(n2, "cluster", "balance").stdout)
        # The members of a volume that has just moved have acknowledged nothing yet.
        wait_for(lambda: cluster.ctl(n1, "node", "ok-to-stop", "n3", check=False),
                 "n3 may not stop", 60)
        self.assertIn("may stop", self.ctl(n1, "node", "ok-to-stop", "n3").stdout)
        self.assertTrue(self.ask(n2, "node", "ok-to-stop", "n3")["ok"])
        self.refused(n1, "no node of this name", "node", "ok-to-stop", "x")
        cluster.kill_node(n3)
        wait_for(lambda: "n3" not in leads().values(), "the leads of n3 do not move", 60)
        self.refused(n1, "only 1 would be there", "node", "ok-to-stop", "n2")
        after = leads()
        for name, primary in before.items():
            if primary != "n3":
                self.assertEqual(after[name], primary)
        cluster.start_node(n3)
        for name in ("a", "b", "c"):
            self.wait_follows(cluster, n3, name)
        # A drained node leads nothing, and balance does not change that.
        self.assertIn("drained", self.ctl(n3, "node", "drain", "n1").stdout)
        self.assertNotIn("n1", leads().values())
        self.ctl(n2, "cluster", "balance")
        self.assertNotIn("n1", leads().values())
        self.ctl(n3, "node", "undrain", "n1")
        self.ctl(n2, "cluster", "balance")
        self.assertIn("n1", leads().values())

        # New repositories go by weight.
        self.assertEqual(self.ask(n1, "volume", "set-weight", "a", "0")["weight"], 0)
        self.ask(n1, "volume", "set-weight", "main", "0")
        self.ask(n1, "volume", "set-weight", "b", "200")
        self.ask(n1, "volume", "set-weight", "c", "100")

        def weights():
            status = cluster.status(n1)
            return {v["name"]: v["weight"] for v in status["volumes"]}
        wait_for(lambda: weights() == {"a": 0, "b": 200, "c": 100, "main": 0},
                 "the weights are not seen", 60)
        for number in range(6):
            self.ctl(n1, "repo", "create", f"r{number}")
        held = [r["volume"] for r in self.ask(n1, "repo", "list")["repositories"]]
        self.assertEqual(sorted(held), ["b"] * 4 + ["c"] * 2)
        self.refused(n1, "no volume of this name", "volume", "set-weight", "nothing", "1")


if __name__ == "__main__":
    unittest.main()
