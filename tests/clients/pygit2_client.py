"""pygit2, which is libgit2, by the verbs of README.md."""
import os
import sys

import pygit2


def require_success(name, message):
    if message is not None:
        sys.exit(f"{name}: {message}")


class Answers(pygit2.RemoteCallbacks):
    def push_update_reference(self, refname, message):
        require_success(refname, message)


def main(verb, *words):
    if verb == "clone":
        pygit2.clone_repository(words[0], words[1])
        return
    repository = pygit2.Repository(words[0])
    if verb == "commit":
        with open(os.path.join(words[0], words[1]), "w") as f:
            f.write(words[2])
        repository.index.add(words[1])
        repository.index.write()
        who = pygit2.Signature("t", "t@example.org")
        parents = [] if repository.head_is_unborn else [repository.head.target]
        print(repository.create_commit("refs/heads/main", who, who, "by pygit2",
                                       repository.index.write_tree(), parents))
    elif verb == "push":
        # libgit2 pushes what both sides are named for.
        source, _, target = words[1].rpartition(":")
        source = f"refs/heads/{source or target}" if source or ":" not in words[1] else ""
        repository.remotes["origin"].push([f"{source}:refs/heads/{target}"], callbacks=Answers())
    elif verb == "fetch":
        repository.remotes["origin"].fetch()
        main = repository.references["refs/remotes/origin/main"].target
        repository.reset(main, pygit2.GIT_RESET_HARD)


main(*sys.argv[1:])
