"""Loss that cannot be repaired, with real processes: a pair's survivor is lost with what only it had. The
partner never leads by itself; an operator is shown what is lost, types the volume's name, and the volume
goes on. The survivor that returns is diverged until it is discarded. Every verb: text, JSON, exit code."""
import json

from harness import CTL, PackmoorTest, git, run, unittest, wait_for


class Loss(PackmoorTest):
    def ask(self, node, *arguments):
        return json.loads(run([CTL, "--socket", node["control"], "--json", *arguments]).stdout)

    def refused(self, node, sentence, *arguments, code=1):
        self.assertIn(sentence, self.ctl(node, *arguments, code=code).stderr)

    def log(self, cluster, node):
        with open(cluster.log_of(node), encoding="utf-8", errors="replace") as f:
            return f.read()

    def health(self, cluster, node):
        return {h["code"]: h["message"] for h in (cluster.status(node) or {}).get("health") or []}

    def wait_health(self, cluster, node, code):
        self.wait_told(cluster, node, code)
        return self.health(cluster, node)[code]

    def show(self, node, volume):
        return self.ask(node, "volume", "show", volume)

    def wait_counted(self, node, volume, counted):
        def reached():
            found = self.show(node, volume)
            names = sorted(m["node"] for m in found["members"] if m["counted"])
            return names == counted and found["phase"] == "active"
        wait_for(reached, f"{volume} does not come to {counted}", 60)

    def push(self, node, work, branch):
        commit = self.commit(work, branch, branch)
        def pushed():
            return git("push", "-q", self.url(node, "p"), f"HEAD:refs/heads/{branch}", cwd=work,
                       check=False).returncode == 0
        wait_for(pushed, f"{branch} cannot be pushed", 60)
        return commit

    def test_a_lost_survivor_is_accepted_and_comes_back_diverged(self):
        cluster = self.start(3)
        n1, n2, n3 = cluster.state["nodes"]
        self.ctl(n1, "volume", "create", "p", "--members", "n1,n2", "--pair")
        self.ctl(n1, "repo", "create", "p", "--volume", "p")
        work = self.work()
        self.push(n1, work, "both")
        nothing = self.ask(n1, "volume", "lost-writes", "p")
        self.assertFalse(nothing["beyond_repair"])
        self.assertIn("Nothing is known to be lost", self.ctl(n3, "volume", "lost-writes", "p").stdout)
        self.refused(n1, "leads the volume", "volume", "accept-loss", "p", "--yes-i-lose-data", "p")
        self.refused(n1, "not diverged", "volume", "discard-diverged", "p", "--yes-i-lose-data", "p")
        self.refused(n1, "no volume of this name", "volume", "lost-writes", "nothing")

        cluster.kill_node(n1)
        self.wait_counted(n2, "p", ["n2"])
        only = self.push(n2, work, "only")
        cluster.kill_node(n2)
        cluster.start_node(n1)
        consent = self.wait_health(cluster, n1, "NO_CONSENT")
        self.assertIn("missing: n2", consent)
        self.assertIn("accept-loss p", consent)
        self.assertIn("NO_CONSENT", self.log(cluster, n1))
        self.assertIn("missing: n2", self.ctl(n1, "status").stdout)
        self.assertIn("missing: n2", self.show(n1, "p")["no_consent"])

        lost = self.ask(n3, "volume", "lost-writes", "p")     # of a node that is no member, too
        self.assertTrue(lost["beyond_repair"])
        self.assertEqual((lost["keep"], lost["ignore"], lost["leader"]), (["n1"], ["n2"], "n1"))
        self.assertEqual(lost["ranges"][-1]["last"], 0)
        self.assertEqual(lost["writes"], [])
        said = self.ctl(n1, "volume", "lost-writes", "p").stdout
        self.assertIn("No takeover is possible", said)
        self.assertIn("nobody that can be asked knows", said)

        self.refused(n3, "not the volume's name", "volume", "accept-loss", "p", "--yes-i-lose-data", "q")
        wrong = run([CTL, "--socket", n3["control"], "volume", "accept-loss", "p"], check=False,
                    data=b"main\n")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("type the volume's name, p", wrong.stdout)
        self.assertEqual(run([CTL, "--json", "--socket", n3["control"], "volume", "accept-loss", "p"],
                             check=False).returncode, 2)
        self.assertEqual(self.show(n1, "p")["losses"], [])

        # Ordered at one node, carried out at another.
        accepted = run([CTL, "--socket", n3["control"], "volume", "accept-loss", "p"], data=b"p\n")
        self.assertIn("goes on from record", accepted.stdout)
        self.assertIn("led by n1", accepted.stdout)
        audit = self.log(cluster, n3)
        self.assertIn("Accepting the loss of volume p without n2, ordered by user id", audit)
        self.assertIn("The loss was accepted", audit)
        self.assertIn("DATA_LOST", self.log(cluster, n1))
        told = self.wait_health(cluster, n1, "DATA_LOST")
        self.assertIn("without what only n2 held", told)
        self.assertIn("user id", told)
        self.assertIn("on n3", told)
        self.assertIn("(DATA_LOST)", self.ctl(n1, "status").stdout)
        self.assertNotIn("NO_CONSENT", self.health(cluster, n1))
        self.push(n1, work, "after")
        self.assertNotIn("refs/heads/only", self.refs(n1, "p"))

        cluster.start_node(n2)
        diverged = self.wait_health(cluster, n2, "MEMBER_DIVERGED")
        self.assertIn("discard-diverged p", diverged)
        self.assertIn("MEMBER_DIVERGED", self.log(cluster, n2))
        self.assertIn("(MEMBER_DIVERGED)", self.ctl(n2, "status").stdout)
        for policy in ("available", "linearizable"):     # what it has is not the volume's history
            read = git("ls-remote", self.url(n2, "p"), check=False,
                       config=[f"http.extraHeader=Packmoor-Read: {policy}"])
            self.assertNotEqual(read.returncode, 0, policy)
        lost = self.ask(n3, "volume", "lost-writes", "p")
        pushes = [w for w in lost["writes"] if w["what"] == "push"]
        self.assertEqual(len(pushes), 1, lost)
        self.assertEqual((pushes[0]["repository"], pushes[0]["held_by"]), ("p", "n2"))
        self.assertEqual([(r["name"], r["new_id"]) for r in pushes[0]["refs"]],
                         [("refs/heads/only", only)])
        said = self.ctl(n3, "volume", "lost-writes", "p").stdout
        self.assertIn("push in p by somebody anonymous", said)
        self.assertIn(f"refs/heads/only (none) -> {only[:12]}", said)
        self.assertEqual(self.show(n1, "p")["primary"], "n1")
        self.wait_counted(n1, "p", ["n1"])

        self.refused(n2, "not the volume's name", "volume", "discard-diverged", "p",
                     "--yes-i-lose-data", "q")
        done = self.ctl(n2, "volume", "discard-diverged", "p", "--yes-i-lose-data", "p").stdout
        self.assertIn("begins anew as an empty member", done)
        self.assertIn("refs/heads/only", self.log(cluster, n2))
        self.wait_counted(n1, "p", ["n1", "n2"])
        self.wait_told(cluster, n2, "MEMBER_DIVERGED", there=False)
        self.assertEqual(self.refs(n2, "p"), self.refs(n1, "p"))

        self.assertTrue(self.ask(n2, "volume", "acknowledge-loss", "p")["losses"][0]["acknowledged"])
        wait_for(lambda: "DATA_LOST" not in self.health(cluster, n1), "DATA_LOST is told still", 60)
        self.refused(n1, "no accepted loss", "volume", "acknowledge-loss", "p")
        self.assertIn("Accepted at", self.ctl(n1, "volume", "lost-writes", "p").stdout)

    def test_an_async_standby_is_promoted_when_the_counted_members_are_lost(self):
        cluster = self.start(4)
        n1, n2, n3, n4 = cluster.state["nodes"]
        self.ctl(n4, "volume", "create", "p", "--members", "n1,n2", "--write-quorum", "2")
        wait_for(lambda: self.show(n1, "p")["role"] == "primary", "n1 does not lead p", 60)
        self.ctl(n4, "volume", "add-member", "p", "n3", "--async")
        self.ctl(n1, "repo", "create", "p", "--volume", "p")
        work = self.work()
        self.push(n1, work, "a")
        wait_for(lambda: self.show(n3, "p")["applied"] == self.show(n1, "p")["applied"],
                 "n3 does not follow", 60)
        self.ctl(n4, "volume", "set-weight", "p", "0")
        cluster.kill_node(n1)
        cluster.kill_node(n2)
        self.assertIn("missing: n1, n2", self.wait_health(cluster, n3, "NO_CONSENT"))
        shown = run([CTL, "--socket", n3["control"], "volume", "promote", "p", "n3"], check=False,
                    data=b"no\n")
        self.assertEqual(shown.returncode, 1)
        self.assertIn("n1, n2 together can acknowledge writes", shown.stdout)
        self.ctl(n3, "volume", "promote", "p", "n3", "--yes-i-lose-data", "p")
        self.wait_counted(n3, "p", ["n3"])
        self.push(n3, work, "b")
        cluster.start_node(n1)
        cluster.start_node(n2)
        # They hold nothing else, and so come back by themselves.
        self.wait_counted(n3, "p", ["n1", "n2", "n3"])
        self.assertEqual(self.refs(n1, "p"), self.refs(n3, "p"))


if __name__ == "__main__":
    unittest.main()
