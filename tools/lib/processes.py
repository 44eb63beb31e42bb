"""Processes that the tools and tests start and end by their id, free ports, and waiting for a condition."""
import os
import random
import signal
import socket
import subprocess
import time

START_SECONDS_MAX = 180
POLL_SECONDS = 0.05


class Problem(Exception):
    """What is wrong, as a sentence."""


CHILDREN = {}  # processes that this program started, by pid; asking for them reaps them


def process_is(pid, word):
    """True while process `pid` lives and `word` is in its command line."""
    if pid in CHILDREN:
        # Its number is not given to another before it is reaped. Its command line is no help: it is
        # empty for a moment while the program is loaded.
        if CHILDREN[pid].poll() is None:
            return True
        del CHILDREN[pid]
        return False
    try:
        with open(f"/proc/{pid}/stat") as f:
            if f.read().rsplit(")", 1)[1].split()[0] in "ZX":
                return False
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return word.encode() in f.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def spawn(command, log, environment=None):
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True, env=environment, close_fds=True)
    CHILDREN[process.pid] = process
    return process


def end(pid, word, signum, seconds):
    """Sends a signal to our process and waits for its end. False: it still lives."""
    if not process_is(pid, word):
        return True
    os.kill(pid, signum)
    deadline = time.monotonic() + seconds
    while process_is(pid, word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def tail(path, lines=15):
    try:
        with open(path, errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except FileNotFoundError:
        return ""


# Below the range from which the system takes ports for outgoing connections, so that no
# connection takes a node's port while the node is down.
def pick_ports(count):
    ports = []
    for _ in range(10_000):
        if len(ports) == count:
            return ports
        port = random.randrange(18_000, 32_000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    raise Problem("There are not enough free ports on 127.0.0.1.")


def wait_for(ready, what, seconds=START_SECONDS_MAX, alive=lambda: True):
    deadline = time.monotonic() + seconds
    while True:
        result = ready()
        if result:
            return result
        if not alive():
            raise Problem(f"{what}: the process ended.")
        if time.monotonic() > deadline:
            raise Problem(f"{what}: not within {seconds} seconds.")
        time.sleep(POLL_SECONDS)
