"""Clients that are not stock git: dulwich, libgit2 through pygit2, JGit, isomorphic-git. Each clones,
commits, pushes, fetches, makes and deletes a branch, beside stock git in the same repository."""
from harness import GIT_ENVIRONMENT, ROOT, PackmoorTest, git, os, run, shutil, unittest

CLIENTS = os.path.join(ROOT, "tests", "clients")
NODE_MODULES = os.path.join(ROOT, "build", "clients", "node_modules")
JARS = "/usr/share/java"
# The distribution's Python has the distribution's packages.
PYTHON = "/usr/bin/python3"


class Clients(PackmoorTest):
    def drive(self, *program, environment=None):
        """The scenario, with the program's verbs."""
        cluster = self.start(nodes=3)
        primary, node = cluster.state["nodes"][:2]
        self.ctl(primary, "repo", "create", "r")
        work, theirs = self.work(), os.path.join(self.folder, "theirs")
        for i in range(20):
            self.commit(work, f"d{i % 3}/f{i}", f"{i}\n" * 200)
        git("tag", "-a", "v1", "-m", "first", cwd=work)
        git("push", "-q", "--follow-tags", self.url(primary), "main", cwd=work)

        def client(*words):
            return run([*program, *words], environment={**GIT_ENVIRONMENT, "HOME": self.folder,
                                                        **(environment or {})}).stdout.strip()

        client("clone", self.url(node), theirs)
        git("fsck", "--full", "--strict", cwd=theirs)
        self.assertEqual(git("rev-parse", "refs/heads/main", "refs/tags/v1", cwd=theirs).stdout,
                         git("rev-parse", "main", "v1", cwd=work).stdout)
        # It pushes what git fetches, and the other way round.
        commit = client("commit", theirs, "new.txt", "by the client\n")
        client("push", theirs, "main")
        self.assertEqual(self.refs(primary)["refs/heads/main"], commit)
        git("pull", "-q", "--ff-only", self.url(primary), "main", cwd=work)
        for i in range(3):
            newest = self.commit(work, f"news{i}", "by git\n")
        git("push", "-q", self.url(primary), "main", cwd=work)
        client("fetch", theirs)
        self.assertEqual(git("rev-parse", "refs/heads/main", cwd=theirs).stdout.strip(), newest)
        # A branch comes and goes.
        client("push", theirs, "main:side")
        self.assertEqual(self.refs(primary)["refs/heads/side"], newest)
        client("push", theirs, ":side")
        self.assertNotIn("refs/heads/side", self.refs(primary))
        # What is no fast-forward is refused, and the client says so.
        git("reset", "-q", "--hard", "HEAD~1", cwd=theirs)
        client("commit", theirs, "late.txt", "too late\n")
        late = run([*program, "push", theirs, "main"], check=False,
                   environment={**GIT_ENVIRONMENT, "HOME": self.folder, **(environment or {})})
        self.assertNotEqual(late.returncode, 0, late.stderr)
        self.assertEqual(self.refs(primary)["refs/heads/main"], newest)
        self.wait_level(cluster)
        for each in cluster.state["nodes"]:
            self.assert_clone_equals(each, work)
        self.verify(cluster)

    def test_dulwich(self):
        self.drive(PYTHON, os.path.join(CLIENTS, "dulwich_client.py"))

    def test_pygit2(self):
        self.drive(PYTHON, os.path.join(CLIENTS, "pygit2_client.py"))

    def test_jgit(self):
        jars = ":".join(os.path.join(JARS, name) for name in
                        ("org.eclipse.jgit.jar", "slf4j-api.jar", "slf4j-nop.jar", "JavaEWAH.jar"))
        classes = os.path.join(self.folder, "classes")
        run(["javac", "-cp", jars, "-d", classes, os.path.join(CLIENTS, "JgitClient.java")])
        self.drive("java", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}:{classes}", "JgitClient")

    @unittest.skipUnless(os.path.isdir(NODE_MODULES), "npm could not install isomorphic-git")
    def test_isomorphic_git(self):
        self.drive(shutil.which("node"), os.path.join(CLIENTS, "isomorphic_client.js"),
                   environment={"PACKMOOR_NODE_MODULES": NODE_MODULES})


if __name__ == "__main__":
    unittest.main()
