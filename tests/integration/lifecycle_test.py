"""Volumes end, members leave for good, one node takes another's place and leads are spread by
themselves, with real processes: what is refused, what is told, and what is left on the disks."""
import json

from harness import CTL, SMALL, PackmoorTest, git, os, run, signal, tail, unittest, wait_for
from push_chains import Load, missing_commits

PUSHES = 40


class Lifecycle(PackmoorTest):
    def ask(self, node, *arguments, code=0, data=None):
        result = run([CTL, "--socket", node["control"], "--json", *arguments], check=False, data=data)
        self.assertEqual(result.returncode, code, f"{arguments}:\n{result.stdout}{result.stderr}")
        return json.loads(result.stdout) if result.stdout else None

    def refused(self, node, sentence, *arguments, code=1):
        answer = self.ctl(node, *arguments, code=code)
        self.assertIn(sentence.lower(), answer.stderr.lower())

    def volumes(self, node):
        return {v["name"]: v for v in self.ask(node, "volume", "list")["volumes"]}

    def counted(self, node, volume):
        return sorted(m["node"] for m in self.volumes(node)[volume]["members"] if m["counted"])

    def folder_of(self, node, volume_id):
        return os.path.join(node["data"], "volumes", volume_id)

    def wait_no_folder(self, node, volume_id):
        wait_for(lambda: not os.path.exists(self.folder_of(node, volume_id)),
                 f"{node['id']} does not remove its data", 60)

    def make(self, node, name, members="n1,n2,n3", quorum="2"):
        made = self.ask(node, "volume", "create", name, "--members", members, "--write-quorum", quorum)
        wait_for(lambda: self.volumes(node)[name]["phase"] == "active", f"nobody leads {name}", 60)
        return made["id"]

    def push_to(self, node, repository):
        self.pushes = getattr(self, "pushes", 0) + 1
        work = self.work(f"work-{self.pushes}")
        self.commit(work, "f", f"{self.pushes}")
        git("push", "-q", self.url(node, repository), "HEAD:refs/heads/" + node["id"], cwd=work)

    # --- volume delete -------------------------------------------------------------------------

    def test_an_empty_volume_is_deleted(self):
        cluster = self.start(3)
        n1, n2, n3 = cluster.state["nodes"]
        first = self.make(n1, "v")
        self.ctl(n1, "repo", "create", "r", "--volume", "v")
        self.push_to(n1, "r")
        self.refused(n2, "the volume holds 1 repository", "volume", "delete", "v", "--yes", "v")
        self.refused(n2, "names another volume", "volume", "delete", "v", "--yes", "w", code=2)
        self.ask(n2, "volume", "delete", "v", code=2)  # with --json it must be given
        typed = run([CTL, "--socket", n2["control"], "volume", "delete", "v"], check=False, data=b"w\n")
        self.assertEqual(typed.returncode, 1)
        self.assertIn("is not its name", typed.stderr)
        self.refused(n1, "no volume of this name", "volume", "delete", "x", "--yes", "x")
        self.push_to(n2, "r")  # it goes on
        self.ctl(n1, "repo", "delete", "r")
        self.refused(n2, "the volume holds 1 repository, of which 1 deleted and kept",
                     "volume", "delete", "v", "--yes", "v")
        self.ctl(n1, "repo", "delete", "r", "--now")

        # One member is away. Asked of one that does not lead, by typing the name.
        cluster.kill_node(n3)
        typed = run([CTL, "--socket", n2["control"], "volume", "delete", "v"], check=False, data=b"v\n")
        self.assertEqual(typed.returncode, 0, typed.stderr)
        self.assertIn("Volume v is deleted", typed.stdout)
        self.assertNotIn("v", self.volumes(n1))
        self.refused(n1, "there is no volume v", "volume", "show", "v")
        for node in (n1, n2):
            self.wait_no_folder(node, first)
        self.assertIn("which held nothing, was deleted", tail(cluster.log_of(n1), 200))
        self.assertTrue(os.path.exists(self.folder_of(n3, first)))
        cluster.start_node(n3)
        self.wait_no_folder(n3, first)

        # The name is used again, by another volume; and that stays through restarts.
        second = self.make(n1, "v")
        self.assertNotEqual(first, second)
        self.ctl(n1, "repo", "create", "r", "--volume", "v")
        for node in (n1, n2, n3):
            self.push_to(node, "r")
        cluster.kill_node(n2)
        cluster.start_node(n2)
        cluster.wait_node(n2, lambda s: "v" in [v["name"] for v in s["volumes"]], "does not open v")
        self.assertEqual(len(self.refs(n2)), 3)
        self.assertFalse(os.listdir(os.path.join(n2["data"], "removed")))
        self.ask(n3, "repo", "delete", "r", "--now")
        answer = self.ask(n3, "volume", "delete", "v", "--yes", "v")
        self.assertEqual((answer["name"], answer["id"]), ("v", second))

    def test_without_a_quorum_or_a_coordinator_nothing_is_deleted(self):
        cluster = self.start(3)
        n1, n2, n3 = cluster.state["nodes"]
        volume = self.make(n1, "v")
        os.kill(cluster.state["etcd"][0]["pid"], signal.SIGKILL)
        wait_for(lambda: not cluster.etcd_lives(), "etcd lives on")
        answer = self.ctl(n1, "volume", "delete", "v", "--yes", "v", code=5)
        self.assertIn("was not deleted", answer.stderr)
        # A node that starts now does not know, and removes nothing.
        cluster.kill_node(n3)
        cluster.start_node(n3)
        cluster.wait_node(n3, lambda s: "v" in [v["name"] for v in s["volumes"]], "does not open v")
        self.assertTrue(os.path.exists(self.folder_of(n3, volume)))
        cluster.start_etcd()
        wait_for(lambda: run([CTL, "--socket", n1["control"], "volume", "delete", "v", "--yes", "v"],
                             check=False).returncode == 0, "the volume cannot be deleted", 60)
        for node in (n1, n2, n3):
            self.wait_no_folder(node, volume)

    def test_a_node_that_stands_alone_deletes_its_volumes(self):
        cluster = self.start(1)
        node = cluster.state["nodes"][0]
        volumes = {"main": self.volumes(node)["main"]["id"], "x": self.make(node, "x", "n1", "1")}
        for name, volume in volumes.items():
            self.ctl(node, "volume", "delete", name, "--yes", name)
            self.wait_no_folder(node, volume)
        self.assertEqual(self.ask(node, "volume", "list")["volumes"], [])
        cluster.kill_node(node)
        cluster.start_node(node)
        cluster.wait_node(node, lambda s: s["phase"] == "serving", "does not serve without a volume")
        self.wait_told(cluster, node, "NO_VOLUME")
        self.assertEqual(self.ask(node, "volume", "list")["volumes"], [])
        self.make(node, "main", "n1", "1")
        self.ctl(node, "repo", "create", "r")
        self.push_to(node, "r")

    # --- removed members -----------------------------------------------------------------------

    def test_a_removed_member_keeps_its_data_for_a_while(self):
        cluster = self.start(3, extra=SMALL + "removed_data_keep_ms = 15000\n")
        n1, n2, n3 = cluster.state["nodes"]
        volume = self.make(n1, "v")
        self.ctl(n1, "repo", "create", "r", "--volume", "v")
        self.push_to(n1, "r")
        self.ctl(n1, "volume", "remove-member", "main", "n3")
        said = self.ctl(n1, "volume", "remove-member", "v", "n3").stdout
        self.assertIn("keeps its data for a while", said)
        wait_for(lambda: (cluster.status(n3) or {}).get("removals"), "n3 does not tell", 30)
        self.wait_told(cluster, n3, "REMOVED_DATA")
        self.wait_no_folder(n3, volume)
        self.wait_told(cluster, n3, "REMOVED_DATA", there=False)
        self.assertEqual(cluster.status(n3)["removals"], [])
        self.wait_told(cluster, n3, "NO_VOLUME")
        self.ask(n1, "volume", "add-member", "v", "n3")
        self.wait_told(cluster, n3, "NO_VOLUME", there=False)
        wait_for(lambda: self.counted(n1, "v") == ["n1", "n2", "n3"], "n3 is not counted", 60)
        cluster.kill_node(n1)
        self.push_to(n3, "r")
        cluster.start_node(n1)
        wait_for(lambda: (cluster.ctl(n2, "volume", "verify", "v", check=False) or {}).get("equal"),
                 "they are not equal", 60)

    # --- leads ---------------------------------------------------------------------------------

    def test_leads_are_spread_by_themselves(self):
        cluster = self.start(3, extra=SMALL + "auto_balance_quiet_ms = 1000\n")
        nodes = cluster.state["nodes"]
        n1, n2, n3 = nodes
        names = ["a", "b", "c", "d", "e"]
        for name in names:
            self.make(n1, name)
        self.ctl(n1, "repo", "create", "r", "--volume", "a")
        load = Load([n1, n2], "r", connections=4, pause=0.005).start()
        self.addCleanup(lambda: [client.stopped.set() for client in load.clients])

        def leads(alive):
            found = [v["primary"] for v in self.volumes(n1).values()]
            counts = [found.count(node["id"]) for node in alive]
            return counts if sum(counts) == len(found) else [0, len(found)]

        def even(alive):
            return max(leads(alive)) - min(leads(alive)) <= 1
        wait_for(lambda: even(nodes), "the leads are not spread", 120)
        self.assertIn("this node gives one away", tail(cluster.log_of(n1), 500))
        cluster.kill_node(n3)
        wait_for(lambda: sum(leads([n1, n2])) == len(names) + 1, "the leads of n3 do not move", 60)
        cluster.start_node(n3)
        wait_for(lambda: even(nodes), "the leads are not spread again", 120)
        # A drained node gets none, however few it has.
        self.ctl(n1, "node", "drain", "n2")
        wait_for(lambda: even([n1, n3]) and leads(nodes)[1] == 0, "n2 leads", 120)
        # One that has just started, and leads least, cannot take a lead yet: it goes to another, or later.
        self.ctl(n1, "node", "undrain", "n2")
        wait_for(lambda: even(nodes), "the leads are not spread to n2", 120)
        cluster.kill_node(n3)
        wait_for(lambda: sum(leads([n1, n2])) == len(names) + 1, "the leads of n3 do not move", 60)
        cluster.start_node(n3)
        self.ctl(n1, "node", "drain", "n2")
        self.assertEqual(leads(nodes)[1], 0)
        load.stop()
        self.assertEqual(load.failures(), [])

    # --- node replace --------------------------------------------------------------------------

    def test_a_node_takes_the_place_of_another(self):
        cluster = self.start(5)
        n1, n2, n3, n4, n5 = cluster.state["nodes"]
        for name, members in (("a", "n1,n2,n3"), ("b", "n3,n1,n2"), ("c", "n1,n2")):
            self.make(n1, name, members)
            self.ctl(n1, "repo", "create", name, "--volume", name)
        self.ctl(n1, "volume", "add-member", "c", "n3", "--async")
        load = Load([n1, n2], "a", connections=4, pause=0.002).start()
        self.addCleanup(lambda: [client.stopped.set() for client in load.clients])
        self.refused(n1, "no node n9 has registered", "node", "replace", "n3", "n9")
        self.refused(n1, "its own place", "node", "replace", "n3", "n3", code=2)
        cluster.kill_node(n5)
        wait_for(lambda: not next(n for n in self.ask(n1, "node", "list")["nodes"]
                                  if n["node"] == "n5")["connected"], "n5 is there", 30)
        self.refused(n1, "n5 is not connected", "node", "replace", "n3", "n5")

        # n3 leads b and is alive. Asked of a node that is a member of nothing yet.
        wait_for(lambda: self.volumes(n1)["b"]["primary"] == "n3", "n3 does not lead", 30)
        said = self.ctl(n4, "node", "replace", "n3", "n4").stdout
        for sentence in ("Volume a: adding n4.", "Volume b: moving the lead to n4.",
                         "Volume b: removing n3.", "n4 has taken the place of n3 in all volumes."):
            self.assertIn(sentence, said)
        for name in ("a", "b"):
            self.assertEqual(self.counted(n1, name), ["n1", "n2", "n4"])
        self.assertEqual([m["node"] for m in self.volumes(n1)["c"]["members"] if not m["counted"]],
                         ["n4"])
        self.assertIn("there is nothing to do", self.ctl(n1, "node", "replace", "n3", "n4").stdout)

        # A node that is dead, by one that is broken off: asked again, it goes on.
        cluster.start_node(n5)
        load.use([n1])
        cluster.kill_node(n2)
        self.ask(n1, "volume", "add-member", "a", "n5")
        # Volume c has lost its quorum with n2: it is told, and the others are done all the same.
        answer = self.ask(n1, "node", "replace", "n2", "n5", code=1)
        self.assertEqual([v["name"] for v in answer["volumes"]], ["a", "b", "main"])
        self.wait_told(cluster, n1, "NO_QUORUM")
        cluster.start_node(n2)
        self.wait_told(cluster, n1, "NO_QUORUM", there=False)
        answer = self.ask(n1, "node", "replace", "n2", "n5")
        self.assertEqual([v["name"] for v in answer["volumes"]], ["c"])
        for name, members in (("a", ["n1", "n4", "n5"]), ("b", ["n1", "n4", "n5"]), ("c", ["n1", "n5"])):
            self.assertEqual(self.counted(n1, name), members)
        load.stop()
        self.assertEqual(load.failures(), [])
        for node in (n1, n4, n5):
            clone = os.path.join(self.folder, "clone-" + node["id"])
            git("clone", "-q", "--mirror", self.url(node, "a"), clone)
            lost = missing_commits(clone, load.heads(), lambda command: run(command).stdout)
            self.assertEqual(lost, [], f"acknowledged pushes are missing on {node['id']}")

    def test_the_lost_node_of_a_pair_is_replaced(self):
        cluster = self.start(3)
        n1, n2, n3 = cluster.state["nodes"]
        self.ask(n1, "volume", "create", "p", "--members", "n1,n2", "--pair")
        self.ctl(n1, "repo", "create", "r", "--volume", "p")
        self.push_to(n1, "r")
        self.refused(n1, "the volume is a pair", "node", "replace", "n2", "n3")
        cluster.kill_node(n2)
        self.wait_told(cluster, n1, "NO_REDUNDANCY")
        self.ctl(n1, "node", "replace", "n2", "n3")
        self.assertEqual(self.counted(n1, "p"), ["n1", "n3"])
        self.assertEqual(self.volumes(n1)["p"]["write_quorum"], 2)
        self.wait_told(cluster, n1, "NO_REDUNDANCY", there=False)
        cluster.kill_node(n1)
        self.push_to(n3, "r")
        self.assertEqual(len(self.refs(n3)), 2)

    # --- what is told --------------------------------------------------------------------------

    def test_what_is_missing_is_told(self):
        cluster = self.start(3)
        n1, n2, n3 = cluster.state["nodes"]
        self.make(n1, "v", "n1,n2", "2")
        self.ctl(n1, "volume", "add-member", "v", "n3", "--async")
        self.ctl(n1, "repo", "create", "r", "--volume", "v")
        cluster.kill_node(n3)
        self.push_to(n1, "r")

        def lag():
            members = self.volumes(n1)["v"]["members"]
            return next(m for m in members if m["node"] == "n3")
        wait_for(lambda: lag()["lag_ms"] >= 1000, "the lag of n3 does not grow", 60)
        self.assertGreater(lag()["lag_records"], 0)
        self.assertGreater(lag()["lag_bytes"], 0)
        self.assertRegex(self.ctl(n1, "status").stdout,
                         r"n3 follows, not counted, is away: \d+ records, [^,]+, \d+\.\d s behind")
        self.assertIn("SECONDS", self.ctl(n1, "volume", "show", "v").stdout)
        cluster.start_node(n3)
        wait_for(lambda: lag()["lag_ms"] == 0 and lag()["lag_records"] == 0, "n3 does not follow", 60)
        cluster.kill_node(n2)
        self.wait_told(cluster, n1, "MEMBER_MISSING")
        self.wait_told(cluster, n1, "NO_QUORUM")
        cluster.start_node(n2)
        self.wait_told(cluster, n1, "NO_QUORUM", there=False)
        self.wait_told(cluster, n1, "MEMBER_MISSING", there=False)
        cluster.kill_node(n1)   # whoever is left cannot lead alone
        self.wait_told(cluster, n2, "VOLUME_UNAVAILABLE")
        cluster.start_node(n1)
        self.wait_told(cluster, n2, "VOLUME_UNAVAILABLE", there=False)

    def test_a_certificate_that_ends_is_told(self):
        cluster = self.start(2)
        n1, n2 = cluster.state["nodes"]
        cluster.kill_node(n2)
        self.sign_again(cluster, "n2", days=5)
        cluster.start_node(n2)
        cluster.wait_serving(n2)
        self.wait_told(cluster, n2, "CERTIFICATE_ENDS",
                       r"The certificate \S+n2.crt expires on .*; replace it")

    def sign_again(self, cluster, name, days):
        def certs(end):
            return cluster.path("certs", end)
        with open(certs("ext"), "w") as f:
            f.write(f"subjectAltName=DNS:{name}\nbasicConstraints=critical,CA:FALSE\n"
                    "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
        run(["openssl", "req", "-new", "-sha256", "-key", certs(name + ".key"), "-subj",
             f"/O=packmoor/CN={name}", "-out", certs("request")])
        run(["openssl", "x509", "-req", "-sha256", "-in", certs("request"), "-CA", certs("ca.crt"),
             "-CAkey", certs("ca.key"), "-set_serial", "4711", "-days", str(days), "-extfile",
             certs("ext"), "-out", certs(name + ".crt")])


if __name__ == "__main__":
    unittest.main()
