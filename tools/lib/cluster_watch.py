"""What the members of a cluster's volume say of it, and whether they have all that was acknowledged."""
import os
import shutil
import subprocess

from processes import Problem, wait_for
from push_chains import missing_commits

FOLLOW_SECONDS_MAX = 60


def volume_status(cluster, node):
    status = cluster.status(node)
    for volume in (status or {}).get("volumes", []):
        if volume["name"] == cluster.state["volume"]:
            return volume
    return None


def primary_of(cluster):
    """The node that leads, as it says itself."""
    for node in cluster.state["nodes"]:
        volume = volume_status(cluster, node) if cluster.lives(node) else None
        if volume and volume["role"] == "primary":
            return node
    return None


def wait_following(cluster, node):
    """Until the node has applied what the primary has committed at the time of asking."""
    primary = wait_for(lambda: primary_of(cluster), "No node leads", FOLLOW_SECONDS_MAX)
    committed = volume_status(cluster, primary)["committed"]

    def follows():
        volume = volume_status(cluster, node)
        return (volume and volume["role"] in ("standby", "primary") and not volume["problem"]
                and volume["applied"] >= committed)
    try:
        wait_for(follows, f"Node {node['id']} does not follow", FOLLOW_SECONDS_MAX)
    except Problem as problem:
        raise Problem(f"{problem} It says: {volume_status(cluster, node)}")


def lost_pushes(cluster, load, folder, repository="bench"):
    """Acknowledged commits that a node does not have, as sentences."""
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def run(command):
        return subprocess.run(command, check=True, capture_output=True, text=True,
                              env=environment).stdout
    lost = []
    for node in cluster.state["nodes"]:
        clone = os.path.join(folder, "clone-" + node["id"])
        run(["git", "clone", "-q", "--mirror", f"http://{node['http']}/{repository}.git", clone])
        lost += [f"{node['id']}: {what}" for what in missing_commits(clone, load.heads(), run)]
        shutil.rmtree(clone)
    return lost
