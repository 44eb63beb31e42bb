"""How new what a client fetches must be: linearizable by default, at least an index that a push was told,
or whatever the node has, with its age."""
import re

from harness import PackmoorTest, git, os, signal, unittest, wait_for
from urllib.error import HTTPError
from urllib.request import Request, urlopen


class Reads(PackmoorTest):
    def ask(self, node, policy):
        """Status, the header Packmoor-Read and the text of an advertisement."""
        request = Request(self.url(node) + "/info/refs?service=git-upload-pack",
                          headers={"Packmoor-Read": policy} if policy else {})
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers["Packmoor-Read"], answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, None, error.read().decode()

    def fetch(self, node, policy):
        return git("ls-remote", self.url(node), config=[f"http.extraHeader=Packmoor-Read: {policy}"])

    def push(self, work, node):
        # Without a terminal git asks for quiet, unless it is told to show progress.
        said = git("push", "--progress", self.url(node), "main", cwd=work).stderr
        found = re.search(r"remote: Packmoor: durable on 2 of 3 members at (main:\d+)", said)
        self.assertTrue(found, said)
        return found.group(1)

    def test_policies(self):
        cluster = self.start(3, extra='\n[replication]\nsegment = "4 MiB"\n'
                                      'propose_timeout_ms = 1500\nread_timeout_ms = 1500\n')
        n1, n2, n3 = cluster.state["nodes"]
        self.ctl(n1, "repo", "create", "r")
        work = self.work()
        for round_ in range(5):
            head = self.commit(work, "f", f"{round_}")
            at = self.push(work, n2)
            for node in (n1, n2, n3):
                self.assertIn(head, self.fetch(node, f"at-least={at}").stdout)
                self.assertIn(head, self.fetch(node, "linearizable").stdout)

        for wrong in ("newest", "at-least=", "at-least=main", "at-least=main:x", "at-least=:1"):
            status, _, text = self.ask(n1, wrong)
            self.assertEqual(status, 400)
            self.assertIn("at-least=VOLUME:INDEX", text)
        status, _, text = self.ask(n1, "at-least=other:1")
        self.assertEqual(status, 400)
        self.assertIn("no volume 'other'", text)

        # With the quorum gone, what is there is shown, and how old it may be.
        primary = next(node for node in (n1, n2, n3)
                       if cluster.status(node)["volumes"][0]["role"] == "primary")
        left = next(node for node in (n1, n2, n3) if node is not primary)
        self.wait_level(cluster)
        status, note, _ = self.ask(left, "available")
        self.assertEqual(status, 200)
        self.assertRegex(note, r"^available=main:\d+; stale-ms=\d+$")
        stopped = [node for node in (n1, n2, n3) if node is not left]
        for node in stopped:
            os.kill(node["pid"], signal.SIGSTOP)
        try:
            def old():
                status, note, text = self.ask(left, "available")
                self.assertEqual(status, 200, text)
                self.assertIn(head, text)
                return int(note.rsplit("=", 1)[1]) > 500
            wait_for(old, "the age does not grow", 60)
            status, note, text = self.ask(left, f"at-least={at}")
            self.assertEqual((status, note), (200, None))
            self.assertIn(head, text)
            status, _, text = self.ask(left, None)
            self.assertEqual(status, 503, text)
        finally:
            for node in stopped:
                os.kill(node["pid"], signal.SIGCONT)
        wait_for(lambda: self.ask(left, None)[0] == 200, "reads are not confirmed again", 60)


if __name__ == "__main__":
    unittest.main()
