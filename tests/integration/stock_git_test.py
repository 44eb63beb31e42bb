"""Stock git against one node and, the very same commands, against a bare repository on disk: what git
prints for each ref, its exit code, and the refs afterwards must be the same. Then what needs more
than one client, and each protocol version."""
import json
import threading

from harness import GIT_ENVIRONMENT, PackmoorTest, git, os, re, run, unittest


class AsStockGit(PackmoorTest):
    """self.both() runs a push against Packmoor and against stock git."""

    def setUp(self):
        super().setUp()
        cluster = self.start()
        self.node = cluster.state["nodes"][0]
        self.ctl(self.node, "repo", "create", "r")
        self.stock = os.path.join(self.folder, "stock.git")
        git("init", "-q", "--bare", "-b", "main", self.stock)
        self.source = self.work()

    def both(self, *arguments, code=0, says=(), config=()):
        """What git prints for each ref, which must be the same for both."""
        outcomes = []
        for target in (self.url(self.node), self.stock):
            options = [a for a in arguments if a.startswith("-")]
            refspecs = [a for a in arguments if not a.startswith("-")]
            result = git("push", "--porcelain", *options, target, *refspecs, cwd=self.source,
                         check=False, config=config)
            lines = [line for line in result.stdout.splitlines() if not line.startswith("To ")]
            outcomes.append((result.returncode, sorted(lines)))
        self.assertEqual(outcomes[0], outcomes[1], "Packmoor and stock git differ")
        self.assertEqual(outcomes[0][0], code, outcomes[0])
        for part in says:
            self.assertIn(part, "\n".join(outcomes[0][1]))
        listed = [git("ls-remote", target).stdout for target in (self.url(self.node), self.stock)]
        self.assertEqual(listed[0], listed[1], "the refs differ afterwards")
        return outcomes[0][1]

    def refs_of_stock(self):
        lines = git("ls-remote", self.stock).stdout.splitlines()
        return {name: oid for oid, name in (line.split("\t") for line in lines)}

    def test_branches(self):
        first = self.commit(self.source, "a", "1")
        self.both("main", says=["[new branch]"])
        self.both("main", says=["[up to date]"])
        second = self.commit(self.source, "a", "2")
        self.both("main", says=[f"{first[:7]}..{second[:7]}"])
        self.both("main:refs/heads/deep/er/branch", "main:other", says=["[new branch]"])
        git("reset", "-q", "--hard", first, cwd=self.source)
        self.commit(self.source, "a", "3")
        self.both("main", code=1, says=["[rejected] (non-fast-forward)"])
        self.both("--force", "main", says=["(forced update)"])
        self.both("+main:other", says=["(forced update)"])
        self.both(":other", says=["[deleted]"])
        self.both("--delete", "deep/er/branch", says=["[deleted]"])
        self.both(":nothing", code=1)
        self.both("--force-with-lease=main:" + first, "main~1:main", code=1, says=["(stale info)"])
        for version in (0, 1, 2):
            self.both(f"main:refs/heads/v{version}", config=[f"protocol.version={version}"],
                      says=["[new branch]"])
        self.both("--prune", "--all")
        self.assert_clone_equals(self.node, self.source)

    def test_what_the_other_side_has_and_the_client_has_not(self):
        self.commit(self.source, "a", "1")
        self.both("main")
        other = self.work("other")
        git("pull", "-q", self.stock, "main", cwd=other)
        self.commit(other, "b", "news")
        for target in (self.url(self.node), self.stock):
            git("push", "-q", target, "main", cwd=other)
        self.commit(self.source, "a", "2")
        self.both("main", code=1, says=["[rejected] (fetch first)"])
        git("pull", "-q", "--rebase", self.url(self.node), "main", cwd=self.source)
        self.both("main")

    def test_tags(self):
        self.commit(self.source, "a", "1")
        git("tag", "light", cwd=self.source)
        git("tag", "-am", "one", "v1", cwd=self.source)
        git("tag", "-am", "of a tag", "v1-again", "v1", cwd=self.source)
        git("tag", "-am", "of a tree", "tree", "main^{tree}", cwd=self.source)
        git("tag", "-am", "of a blob", "blob", "main:a", cwd=self.source)
        self.both("main", "--tags", says=["[new tag]"])
        self.commit(self.source, "a", "2")
        git("tag", "-fam", "moved", "v1", cwd=self.source)
        self.both("v1", code=1, says=["[rejected] (already exists)"])
        self.both("--force", "v1", "--follow-tags", "main")
        self.both(":refs/tags/light", ":refs/tags/blob", says=["[deleted]"])
        self.assert_clone_equals(self.node, self.stock)

    def test_atomic(self):
        first = self.commit(self.source, "a", "1")
        self.both("--atomic", "main", "main:b", "main:c", says=["[new branch]"])
        self.commit(self.source, "a", "2")
        self.both("--atomic", "main", ":b", "main:d")
        git("reset", "-q", "--hard", first, cwd=self.source)
        self.commit(self.source, "a", "3")
        refused = self.both("--atomic", "main", "main:e", code=1, says=["(non-fast-forward)"])
        self.assertIn("(atomic push failed)", "".join(refused))
        self.both("main", "main:e", code=1, says=["[new branch]", "[rejected]"])

    def test_what_only_the_server_refuses(self):
        self.commit(self.source, "a", "1")
        self.both("main", "main:dir/branch")
        self.both(":main", code=1, says=["[remote rejected] (deletion of the current branch prohibited)"])
        self.both("--atomic", ":main", "main:new", code=1, says=["[remote rejected]"])
        for name in ("dir/branch/below", "dir"):
            refused = git("push", self.url(self.node), f"main:refs/heads/{name}", cwd=self.source,
                          check=False)
            self.assertIn("[remote rejected]", refused.stderr)
            self.assertRegex(refused.stderr, f"cannot lock ref 'refs/heads/{name}': .+ exists")
            self.both(f"main:{name}", code=1, says=["[remote rejected] (failed to update ref)"])
        self.both("main:dir", "main:fine", code=1, says=["[remote rejected]", "[new branch]"])
        self.both("main:a..x", code=128)
        self.both("main:refs/heads/a", "main^{tree}:refs/heads/tree", code=1,
                  says=["[remote rejected]", "[new branch]"])
        self.assert_clone_equals(self.node, self.stock)

    def test_large_and_thin_packs(self):
        text = "".join(f"line {i}\n" for i in range(20_000))
        self.commit(self.source, "large", os.urandom(3 << 20))
        self.commit(self.source, "text", text)
        self.both("main", says=["[new branch]"])
        for i in range(3):
            text = text.replace(f"line {i * 5000}\n", f"changed {i}\n")
            self.commit(self.source, "text", text)
            self.commit(self.source, f"more{i}", os.urandom(400_000) if i == 1 else "small\n")
            self.both("--thin", "main")
        self.both("--no-thin", "main:again")
        for i in range(60):
            self.commit(self.source, f"dir/file{i}", f"{i}\n" * 50)
        self.both("main", config=["pack.window=0", "http.postBuffer=1000"])
        self.assert_clone_equals(self.node, self.source)


class Clients(PackmoorTest):
    def setUp(self):
        super().setUp()
        self.cluster = self.start()
        self.node = self.cluster.state["nodes"][0]
        self.ctl(self.node, "repo", "create", "r")

    def at_once(self, count, job):
        """Runs job(0) to job(count - 1) at the same time; their results."""
        results, gate = [None] * count, threading.Barrier(count)

        def one(i):
            gate.wait()
            results[i] = job(i)
        threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def clones(self, count):
        base = self.work("base")
        self.commit(base, "a", "1")
        git("push", "-q", self.url(self.node), "main", cwd=base)
        paths = [os.path.join(self.folder, f"clone{i}") for i in range(count)]
        for i, path in enumerate(paths):
            git("clone", "-q", self.url(self.node), path)
            self.commit(path, f"file{i}", os.urandom(300_000 if i % 2 else 100))
        return paths

    def test_pushes_to_different_branches_at_once(self):
        paths = self.clones(6)
        results = self.at_once(6, lambda i: git("push", "origin", f"HEAD:refs/heads/b{i}",
                                                cwd=paths[i], check=False))
        self.assertEqual([r.returncode for r in results], [0] * 6, [r.stderr for r in results])
        refs = self.refs(self.node)
        for i, path in enumerate(paths):
            self.assertEqual(refs[f"refs/heads/b{i}"],
                             git("rev-parse", "HEAD", cwd=path).stdout.strip())
        self.verify(self.cluster)

    def test_pushes_to_one_branch_at_once(self):
        paths = self.clones(6)
        results = self.at_once(6, lambda i: git("push", "--porcelain", "origin", "main",
                                                cwd=paths[i], check=False))
        winners = [i for i, r in enumerate(results) if r.returncode == 0]
        self.assertEqual(len(winners), 1, [r.stdout + r.stderr for r in results])
        for i, result in enumerate(results):
            if i not in winners:
                # Who saw the old value is refused by the server, who saw the new one by git itself.
                self.assertRegex(result.stdout, r"!\t.*\[(remote )?rejected\] \(.+\)")
        self.assertEqual(self.refs(self.node)["refs/heads/main"],
                         git("rev-parse", "HEAD", cwd=paths[winners[0]]).stdout.strip())
        # Each comes in after the others: nothing is lost on the way.
        for i, path in enumerate(paths):
            if i not in winners:
                git("pull", "-q", "--rebase", cwd=path)
                git("push", "-q", cwd=path)
        final = os.path.join(self.folder, "final")
        git("clone", "-q", self.url(self.node), final)
        self.assertEqual(sorted(os.listdir(final))[1:], ["a"] + [f"file{i}" for i in range(6)])

    def test_fetches_of_each_protocol_version(self):
        work = self.work()
        for i in range(5):
            self.commit(work, f"file{i}", os.urandom(100_000))
        git("tag", "-am", "t", "v1", cwd=work)
        git("push", "-q", "--tags", self.url(self.node), "main", "main~2:refs/heads/side", cwd=work)
        for version in (0, 1, 2):
            with self.subTest(version=version):
                config = [f"protocol.version={version}"]
                clone = os.path.join(self.folder, f"v{version}")
                git("clone", "-q", "--single-branch", "-b", "side", self.url(self.node), clone,
                    config=config)
                self.assertEqual(len(os.listdir(clone)), 1 + 3)
                git("fetch", "-q", self.url(self.node), "main:main", "--tags", cwd=clone,
                    config=config)
                self.assertEqual(git("rev-parse", "main", "v1", cwd=clone).stdout,
                                 git("rev-parse", "main", "v1", cwd=work).stdout)
                git("fsck", "--full", "--strict", cwd=clone)
                # Nothing new, and something that is not there.
                git("fetch", "-q", self.url(self.node), "main", cwd=clone, config=config)
                missing = git("fetch", self.url(self.node), "none", cwd=clone, config=config,
                              check=False)
                self.assertEqual(missing.returncode, 128)
                self.assertIn("couldn't find remote ref none", missing.stderr)

    def test_sessions_of_clients_are_in_the_log(self):
        work = self.work()
        self.commit(work, "a", "1")
        url = self.url(self.node)
        for version in (0, 1, 2):
            clone = os.path.join(self.folder, f"clone{version}")
            for verb, words in (("push", [url, f"main:refs/heads/v{version}"]), ("fetch", [url, clone])):
                with self.subTest(version=version, verb=verb):
                    trace = os.path.join(self.folder, f"trace-{verb}-{version}")
                    run(["git", "-c", "transfer.advertiseSID=true", "-c", f"protocol.version={version}",
                         verb.replace("fetch", "clone"), "-q", *words], cwd=work,
                        environment={**GIT_ENVIRONMENT, "GIT_TRACE2_EVENT": trace})
                    with open(trace) as f:
                        sessions = {json.loads(line)["sid"] for line in f}
                    # Which of the processes that git consists of speaks is git's affair.
                    self.wait_line(self.clusters[0], self.node,
                                   rf"A client told its session \(what: {verb}\) "
                                   rf"\(session: ({'|'.join(map(re.escape, sessions))})\)")

    def test_empty_repositories_and_heads(self):
        for version in (0, 1, 2):
            clone = os.path.join(self.folder, f"empty{version}")
            made = git("clone", self.url(self.node), clone, config=[f"protocol.version={version}",
                                                                    "init.defaultBranch=elsewhere"])
            self.assertIn("You appear to have cloned an empty repository.", made.stderr)
            # Only protocol 2 tells of a branch that is not born yet.
            head = git("symbolic-ref", "HEAD", cwd=clone).stdout.strip()
            self.assertEqual(head, "refs/heads/main" if version == 2 else "refs/heads/elsewhere")
        self.ctl(self.node, "repo", "create", "t", "--head", "trunk")
        work = self.work()
        self.commit(work, "a", "1")
        git("push", "-q", self.url(self.node, "t"), "main", cwd=work)
        listed = git("ls-remote", "--symref", self.url(self.node, "t")).stdout
        self.assertNotIn("HEAD", listed)  # it names a branch that is not there
        git("push", "-q", self.url(self.node, "t"), "main:trunk", cwd=work)
        listed = git("ls-remote", "--symref", self.url(self.node, "t")).stdout
        self.assertTrue(listed.startswith("ref: refs/heads/trunk\tHEAD\n"), listed)
        for version in (0, 1, 2):
            clone = os.path.join(self.folder, f"trunk{version}")
            git("clone", "-q", self.url(self.node, "t"), clone, config=[f"protocol.version={version}"])
            self.assertEqual(git("symbolic-ref", "HEAD", cwd=clone).stdout.strip(),
                             "refs/heads/trunk")


if __name__ == "__main__":
    unittest.main()
