"""tools/dev demo: a repository pushed to a cluster on this machine and cloned back from each node."""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time

from cluster import Cluster, Problem, ROOT, say


def git(*arguments, cwd=None, quiet=True):
    result = subprocess.run(["git", *arguments], cwd=cwd, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None)
    if result.returncode != 0:
        raise Problem(f"git {' '.join(arguments)} failed: {(result.stderr or '').strip()}")
    return result.stdout


def objects(path):
    """How many objects all refs reach, and a hash over their names."""
    names = sorted(line.split(" ", 1)[0]
                   for line in git("rev-list", "--objects", "--glob=*", cwd=path).splitlines())
    return len(names), hashlib.sha256("\n".join(names).encode()).hexdigest()


def source_repository(path, folder):
    """The repository to push; a folder without git history becomes one of one commit."""
    if not os.path.isdir(path):
        raise Problem(f"{path} is not a folder.")
    probe = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], cwd=path, text=True,
                           capture_output=True)
    if probe.returncode != 0:
        if path != ROOT:
            raise Problem(f"{path} is not a git repository.")
        copy = os.path.join(folder, "source")
        say("== This checkout has no git history; pushing its files as one commit.")
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("build", ".git"))
        git("init", "-q", "-b", "main", cwd=copy)
        git("add", "-A", cwd=copy)
        git("-c", "user.name=demo", "-c", "user.email=demo@localhost", "commit", "-qm", "Import",
            cwd=copy)
        return copy
    if probe.stdout.strip() == "true":
        raise Problem(f"{path} is a shallow clone; complete it with git fetch --unshallow first.")
    if not git("for-each-ref", "--count=1", cwd=path).strip():
        raise Problem(f"{path} has no branch to push.")
    return path


def clone_and_check(cluster, node, expected, folder):
    clone = os.path.join(folder, node["id"] + ".git")
    started = time.monotonic()
    git("clone", "-q", "--mirror", f"http://{node['http']}/demo.git", clone)
    seconds = time.monotonic() - started
    git("fsck", "--full", "--no-progress", cwd=clone)
    if objects(clone) != expected:
        raise Problem(f"The clone from {node['id']} has other objects than what was pushed; "
                      f"compare {clone}.")
    say(f"== Cloned from {node['id']} in {seconds:.1f} s: fsck is clean, every object is there.")
    shutil.rmtree(clone)


def demo(options):
    folder = os.path.abspath(options.dir)
    cluster = Cluster(folder)
    if os.path.exists(cluster.file):
        say(f"== Removing the last demo's cluster in {folder}.")
        cluster.load().down()
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    source = source_repository(os.path.abspath(options.repo), folder)
    say("== Starting " + ("etcd and " if options.nodes > 1 else "") +
        f"{options.nodes} node{'s' if options.nodes > 1 else ''} in {folder}.")
    cluster = Cluster(folder)
    cluster.create(options.nodes)
    try:
        cluster.up()
        nodes = cluster.state["nodes"]
        cluster.ctl(nodes[0], "repo", "create", "demo", "--description", "Pushed by tools/dev demo")
        entry = nodes[-1]
        say(f"== Pushing {source} through {entry['id']}.")
        started = time.monotonic()
        git("push", "--mirror", f"http://{entry['http']}/demo.git", cwd=source, quiet=False)
        say(f"== Pushed in {time.monotonic() - started:.1f} s.")
        expected = objects(source)
        clones = os.path.join(folder, "clones")
        os.makedirs(clones)
        for node in nodes:
            clone_and_check(cluster, node, expected, clones)
        sys.stdout.flush()
        for command in (["volume", "verify", "main"], ["status"]):
            say("")
            sys.stdout.flush()
            code = subprocess.run([cluster.program("packmoorctl"), "--socket",
                                   nodes[0]["control"], *command]).returncode
            if code != 0:
                raise Problem(f"packmoorctl {' '.join(command)} failed.")
        names = ", ".join(node["id"] for node in nodes)
        say(f"\nDone: {expected[0]:,} objects went in through {entry['id']} and came back whole "
            f"from {names}.")
        if options.keep:
            say(f"The cluster goes on running; try\n"
                f"  git clone http://{nodes[0]['http']}/demo.git\n"
                f"  tools/dev cluster status --dir {folder}\n"
                f"and end it with\n  tools/dev cluster down --dir {folder}")
    finally:
        if not options.keep or sys.exc_info()[0] is not None:
            cluster.down()


def main():
    parser = argparse.ArgumentParser(prog="tools/dev demo", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--repo", default=ROOT, metavar="PATH",
                        help="what to push (default: this checkout)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many (default 3)")
    parser.add_argument("--dir", default=os.path.join(ROOT, "build", "demo"),
                        help="where (default build/demo; replaced at each run)")
    try:
        demo(parser.parse_args())
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
