"""Hosts on this machine: one network namespace for each, joined by a bridge in a namespace of this
program's own. Nothing of it is visible outside, and all of it ends with this program.

A link is cut in one direction by giving the sender a wrong hardware address for the receiver: its
packets vanish without a word, as on a broken line.
"""
import os
import subprocess
import sys

NETWORK = "10.77.0"
HUB = NETWORK + ".1"
NOWHERE = "02:00:00:00:00:99"


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def enter(argument):
    """Runs this program again inside fresh network and mount namespaces, unless it is there
    already (then `argument` is on its command line)."""
    if argument in sys.argv:
        sys.argv.remove(argument)
        return
    if os.geteuid() != 0:
        print("error: network namespaces need root; run this with sudo.", file=sys.stderr)
        sys.exit(1)
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv, argument])


class Host:
    def __init__(self, name, number):
        self.name, self.number = name, number
        self.address = f"{NETWORK}.{10 + number}"
        # Holds the namespace for as long as the host lives.
        self.anchor = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.cut = set()

    def prefix(self):
        return ["nsenter", "-t", str(self.anchor.pid), "-n"]

    def inside(self, *command):
        run(*self.prefix(), *command)


class Network:
    """Call within enter()'s namespaces. Close it at the end."""

    def __init__(self, names):
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "hub", "type", "bridge")
        run("ip", "addr", "add", HUB + "/24", "dev", "hub")
        run("ip", "link", "set", "hub", "up")
        self.hosts = {}
        for number, name in enumerate(names):
            self.hosts[name] = self.add(name, number)

    def add(self, name, number):
        host = Host(name, number)
        outer = f"v{number}"
        # The anchor may not have its namespace yet.
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{host.anchor.pid}/ns/net") == own:
            pass
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns",
            str(host.anchor.pid))
        run("ip", "link", "set", outer, "master", "hub", "up")
        host.inside("ip", "link", "set", "lo", "up")
        host.inside("ip", "addr", "add", host.address + "/24", "dev", "eth0")
        host.inside("ip", "link", "set", "eth0", "up")
        return host

    def cut(self, sender, receiver):
        """From now on nothing that `sender` sends reaches `receiver`: a name, or "hub"."""
        host = self.hosts[sender]
        address = HUB if receiver == "hub" else self.hosts[receiver].address
        host.inside("ip", "neigh", "replace", address, "lladdr", NOWHERE, "nud", "permanent", "dev",
                    "eth0")
        host.cut.add(address)

    def heal(self):
        for host in self.hosts.values():
            for address in host.cut:
                host.inside("ip", "neigh", "del", address, "dev", "eth0")
            host.cut.clear()

    def close(self):
        for host in self.hosts.values():
            host.anchor.kill()
            host.anchor.wait()
