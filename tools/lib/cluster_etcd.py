"""The etcd of a cluster of tools/dev cluster: its members, certificates, users, and etcdctl."""
import os
import secrets
import subprocess

from processes import Problem, process_is, spawn, wait_for

ETCD_TLS_TOML = """\
ca = "{certs}/ca.crt"
certificate = "{certs}/etcd-client.crt"
key = "{certs}/etcd-client.key"
server_name = "etcd"
"""
ETCD_AUTH_TOML = """\
user = "packmoor"
password_file = "{password}"
"""


class EtcdPart:
    """What Cluster does for etcd; it uses Cluster's folder and state."""

    def create_etcd(self, ports, tls, auth, host="127.0.0.1"):
        scheme = "https" if tls else "http"
        for i in range(len(ports) // 2):
            self.state["etcd"].append({"pid": 0, "client": f"{scheme}://{host}:{ports[2 * i]}"})
        self.note("etcd-peer", " ".join(f"http://{host}:{port}" for port in ports[1::2]))
        if auth:
            path = self.path("etcd-password")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write(secrets.token_hex(16) + "\n")

    def make_etcd_client_certificate(self):
        """One without a common name: with authentication, etcd's gateway takes no others."""
        key, certificate = self.path("certs", "etcd-client.key"), self.path("certs", "etcd-client.crt")
        if os.path.exists(certificate):
            return
        request, extensions = key + ".csr", key + ".ext"
        with open(extensions, "w") as f:
            f.write("extendedKeyUsage=clientAuth\n")
        ca = self.path("certs", "ca")
        for command in (["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                         "-nodes", "-keyout", key, "-out", request, "-subj", "/O=packmoor"],
                        ["x509", "-req", "-in", request, "-CA", ca + ".crt", "-CAkey", ca + ".key",
                         "-set_serial", "0x" + secrets.token_hex(16), "-days", "730",
                         "-extfile", extensions, "-out", certificate]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        os.remove(request)
        os.remove(extensions)

    def etcd_data(self, etcd):
        return self.path(self.etcd_name(etcd, "etcd"))

    def etcd_name(self, etcd, alone):
        """etcd-e1 and so on; `alone` where there is one only."""
        all_of_them = self.state["etcd"]
        return alone if len(all_of_them) == 1 else f"etcd-e{all_of_them.index(etcd) + 1}"

    def etcd_lives(self):
        return any(process_is(etcd["pid"], self.etcd_data(etcd)) for etcd in self.state["etcd"])

    def start_etcd(self):
        """Those that do not run; the first time, with the users that the nodes log in as."""
        for etcd in self.state["etcd"]:
            if not process_is(etcd["pid"], self.etcd_data(etcd)):
                self.start_one_etcd(etcd)
        if self.noted("etcd-password") and not self.noted("etcd-auth"):
            self.enable_auth()

    def start_one_etcd(self, etcd):
        peers = self.noted("etcd-peer").split()
        number = self.state["etcd"].index(etcd)
        members = ",".join(f"e{i + 1}={peer}" for i, peer in enumerate(peers))
        command = ["etcd", "--name", f"e{number + 1}", "--data-dir", self.etcd_data(etcd),
                   "--listen-client-urls", etcd["client"], "--advertise-client-urls", etcd["client"],
                   "--listen-peer-urls", peers[number],
                   "--initial-advertise-peer-urls", peers[number], "--initial-cluster", members]
        if etcd["client"].startswith("https:"):
            command += ["--cert-file", self.path("certs", "etcd.crt"),
                        "--key-file", self.path("certs", "etcd.key"),
                        "--trusted-ca-file", self.path("certs", "ca.crt"), "--client-cert-auth"]
        etcd["pid"] = spawn(command, self.etcd_data(etcd) + ".log").pid
        self.save()

    def etcdctl(self, *arguments, etcd=None, check=True, data=None):
        """Runs etcdctl as root against one etcd, or all of them; what it prints."""
        endpoints = [e["client"] for e in ([etcd] if etcd else self.state["etcd"])]
        environment = {**os.environ, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": ",".join(endpoints)}
        if endpoints[0].startswith("https:"):
            # Under its address, that is; the nodes verify it under its name.
            environment.update(ETCDCTL_INSECURE_SKIP_TLS_VERIFY="true",
                               ETCDCTL_CERT=self.path("certs", "etcd.crt"),
                               ETCDCTL_KEY=self.path("certs", "etcd.key"))
        if self.noted("etcd-auth"):  # not on the command line, which everybody can read
            environment["ETCDCTL_USER"] = "root:" + self.noted("etcd-password")
        result = subprocess.run(["etcdctl", *arguments], env=environment, capture_output=True,
                                text=True, input=data)
        if check and result.returncode != 0:
            raise Problem(f"etcdctl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout if result.returncode == 0 else None

    def enable_auth(self):
        """A user for the nodes who may do what they need below /packmoor, and root for us."""
        wait_for(lambda: self.etcdctl("get", "x", check=False) is not None, "etcd does not answer")
        password = self.noted("etcd-password") + "\n"
        for user in ("root", "packmoor"):
            self.etcdctl("user", "add", user, "--interactive=false", data=password)
        self.etcdctl("role", "add", "root", check=False)  # newer ones have it
        self.etcdctl("role", "add", "packmoor")
        self.etcdctl("role", "grant-permission", "packmoor", "readwrite", "--prefix=true",
                     "/packmoor/")
        self.etcdctl("user", "grant-role", "root", "root", check=False)
        self.etcdctl("user", "grant-role", "packmoor", "packmoor")
        self.etcdctl("auth", "enable")
        self.note("etcd-auth", "enabled")
