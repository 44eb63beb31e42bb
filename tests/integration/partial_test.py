"""Shallow and partial clones over HTTP, where each round of a fetch is a request of its own: with every
protocol version, what is there at last is what was pushed."""
from harness import PackmoorTest, git, os, unittest

VERSIONS = (0, 1, 2)


class Partial(PackmoorTest):
    def setUp(self):
        super().setUp()
        cluster = self.start()
        self.node = cluster.state["nodes"][0]
        self.ctl(self.node, "repo", "create", "r")
        self.source = self.work()
        for i in range(6):
            os.makedirs(os.path.join(self.source, "deep", "er"), exist_ok=True)
            self.commit(self.source, "deep/er/file", f"{i}\n" * 1000)
            self.commit(self.source, f"file{i}", os.urandom(2000))
        self.commit(self.source, "chosen", "/file0\n/chosen\n")
        git("tag", "-am", "t", "v1", "main~4", cwd=self.source)
        git("checkout", "-q", "-b", "side", "main~6", cwd=self.source)
        self.commit(self.source, "side", "s")
        git("checkout", "-q", "main", cwd=self.source)
        self.push("main", "side", "v1")
        # Rewritten once, so that not everything is reachable.
        self.push("+main~1:refs/heads/main")
        self.push("main")

    def push(self, *refs):
        git("push", "-q", self.url(self.node), *refs, cwd=self.source)

    def clone(self, version, *options):
        """With everything that comes later by the same protocol."""
        path = os.path.join(self.folder, f"v{version}" + "".join(options).replace("/", "-"))
        git("clone", "-q", "-c", f"protocol.version={version}", *options, self.url(self.node), path)
        return path

    def commits(self, path, *revisions):
        return int(git("rev-list", "--count", *(revisions or ["HEAD"]), cwd=path).stdout)

    def assert_whole(self, path):
        """Everything of main is there, or comes when it is asked for."""
        self.assertEqual(git("rev-list", "--objects", "origin/main", cwd=path).stdout,
                         git("rev-list", "--objects", "main", cwd=self.source).stdout)
        git("log", "-p", "origin/main", cwd=path)
        git("fsck", "--full", "--strict", cwd=path)

    def test_shallow(self):
        for version in VERSIONS:
            with self.subTest(version=version):
                path = self.clone(version, "--depth=1")
                self.assertEqual(self.commits(path), 1)
                git("fetch", "-q", "--deepen=2", cwd=path)
                self.assertEqual(self.commits(path), 3)
                self.commit(self.source, "news", str(version))
                self.push("main")
                git("fetch", "-q", cwd=path)
                self.assertEqual(self.commits(path, "origin/main"), 4)
                git("fetch", "-q", "--depth=2", "origin", "main", "side", cwd=path)
                self.assertEqual(self.commits(path, "origin/main"), 2)
                git("fsck", "--full", "--strict", cwd=path)
                git("fetch", "-q", "--unshallow", cwd=path)
                self.assert_whole(path)

    def test_cut_by_time_and_by_refs(self):
        since = git("log", "-1", "--format=%ct", "main~3", cwd=self.source).stdout.strip()
        expected = git("rev-list", "--count", f"--max-age={since}", "main", cwd=self.source).stdout
        for version in VERSIONS:
            with self.subTest(version=version):
                path = self.clone(version, f"--shallow-since={since}")
                self.assertEqual(self.commits(path), int(expected))
                path = self.clone(version, "--shallow-exclude=v1")
                self.assertEqual(self.commits(path), 4)
                git("fetch", "-q", "--unshallow", cwd=path)
                self.assert_whole(path)

    def test_partial(self):
        for version in VERSIONS:
            for spec in ("blob:none", "blob:limit=1k", "tree:0", "tree:2", "sparse:oid=main:chosen"):
                with self.subTest(version=version, filter=spec):
                    path = self.clone(version, "--filter=" + spec)
                    missing = git("rev-list", "--objects", "--all", "--missing=print", "--quiet",
                                  cwd=path).stdout
                    self.assertNotEqual(missing, "", "nothing was left out")
                    self.assertEqual(git("status", "--porcelain", cwd=path).stdout, "")
                    self.assert_whole(path)

    def test_objects_that_nothing_reaches(self):
        lost = git("commit-tree", "-m", "lost", "HEAD^{tree}", cwd=self.source).stdout.strip()
        self.push(f"{lost}:refs/heads/gone")
        self.push(":refs/heads/gone")
        for version in VERSIONS:
            fetched = git("fetch", self.url(self.node), lost, cwd=self.work(f"c{version}"),
                          config=[f"protocol.version={version}"], check=False)
            self.assertNotEqual(fetched.returncode, 0)
            self.assertIn(f"not our ref {lost}", fetched.stderr)


if __name__ == "__main__":
    unittest.main()
