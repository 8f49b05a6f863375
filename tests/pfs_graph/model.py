"""What repos, branches, commits and files are, in plain dicts: the model that the real thing is held against."""

from dataclasses import dataclass, field

Key = tuple[str, str]  # repo and commit ID, or repo and branch
Files = dict[str, bytes]

NONE: Key = ("", "")  # no commit: only within a change

OPEN, FINISHING, FINISHED = "open", "finishing", "finished"


class Refused(Exception):
    """The real thing has to refuse this, in words that contain these."""


@dataclass
class Commit:
    branch: str | None
    parent: Key | None
    origin: str
    state: str = OPEN
    error: str = ""
    files: Files = field(default_factory=dict)  # of a finished commit
    changes: list[tuple[str, ...]] = field(default_factory=list)
    sources: set[Key] = field(default_factory=set)


@dataclass
class Branch:
    head: Key
    sources: list[Key] = field(default_factory=list)


def collision(files: Files) -> str:
    """The file that has the name of a directory, "" if none."""
    for path in sorted(files):
        parts = path.split("/")
        for end in range(2, len(parts)):
            if "/".join(parts[:end]) in files:
                return path
    return ""


class Model:
    def __init__(self) -> None:
        self.repos: set[str] = set()
        self.branches: dict[Key, Branch] = {}
        self.commits: dict[Key, Commit] = {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def children(self, key: Key) -> set[Key]:
        return {k for k, c in self.commits.items() if c.parent == key}

    def below(self, key: Key) -> set[Key]:
        """The commits that depend on one."""
        found: set[Key] = set()
        todo = [key]
        while todo:
            at = todo.pop()
            for k, c in self.commits.items():
                if at in c.sources and k not in found:
                    found.add(k)
                    todo.append(k)
        return found

    def base(self, commit: Commit) -> Files | None:
        """The files that a commit builds on; None if they are not complete yet."""
        at = commit.parent
        while at is not None:
            found = self.commits[at]
            if not found.error:
                return found.files if found.state == FINISHED else None
            at = found.parent
        return {}

    def files(self, key: Key) -> Files | None:
        commit = self.commits[key]
        if commit.state == FINISHED:
            return commit.files
        base = self.base(commit)
        return None if base is None else apply(base, commit.changes)

    def branches_above(self, key: Key) -> set[Key]:
        found: set[Key] = set()
        todo = list(self.branches[key].sources)
        while todo:
            at = todo.pop()
            if at not in found:
                found.add(at)
                todo += self.branches[at].sources
        return found

    def branches_below(self, key: Key) -> set[Key]:
        return {other for other in self.branches if key in self.branches_above(other)}

    def connected(self, key: Key) -> set[Key]:
        found = {key}
        todo = [key]
        while todo:
            at = todo.pop()
            linked = set(self.branches[at].sources) | {k for k, b in self.branches.items() if at in b.sources}
            todo += linked - found
            found |= linked
        return found

    # -- writing ---------------------------------------------------------------------------------------------------

    def add(self, key: Key, commit: Commit) -> None:
        if key in self.commits:
            raise Refused("already has a commit")
        self.commits[key] = commit

    def propagate(self, touched: set[Key], id: str) -> None:
        for key in touched:
            repos = [repo for repo, _ in self.connected(key)]
            if len(repos) != len(set(repos)):
                raise Refused("multiple branches from the same repo")
        below = set().union(*(self.branches_below(key) for key in touched))
        for key in sorted(below, key=lambda k: (len(self.branches_above(k)), k)):
            self.advance(key, id)

    def advance(self, key: Key, id: str) -> None:
        branch = self.branches[key]
        if branch.head[1] == id:
            return
        sources = {self.branches[s].head for s in branch.sources}
        self.add((key[0], id), Commit(key[1], branch.head, "AUTO", sources=sources))
        branch.head = (key[0], id)

    def empty(self, key: Key, id: str, sources: list[Key]) -> Key:
        state = OPEN if sources else FINISHED
        heads = {self.branches[s].head for s in sources}
        self.add((key[0], id), Commit(key[1], None, "AUTO", state, sources=heads))
        return key[0], id

    def create_branch(self, key: Key, head: Key | None, sources: list[Key], id: str) -> None:
        if any(repo == key[0] for repo, _ in sources):
            raise Refused("cannot be in the provenance of its own branch")
        for source in sources:
            if source not in self.branches:
                self.branches[source] = Branch(self.empty(source, id, []))
        known = self.branches.get(key)
        if known is not None and any(s == key or s in self.branches_below(key) for s in sources):
            raise Refused("cycle detected")
        touched: set[Key] = set()
        new = known is None or (bool(sources) and set(sources) != set(known.sources))
        if known is None:
            known = self.branches[key] = Branch(NONE)
        changed = set(sources) != set(known.sources)
        known.sources = list(sources)
        if head is not None:
            known.head = head
            touched.add(key)
        if known.head == NONE:
            known.head = self.empty(key, id, sources)
            touched.add(key)
        elif new and changed and sources:
            self.advance(key, id)
            touched.add(key)
        self.propagate(touched, id)

    def start_commit(self, key: Key, id: str) -> Key:
        known = self.branches.get(key)
        parent = known.head if known is not None else None
        if parent is not None and self.commits[parent].state == OPEN:
            raise Refused("has not been finished")
        if known is not None and known.sources:
            raise Refused("cannot start a commit on an output branch")
        self.add((key[0], id), Commit(key[1], parent, "USER"))
        if known is None:
            known = self.branches[key] = Branch(NONE)
        known.head = (key[0], id)
        self.propagate({key}, id)
        return key[0], id

    def modify(self, key: Key, changes: list[tuple[str, ...]], id: str) -> None:
        """Write to a branch."""
        known = self.branches.get(key)
        if known is not None:
            self.must_list(known.head, changes)
            if self.commits[known.head].state == OPEN:
                self.commits[known.head].changes += changes
                return
        made = self.start_commit(key, id)
        self.commits[made].changes += changes
        self.finish(made)

    def must_list(self, key: Key, changes: list[tuple[str, ...]]) -> None:
        """Deleting a directory takes knowing what is in it."""
        commit = self.commits[key]
        clears = any(kind == "delete" and path.endswith("/") for kind, path, *_ in changes)
        if clears and (commit.state != FINISHED or commit.error) and self.base(commit) is None:
            raise Refused("unfinished")

    def finish(self, key: Key) -> None:
        commit = self.commits[key]
        if commit.state != OPEN:
            raise Refused("has already finished")
        commit.state = FINISHING
        self.complete(key)

    def complete(self, key: Key) -> None:
        commit = self.commits[key]
        if commit.state != FINISHING or (commit.parent is not None and self.commits[commit.parent].state != FINISHED):
            return
        base = self.base(commit)
        assert base is not None
        commit.files = apply(base, commit.changes)
        bad = collision(commit.files)
        commit.error = f"file / directory path collision ({bad})" if bad else ""
        commit.state, commit.changes = FINISHED, []
        for child in self.children(key):
            self.complete(child)

    def remove(self, keys: list[Key], id: str, squash: bool) -> None:
        for key in keys:
            children = self.children(key)
            if squash and not children:
                raise Refused("cannot squash a commit that has no children")
            if not squash and children:
                raise Refused("cannot drop a commit that has children")
        for key in keys:
            if squash and any(self.commits[c].state != FINISHED for c in self.children(key)):
                raise Refused("cannot squash until child commit")
        for key in keys:
            gone = self.commits.pop(key)
            for commit in self.commits.values():
                if commit.parent == key:
                    commit.parent = gone.parent
                commit.sources.discard(key)
            for branch in self.branches.values():
                if branch.head == key:
                    branch.head = gone.parent or NONE
        headless: dict[str, list[Key]] = {}
        for name, branch in self.branches.items():
            if branch.head == NONE:
                headless.setdefault(name[0], []).append(name)
        for names in sorted(headless.values(), key=lambda names: len(self.branches_above(names[0]))):
            head = self.empty(names[0], id, self.branches[names[0]].sources)
            for name in names:
                self.branches[name].head = head

    def delete_branch(self, key: Key, force: bool) -> None:
        if key not in self.branches:
            raise Refused("not found")
        if not force and any(key in b.sources for b in self.branches.values()):
            raise Refused("cannot be deleted because it's in the direct provenance of")
        del self.branches[key]
        for branch in self.branches.values():
            branch.sources = [s for s in branch.sources if s != key]
        for (repo, _), commit in self.commits.items():
            if repo == key[0] and commit.branch == key[1]:
                commit.branch = None

    def delete_repo(self, repo: str, force: bool) -> None:
        below = [s for key, b in self.branches.items() if key[0] != repo for s in b.sources if s[0] == repo]
        if below and not force:
            raise Refused("cannot be deleted because it's in the direct provenance of")
        self.repos.discard(repo)
        self.branches = {k: b for k, b in self.branches.items() if k[0] != repo}
        for branch in self.branches.values():
            branch.sources = [s for s in branch.sources if s[0] != repo]
        self.commits = {k: c for k, c in self.commits.items() if k[0] != repo}
        for commit in self.commits.values():
            commit.sources = {s for s in commit.sources if s[0] != repo}


def apply(base: Files, changes: list[tuple[str, ...]]) -> Files:
    """The files after changes: ("append", path, text), ("delete", path or folder/), ("copy", path, text...) pairs."""
    files = dict(base)
    for kind, path, *rest in changes:
        if kind == "append":
            files[path] = files.get(path, b"") + rest[0].encode()
        elif kind == "delete" and path.endswith("/"):
            files = {p: data for p, data in files.items() if not p.startswith(path)}
        elif kind == "delete":
            files.pop(path, None)
        else:  # "replace"
            files[path] = rest[0].encode()
    return files


def listing(files: Files) -> list[str]:
    """All paths, with the directories, in order: what a glob of `/**` gives."""
    found = set(files)
    for path in files:
        parts = path.split("/")
        found |= {"/".join(parts[:end]) + "/" for end in range(2, len(parts))}
    return sorted(found)
