"""Git over ssh: a real sshd with packmoor-shell as the forced command of users' keys."""
import filecmp
import socket
import threading

from harness import (BIN, GIT_ENVIRONMENT, PackmoorTest, git, os, run, shutil, signal, subprocess,
                     unittest, wait_for)

SHELL = os.path.join(BIN, "packmoor-shell")
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class Ssh(PackmoorTest):
    def serve(self, nodes=1):
        """A cluster, and an sshd whose git user reaches its first node."""
        cluster = self.start(nodes)
        self.node = cluster.state["nodes"][0]
        self.ctl(self.node, "repo", "create", "team/app")
        self.socket = os.path.join(cluster.folder, self.node["id"], "git.sock")
        wait_for(lambda: os.path.exists(self.socket), "no git socket")
        self.keys = os.path.join(self.folder, "keys")
        for name in ("host", "alice", "mallory"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f",
                 os.path.join(self.folder, name)])
        with open(self.keys, "w") as f:
            f.write("# users\nalice " + self.public("alice") + "\n")
        self.start_sshd()
        return cluster

    def public(self, name):
        with open(os.path.join(self.folder, name + ".pub")) as f:
            return f.read().strip()

    def line_for_sshd(self, name):
        kind, key = self.public(name).split()[:2]
        return run([SHELL, "--socket", self.socket, "authorized-keys", "--program", SHELL, "--keys",
                    self.keys, kind, key])

    def keys_for_sshd(self):
        """sshd runs a helper only from folders that root alone may write; elsewhere its output is put into a
        file."""
        path, secure = os.path.realpath(SHELL), os.getuid() == 0
        while secure and path != "/":
            held = os.stat(path)
            secure = held.st_uid == 0 and held.st_mode & 0o022 == 0
            path = os.path.dirname(path)
        if secure:
            return (f"AuthorizedKeysCommand {os.path.realpath(SHELL)} --socket {self.socket} "
                    f"authorized-keys --program {SHELL} --keys {self.keys} %t %k\n"
                    f"AuthorizedKeysCommandUser root\nAuthorizedKeysFile none\n")
        authorized = os.path.join(self.folder, "authorized_keys")
        with open(authorized, "w") as f:
            f.write(self.line_for_sshd("alice").stdout + self.line_for_sshd("mallory").stdout)
        return f"AuthorizedKeysFile {authorized}\n"

    def start_sshd(self):
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        self.port = self.free_port()
        config = os.path.join(self.folder, "sshd_config")
        with open(config, "w") as f:
            f.write(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\n"
                    f"AcceptEnv GIT_PROTOCOL\nStrictModes no\nPidFile none\nUsePAM no\n"
                    f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                    f"PermitRootLogin prohibit-password\n" + self.keys_for_sshd())
        self.sshd_log = open(os.path.join(self.folder, "sshd.log"), "w")
        self.sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=self.sshd_log)
        self.addCleanup(self.end_sshd)
        wait_for(lambda: self.ssh("alice", "true").returncode != 255, "sshd does not answer")

    def end_sshd(self):
        self.sshd.send_signal(signal.SIGTERM)
        self.sshd.wait(30)
        self.sshd_log.close()

    def free_port(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def ssh_command(self, user):
        return (f"ssh -F /dev/null -p {self.port} -i {self.folder}/{user} -o IdentitiesOnly=yes "
                f"-o IdentityAgent=none -o BatchMode=yes -o StrictHostKeyChecking=no "
                f"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o SendEnv=GIT_PROTOCOL")

    def ssh(self, user, *command):
        return run([*self.ssh_command(user).split(), "127.0.0.1", *command], check=False)

    def git(self, *arguments, user="alice", check=True, cwd=None, config=()):
        options = [part for setting in config for part in ("-c", setting)]
        return run(["git", *options, *arguments], check=check, cwd=cwd,
                   environment={**GIT_ENVIRONMENT, "GIT_SSH_COMMAND": self.ssh_command(user)})

    URL = "ssh://127.0.0.1/team/app.git"

    def test_git_over_ssh(self):
        cluster = self.serve()
        work = self.work()
        for i in range(30):
            self.commit(work, f"d{i % 3}/f{i}", os.urandom(10_000))
        for version in (0, 1, 2):
            config = [f"protocol.version={version}"]
            pushed = self.git("push", "--progress", self.URL, "main", cwd=work, config=config)
            if version == 0:
                self.assertIn("remote: Packmoor: durable on 1 of 1 members", pushed.stderr)
            clone = os.path.join(self.folder, f"v{version}")
            self.git("clone", "-q", self.URL, clone, config=config)
            git("fsck", "--full", "--strict", cwd=clone)
            # Many commits of its own: a negotiation of several rounds on one connection.
            for i in range(80):
                self.commit(clone, f"local{i}", f"{version} {i}")
            self.commit(work, "news", f"{version}\n")
            self.git("push", "-q", self.URL, "main", cwd=work, config=config)
            self.git("fetch", "-q", cwd=clone, config=config)
            self.assertEqual(git("rev-parse", "origin/main", cwd=clone).stdout,
                             git("rev-parse", "main", cwd=work).stdout)
        # A deletion sends no pack; a push of nothing new asks and leaves.
        self.git("push", "-q", self.URL, "main:gone", cwd=work)
        self.git("push", "-q", self.URL, ":gone", cwd=work)
        again = self.git("push", self.URL, "main", cwd=work)
        self.assertIn("Everything up-to-date", again.stderr)
        self.assertEqual(sorted(self.refs(self.node, "team/app")), ["HEAD", "refs/heads/main"])
        self.verify(cluster)

    def test_a_large_push_and_a_refused_one(self):
        self.serve()
        work = self.work()
        self.commit(work, "big", os.urandom(6 << 20))
        self.git("push", "-q", self.URL, "main", cwd=work)
        self.commit(work, "more", os.urandom(1 << 20))
        git("commit", "-q", "--amend", "-m", "a", cwd=work)
        first = git("rev-parse", "HEAD~1", cwd=work).stdout.strip()
        lease = self.git("push", "--atomic", f"--force-with-lease=main:{'1' * 40}", self.URL, "main",
                         cwd=work, check=False)
        self.assertEqual(lease.returncode, 1)
        self.git("push", "-q", self.URL, "main", cwd=work)
        # The server refuses: the client still reads why, though it has sent a pack.
        bad = self.work("bad")
        self.commit(bad, "x", os.urandom(2 << 20))
        tree = git("rev-parse", "HEAD^{tree}", cwd=bad).stdout.strip()
        raw = f"tree {tree}\nauthor broken\ncommitter broken\n\nno idents\n"
        oid = run(["git", "hash-object", "-t", "commit", "-w", "--literally", "--stdin"], cwd=bad,
                  data=raw.encode()).stdout.strip()
        refused = self.git("push", self.URL, f"{oid}:refs/heads/bad", cwd=bad, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("[remote rejected]", refused.stderr)
        self.assertIn(first[:7], git("log", "--format=%h", cwd=work).stdout)
        self.assert_clone_equals(self.node, work, "team/app")

    def test_archives(self):
        cluster = self.serve()
        work = self.work()
        self.commit(work, ".gitattributes", "secret export-ignore\n*.bat text eol=crlf\n")
        self.commit(work, "secret", "not for everybody\n")
        self.commit(work, "run.bat", "rem one\nrem two\n")
        self.commit(work, "src/deep/code.c", "int x;\n" * 1000)
        self.commit(work, "large", os.urandom(12 << 20))
        os.symlink("src/deep/code.c", os.path.join(work, "link"))
        os.chmod(os.path.join(work, "run.bat"), 0o755)
        self.commit(work, "last", "last\n")
        git("tag", "-a", "-m", "one", "v1", cwd=work)
        self.git("push", "-q", self.URL, "main", "v1", cwd=work)

        def archive(name, *words, config=(), same=True):
            """An archive made here; `same`: it has the bytes of the one that git makes of the clone."""
            here, there = (os.path.join(self.folder, side + name) for side in ("here-", "there-"))
            self.git("archive", f"--remote={self.URL}", "-o", here, *words, cwd=work, config=config)
            run(["git", "archive", "-o", there, *words], cwd=work, environment={**GIT_ENVIRONMENT, "TZ": "UTC"})
            if same:
                self.assertTrue(filecmp.cmp(here, there, shallow=False), f"{name} is not git's own")
            return here

        for version in (0, 1, 2):
            for name in ("a.tar", "a.tar.gz", "a.tgz"):
                archive(name, "--prefix=app-1/", "v1", config=[f"protocol.version={version}"])
        archive("paths.zip", "main", "src", "run.bat", "link")
        # Behind a large file a zip tells how large it was.
        whole = archive("whole.zip", "main", same=False)
        run(["python3", "-m", "zipfile", "-t", whole])
        out = os.path.join(self.folder, "out")
        os.makedirs(out)
        run(["tar", "-xf", os.path.join(self.folder, "here-a.tar"), "-C", out])
        self.assertEqual(sorted(os.listdir(os.path.join(out, "app-1"))),
                         [".gitattributes", "large", "last", "link", "run.bat", "src"])
        # What no ref names any more is nobody's, unless it is set so.
        first = git("rev-parse", "main~2", cwd=work).stdout.strip()
        refused = self.git("archive", f"--remote={self.URL}", first, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(f"remote: git upload-archive: no such ref: {first}", refused.stderr)
        self.ctl(self.node, "repo", "set", "team/app", "uploadarchive.allowUnreachable=true")
        archive("first.tar", first)
        missing = self.git("archive", "--remote=ssh://127.0.0.1/none", "main", check=False)
        self.assertEqual(missing.returncode, 128)
        self.assertIn("there is no repository 'none'", missing.stderr)
        self.assertGreaterEqual(cluster.status(self.node)["front"]["archives"], 13)

    def test_who_may_and_what_is_said(self):
        self.serve()
        self.assertEqual(self.line_for_sshd("mallory").stdout, "")
        self.assertEqual(self.ssh("mallory", "true").returncode, 255)
        shell = self.ssh("alice", "cat /etc/passwd")
        self.assertEqual(shell.returncode, 1)
        self.assertIn('for git only: it does not run "cat /etc/passwd"', shell.stderr)
        hello = self.ssh("alice")
        self.assertEqual(hello.returncode, 1)
        self.assertIn("Hello, alice.", hello.stderr)
        missing = self.git("clone", "ssh://127.0.0.1/team/none.git", os.path.join(self.folder, "n"),
                           check=False)
        self.assertEqual(missing.returncode, 128)
        self.assertIn("there is no repository 'team/none'", missing.stderr)
        # The key of two users is nobody's.
        with open(self.keys, "a") as f:
            f.write("bob " + self.public("alice") + "\nnonsense\n")
        both = run([SHELL, "authorized-keys", "--keys", self.keys,
                    *self.public("alice").split()[:2]], check=False)
        self.assertEqual((both.returncode, both.stdout), (1, ""))
        self.assertIn("The key of alice is also that of bob", both.stderr)
        self.assertIn("Line 4 is not USER TYPE KEY", both.stderr)

    def test_a_node_that_is_away_and_a_client_that_leaves(self):
        cluster = self.serve()
        work = self.work()
        self.commit(work, "big", os.urandom(20 << 20))
        self.git("push", "-q", self.URL, "main", cwd=work)
        # Clients that leave in the middle leave nothing behind.
        for _ in range(3):
            client = subprocess.Popen(["git", "clone", "-q", self.URL, os.path.join(self.folder, "x")],
                                      env={**GIT_ENVIRONMENT,
                                           "GIT_SSH_COMMAND": self.ssh_command("alice")})
            wait_for(lambda: self.shells() > 0, "no client came")
            client.send_signal(signal.SIGKILL)
            client.wait()
            shutil.rmtree(os.path.join(self.folder, "x"), ignore_errors=True)
        wait_for(lambda: self.shells() == 0, "a packmoor-shell is left")
        # Several at once.
        failures = []

        def clone(i):
            target = os.path.join(self.folder, f"at-once{i}")
            if self.git("clone", "-q", self.URL, target, check=False).returncode != 0:
                failures.append(i)

        threads = [threading.Thread(target=clone, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        cluster.down()
        away = self.git("ls-remote", self.URL, check=False)
        self.assertEqual(away.returncode, 128)
        self.assertIn("This server cannot reach its git storage", away.stderr)
        cluster.up()

    def shells(self):
        """Processes of packmoor-shell that use this test's socket."""
        count = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            count += words[0] == SHELL and self.socket in words
        return count


if __name__ == "__main__":
    unittest.main()
