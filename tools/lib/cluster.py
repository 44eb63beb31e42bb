"""tools/dev cluster: etcd and Packmoor nodes on this machine, as processes, in one folder.

D/cluster.json says what runs; D/nX.toml and D/nX.log belong to a node, D/nX is its data directory,
D/etcd.log to etcd (D/etcd-eX and D/etcd-eX.log where it has several members), D/certs holds the
certificates, D/etcd-password the password of etcd's users. Everything listens on loopback.
Also used as a module by the demo and by the integration tests.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings

from cluster_etcd import ETCD_AUTH_TOML, ETCD_TLS_TOML, EtcdPart
from processes import START_SECONDS_MAX, Problem, end, pick_ports, process_is, spawn, tail, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STOP_SECONDS_MAX = 120
SOCKET_PATH_MAX = 100
NODES_MAX = 16


def say(text):
    print(text, flush=True)


# --- a cluster ---------------------------------------------------------------------------------

NODE_TOML = """\
[node]
id = "{id}"
cluster = "{cluster}"
data = "{data}"

[http]
listen = "{http}"

[control]
socket = "{control}"
status_socket = "{status}"
"""
CLUSTER_TOML = """
[peers]
listen = "{rpc}"
ca = "{certs}/ca.crt"
certificate = "{certs}/{id}.crt"
key = "{certs}/{id}.key"

[coordinator]
etcd = [{etcd}]
"""


class Cluster(EtcdPart):
    """The cluster in folder D. Every change is written to D/cluster.json."""

    def __init__(self, folder, programs=None):
        self.folder = os.path.abspath(folder)
        self.file = os.path.join(self.folder, "cluster.json")
        self.programs = (programs or self.noted("programs")
                         or os.path.join(ROOT, "build", "bin"))
        self.state = None

    def load(self):
        try:
            with open(self.file) as f:
                self.state = json.load(f)
        except FileNotFoundError:
            raise Problem(f"There is no cluster in {self.folder}; make one with "
                          f"tools/dev cluster up --dir {self.folder}.")
        return self

    def save(self):
        with open(self.file + ".new", "w") as f:
            json.dump(self.state, f, indent=2)
            f.write("\n")
        os.replace(self.file + ".new", self.file)

    # Small facts beside cluster.json, whose form is fixed.
    def note(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text + "\n")

    def noted(self, name):
        try:
            with open(self.path(name)) as f:
                return f.read().strip()
        except FileNotFoundError:
            return None

    def node(self, name):
        for node in self.state["nodes"]:
            if node["id"] == name:
                return node
        names = ", ".join(node["id"] for node in self.state["nodes"])
        raise Problem(f"There is no node {name} in {self.folder}; there are {names}.")

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def config_of(self, node):
        return self.path(node["id"] + ".toml")

    def log_of(self, node):
        return self.path(node["id"] + ".log")

    def lives(self, node):
        return process_is(node["pid"], self.config_of(node))

    def prefix(self, node):
        """What runs a node's program, where it is not run directly."""
        return []

    def program(self, name):
        path = os.path.join(self.programs, name)
        if not os.path.exists(path):
            raise Problem(f"{path} is not built; run tools/dev build.")
        return path

    # --- making ------------------------------------------------------------------------------

    def create(self, count, base_port=None, extra="", etcds=1, etcd_tls=False, etcd_auth=False,
               hosts=None, etcd_host="127.0.0.1"):
        """Makes folders, certificates and configurations; starts nothing. `hosts`: an address for
        each node (default: loopback)."""
        hosts = hosts or ["127.0.0.1"] * count
        if os.path.exists(self.file):
            self.load()
            if any(self.lives(node) for node in self.state["nodes"]):
                raise Problem(f"A cluster runs in {self.folder} already; end it with "
                              f"tools/dev cluster down --dir {self.folder}.")
            if len(self.state["nodes"]) != count:
                raise Problem(f"{self.folder} holds a cluster of {len(self.state['nodes'])} nodes; "
                              f"give another folder for {count}.")
            return
        os.makedirs(self.folder, exist_ok=True)
        self.note("programs", self.programs)
        needed = 2 * count + 2 * etcds
        ports = [base_port + i for i in range(needed)] if base_port else pick_ports(needed)
        names = [f"n{i + 1}" for i in range(count)]
        sockets = self.folder
        if len(sockets) + 20 > SOCKET_PATH_MAX:  # unix sockets have short names
            sockets = tempfile.mkdtemp(prefix="packmoor-")
        nodes = []
        for i, name in enumerate(names):
            nodes.append({"id": name, "pid": 0, "http": f"{hosts[i]}:{ports[2 * i]}",
                          "rpc": f"{hosts[i]}:{ports[2 * i + 1]}" if count > 1 else "",
                          "control": os.path.join(sockets, name + ".sock"),
                          "data": self.path(name)})
        self.state = {"nodes": nodes, "etcd": [], "volume": "main"}
        if count > 1:
            self.create_etcd(ports[2 * count:], etcd_tls, etcd_auth, etcd_host)
            script = os.path.join(ROOT, "tools", "lib", "make_certs.sh")
            others = ["etcd"] if etcd_tls else []
            subprocess.run(["bash", script, self.path("certs"), "dev", *names, *others], check=True)
            if etcd_tls:
                self.make_etcd_client_certificate()
        for node in nodes:
            text = NODE_TOML.format(cluster="dev", status=node["control"][:-5] + "-status.sock",
                                    **node)
            if count > 1:
                urls = ", ".join(f'"{etcd["client"]}"' for etcd in self.state["etcd"])
                text += CLUSTER_TOML.format(certs=self.path("certs"), **node, etcd=urls)
                if etcd_tls:
                    text += ETCD_TLS_TOML.format(certs=self.path("certs"), **node)
                if etcd_auth:
                    text += ETCD_AUTH_TOML.format(password=self.path("etcd-password"))
            with open(self.config_of(node), "w") as f:
                f.write(text + extra)
        self.save()

    # --- starting ----------------------------------------------------------------------------

    def start_node(self, node):
        if self.lives(node):
            raise Problem(f"Node {node['id']} runs already.")
        process = spawn([*self.prefix(node), self.program("packmoord"), "--config",
                         self.config_of(node)], self.log_of(node))
        node["pid"] = process.pid
        self.save()
        return process

    def ctl(self, node, *arguments, check=True, timeout=60):
        """Runs packmoorctl against a node; its JSON when there is any."""
        result = subprocess.run([self.program("packmoorctl"), "--socket", node["control"],
                                 "--timeout", str(timeout), "--json", *arguments],
                                capture_output=True, text=True)
        if result.returncode != 0:
            if check:
                raise Problem(f"packmoorctl {' '.join(arguments)} on {node['id']}: "
                              f"{result.stderr.strip()}")
            return None
        return json.loads(result.stdout)

    def status(self, node):
        if not os.path.exists(node["control"]):
            return None
        answer = self.ctl(node, "status", "--local", check=False, timeout=5)
        return answer and answer["self"]

    def wait_node(self, node, ready, what, seconds=START_SECONDS_MAX):
        try:
            return wait_for(lambda: (lambda s: s and ready(s) and s)(self.status(node)),
                            f"Node {node['id']} {what}", seconds, lambda: self.lives(node))
        except Problem as problem:
            raise Problem(f"{problem} Its log ends:\n{tail(self.log_of(node))}")

    def wait_serving(self, node, seconds=START_SECONDS_MAX):
        """Until the node serves and has the volume open, with a primary that commits."""
        def ready(status):
            volumes = {v["name"]: v for v in status["volumes"]}
            volume = volumes.get(self.state["volume"])
            return (status["phase"] == "serving" and volume and not volume["problem"]
                    and volume["primary"] and volume["committed"] > 0
                    and volume["applied"] >= volume["committed"])
        return self.wait_node(node, ready, "does not serve", seconds)

    def up(self):
        self.start_etcd()
        for node in self.state["nodes"]:
            if not self.lives(node):
                self.start_node(node)
        nodes = self.state["nodes"]
        for node in nodes:
            self.wait_node(node, lambda s: s["phase"] == "serving", "does not start")
        if len(nodes) > 1:
            names = [v["name"] for v in self.ctl(nodes[0], "volume", "list")["volumes"]]
            if self.state["volume"] not in names:
                wait_for(lambda: len(self.ctl(nodes[0], "node", "list")["nodes"]) == len(nodes),
                         "The nodes do not all register")
                members = ",".join(node["id"] for node in nodes)
                self.ctl(nodes[0], "volume", "create", self.state["volume"], "--members", members,
                         "--write-quorum", str(len(nodes) // 2 + 1))
        for node in nodes:
            self.wait_serving(node)

    # --- ending ------------------------------------------------------------------------------

    def kill_node(self, node, signum=signal.SIGKILL):
        if not self.lives(node):
            raise Problem(f"Node {node['id']} does not run.")
        waits = signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
        if waits:
            if not end(node["pid"], self.config_of(node), signum, STOP_SECONDS_MAX):
                raise Problem(f"Node {node['id']} did not end within {STOP_SECONDS_MAX} seconds.")
        else:
            os.kill(node["pid"], signum)

    def down(self):
        late = []
        for node in self.state["nodes"]:
            if self.lives(node):
                os.kill(node["pid"], signal.SIGTERM)
                os.kill(node["pid"], signal.SIGCONT)  # in case it was stopped
        for node in self.state["nodes"]:
            if not end(node["pid"], self.config_of(node), 0, STOP_SECONDS_MAX):
                late.append(node["id"])
                end(node["pid"], self.config_of(node), signal.SIGKILL, STOP_SECONDS_MAX)
        for etcd in self.state["etcd"]:
            if process_is(etcd["pid"], self.etcd_data(etcd)):
                os.kill(etcd["pid"], signal.SIGCONT)  # in case it was stopped
            end(etcd["pid"], self.etcd_data(etcd), signal.SIGTERM, STOP_SECONDS_MAX)
        return late


# --- commands ----------------------------------------------------------------------------------


def command_up(options):
    programs = options.preset and os.path.join(ROOT, "build", options.preset, "bin")
    cluster = Cluster(options.dir, programs)
    cluster.create(options.nodes, options.base_port, etcds=options.etcds,
                   etcd_tls=options.etcd_tls, etcd_auth=options.etcd_auth)
    cluster.up()
    nodes = cluster.state["nodes"]
    for node in nodes:
        say(f"{node['id']}: git at http://{node['http']}, log in {cluster.log_of(node)}")
    say(f"The cluster of {len(nodes)} serves; its description is {cluster.file}." if len(nodes) > 1
        else f"The node serves; its description is {cluster.file}.")


def command_down(options):
    cluster = Cluster(options.dir).load()
    late = cluster.down()
    if late:
        raise Problem(f"Ended by force, since they did not stop when asked: {', '.join(late)}.")
    say("The cluster is stopped; its data is kept.")


def command_status(options):
    cluster = Cluster(options.dir).load()
    living = []
    for etcd in cluster.state["etcd"]:
        up = process_is(etcd["pid"], cluster.etcd_data(etcd))
        say(f"etcd: {'runs' if up else 'does not run'} at {etcd['client']}")
    for node in cluster.state["nodes"]:
        up = cluster.lives(node)
        living += [node] if up else []
        say(f"{node['id']}: " + (f"runs as process {node['pid']}" if up else "does not run"))
    if not living:
        raise Problem("No node runs.")
    sys.stdout.flush()
    code = subprocess.run([cluster.program("packmoorctl"), "--socket", living[0]["control"],
                           "status"]).returncode
    return code


def command_kill(options):
    cluster = Cluster(options.dir).load()
    name = options.signal.upper().removeprefix("SIG")
    signum = (signal.Signals(int(name)) if name.isdigit()
              else getattr(signal, "SIG" + name, None))
    if signum is None:
        raise Problem(f"There is no signal {options.signal}.")
    cluster.kill_node(cluster.node(options.node), signum)
    say(f"Sent {signum.name} to {options.node}.")


def command_start(options):
    cluster = Cluster(options.dir).load()
    node = cluster.node(options.node)
    cluster.start_node(node)
    cluster.wait_node(node, lambda s: s["phase"] == "serving", "does not start")
    say(f"Node {options.node} serves at http://{node['http']}.")


def main():
    warnings.simplefilter("ignore", ResourceWarning)  # what is started here is to go on
    parser = argparse.ArgumentParser(prog="tools/dev cluster",
                                     description="A Packmoor cluster on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name, action, text):
        command = verbs.add_parser(name, help=text)
        command.add_argument("--dir", required=True, help="the cluster's folder")
        command.set_defaults(action=action)
        return command
    up = verb("up", command_up, "start a cluster and wait until it serves")
    up.add_argument("--nodes", type=int, default=3, choices=range(1, NODES_MAX + 1),
                    metavar="N", help="how many (default 3); 1 runs without etcd")
    up.add_argument("--base-port", type=int, help="use ports from here on (default: free ones)")
    up.add_argument("--preset", help="the build to run (default: build/bin)")
    up.add_argument("--etcds", type=int, default=1, choices=(1, 3, 5), help="members of etcd")
    up.add_argument("--etcd-tls", action="store_true", help="etcd over TLS, with client certificates")
    up.add_argument("--etcd-auth", action="store_true", help="etcd asks for a user and a password")
    verb("down", command_down, "stop it, keeping its data")
    verb("status", command_status, "what runs, and what the nodes say")
    kill = verb("kill", command_kill, "send a signal to a node (default KILL)")
    kill.add_argument("node")
    kill.add_argument("--signal", default="KILL")
    start = verb("start", command_start, "start a node again and wait until it serves")
    start.add_argument("node")
    options = parser.parse_args()
    try:
        return options.action(options) or 0
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
