"""Histories that benchmarks work on: a copy of a given repository in one pack, or a made one."""
import glob
import os
import subprocess

from experiment import say
from processes import Problem

GENERATED_COMMITS = 2000
GENERATED_FILES = 200
GIT_ENVIRONMENT = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


def git(*arguments, **options):
    done = subprocess.run(["git", *arguments], env=GIT_ENVIRONMENT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise Problem(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def add_history(parser):
    parser.add_argument("--repo", metavar="PATH", help="a repository with a real history, for "
                        "example a clone of git's own (default: a small one that is made)")


def generate(folder):
    """Commits that each change one of many files of text, the same on every call."""
    git("init", "-q", "--bare", folder)
    lines, seed = [], 12345
    texts = [[f"line {line} of file {number}" for line in range(100)]
             for number in range(GENERATED_FILES)]
    for commit in range(GENERATED_COMMITS):
        seed = (seed * 1103515245 + 12345) % 2**31
        number, line = seed % GENERATED_FILES, seed // 1000 % 100
        texts[number][line] = f"changed by {commit}: {seed:032b}"
        changed = range(GENERATED_FILES) if commit == 0 else [number]
        lines.append(f"commit refs/heads/main\ncommitter b <b@localhost> {10**9 + commit} +0000\n"
                     f"data <<END\nChange {commit}\nEND\n")
        for each in changed:
            text = "\n".join(texts[each])
            lines.append(f"M 100644 inline d{each % 10}/f{each}\ndata {len(text)}\n{text}\n")
    git("-C", folder, "fast-import", "--quiet", input="".join(lines).encode())
    git("-C", folder, "repack", "-adfq")


def refs_history(folder, count):
    """A bare repository with main and so many branches b0000000 and on, all of one commit; 0: without refs."""
    git("init", "-q", "--bare", "-b", "main", folder)
    tree = git("-C", folder, "hash-object", "-t", "tree", "-w", "--stdin", input=b"").decode().strip()
    commit = git("-C", folder, "-c", "user.name=b", "-c", "user.email=b@localhost", "commit-tree", "-m",
                 "refs", tree).decode().strip()
    if count == 0:
        return
    with open(os.path.join(folder, "packed-refs"), "w") as f:
        f.write("# pack-refs with: peeled fully-peeled sorted \n")
        f.writelines(f"{commit} refs/heads/b{n:07}\n" for n in range(count))
        f.write(f"{commit} refs/heads/main\n")


def copy_of_history(options, folder):
    """A bare repository in `folder`, of one pack; its folder and its pack."""
    copy = os.path.join(folder, "history.git")
    if options.repo:
        say(f"Copying {options.repo}.")
        git("clone", "-q", "--mirror", "--no-local", options.repo, copy)
    else:
        generate(copy)
    packs = glob.glob(os.path.join(copy, "objects", "pack", "*.pack"))
    if len(packs) != 1:
        git("-C", copy, "repack", "-adq")
        packs = glob.glob(os.path.join(copy, "objects", "pack", "*.pack"))
    if len(packs) != 1:
        raise Problem(f"{options.repo} holds no history.")
    return copy, packs[0]
