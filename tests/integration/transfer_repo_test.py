"""`repo import` and `repo export`: whole repositories in and out, broken off and gone on with."""
import json

from harness import CTL, GIT_ENVIRONMENT, PackmoorTest, git, os, run, signal, subprocess, unittest, wait_for


class TransferRepo(PackmoorTest):
    def history(self, commits=60):
        work = self.work()
        for i in range(commits):
            self.commit(work, f"d{i % 5}/f{i % 17}", f"{i}\n" * 50)
            if i % 20 == 10:
                git("branch", f"side{i}", cwd=work)
                git("tag", "-a", f"v{i}", "-m", f"version {i}", cwd=work)
        git("notes", "add", "-m", "a note", cwd=work)
        return work

    def objects(self, folder):
        return sorted(git("rev-list", "--objects", "--no-object-names", "--all", cwd=folder).stdout.split())

    def refs_of(self, folder):
        return git("for-each-ref", "--format=%(objectname) %(refname)", cwd=folder).stdout

    def test_a_repository_goes_in_and_out(self):
        cluster = self.start(nodes=3)
        primary, node = cluster.state["nodes"][:2]
        work = self.history()
        bare = os.path.join(self.folder, "bare.git")
        git("clone", "-q", "--mirror", work, bare)
        said = self.ctl(node, "repo", "import", "team/app", bare, "--commits-per-push", "7", "--check")
        self.assertRegex(said.stdout, r"^Repository team/app is imported: \d+ refs, 61 commits; the refs are "
                                      r"equal, and so are \d+ objects\.\n$")
        self.assertEqual(self.refs(primary, "team/app")["HEAD"],
                         git("rev-parse", "main", cwd=work).stdout.strip())
        out = os.path.join(self.folder, "out.git")
        said = self.ctl(primary, "repo", "export", "team/app", out, "--check")
        self.assertIn("and git found every object in order", said.stdout)
        self.assertEqual(self.refs_of(out), self.refs_of(bare))
        self.assertEqual(self.objects(out), self.objects(bare))
        git("fsck", "--full", "--strict", cwd=out)
        # Asked again, there is nothing to do; programs get numbers.
        again = json.loads(self.ctl(node, "--json", "repo", "import", "team/app", bare).stdout)
        self.assertEqual((again["name"], again["commits"]), ("team/app", 61))
        other = os.path.join(self.folder, "out2.git")
        self.assertEqual(json.loads(self.ctl(node, "--json", "repo", "export", "team/app", other).stdout)
                         ["refs"], again["refs"])
        self.wait_level(cluster)
        self.verify(cluster)

    def test_a_bundle_and_what_is_refused(self):
        cluster = self.start()
        node = cluster.state["nodes"][0]
        work = self.history(25)
        bundle = os.path.join(self.folder, "all.bundle")
        git("bundle", "create", "-q", bundle, "--all", "HEAD", cwd=work)
        self.ctl(node, "repo", "import", "fromb", bundle, "--check")
        self.assertIn("refs/notes/commits", self.refs(node, "fromb"))
        # What has refs of its own is not imported over.
        self.ctl(node, "repo", "create", "own")
        self.commit(work, "more", "x")
        git("push", "-q", self.url(node, "own"), "main:other", cwd=work)
        refused = self.ctl(node, "repo", "import", "own", work, code=1)
        self.assertIn("error: Repository own has refs of its own.\n", refused.stderr)
        self.assertIn("refs/heads/other", refused.stderr)
        nothing = self.ctl(node, "repo", "import", "n", os.path.join(self.folder, "nothing"), code=1)
        self.assertIn("error: git did not do it.\n", nothing.stderr)
        there = self.ctl(node, "repo", "export", "fromb", self.folder, code=1)
        self.assertIn(f"There is something at {self.folder} already.", there.stderr)
        missing = self.ctl(node, "repo", "export", "none", os.path.join(self.folder, "o"), code=1)
        self.assertIn("there is no repository 'none'", missing.stderr)
        self.ctl(node, "repo", "import", "x", code=2)

    def test_an_import_that_is_killed_goes_on(self):
        cluster = self.start(nodes=3)
        node = cluster.state["nodes"][1]
        work = self.history(200)
        command = [CTL, "--socket", node["control"], "repo", "import", "r", work, "--commits-per-push", "10"]
        slices = set()
        for least in (2, 6, 11):
            child = subprocess.Popen(command, env=GIT_ENVIRONMENT, stderr=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, start_new_session=True)
            wait_for(lambda: len(self.slices(node)) >= least or child.poll() is not None, "no slice came")
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self.assertLessEqual(slices, self.slices(node), "a slice was lost")
            slices = self.slices(node)
        self.assertGreaterEqual(len(slices), 11)
        said = run(command + ["--check"])
        self.assertEqual(len(said.stderr.splitlines()), 20 - len(slices), said.stderr)
        self.assertEqual(self.slices(node), set())
        self.wait_level(cluster)
        self.verify(cluster)

    def slices(self, node):
        listed = git("ls-remote", self.url(node), check=False).stdout.splitlines()
        return {line for line in listed if "refs/packmoor/import/" in line}


if __name__ == "__main__":
    unittest.main()
