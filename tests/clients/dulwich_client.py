"""dulwich, by the verbs of README.md."""
import os
import sys

from dulwich import porcelain
from dulwich.repo import Repo

WHO = b"t <t@example.org>"


def main(verb, *words):
    if verb == "clone":
        porcelain.clone(words[0], words[1], errstream=sys.stderr.buffer)
    elif verb == "commit":
        folder, name, text = words
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)
        repository = Repo(folder)
        repository.stage([name.encode()])
        print(repository.do_commit(b"by dulwich", committer=WHO, author=WHO).decode())
    elif verb == "push":
        porcelain.push(words[0], "origin", words[1], errstream=sys.stderr.buffer,
                       outstream=sys.stderr.buffer)
    elif verb == "fetch":
        porcelain.fetch(words[0], "origin", errstream=sys.stderr.buffer)
        repository = Repo(words[0])
        repository.refs[b"refs/heads/main"] = repository.refs[b"refs/remotes/origin/main"]
        repository.reset_index()


main(*sys.argv[1:])
