"""All mounts of one server: made, listed, followed, committed, restored."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mount_server import commits
from mount_server.cache import ReadCache
from mount_server.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    MountError,
    NameInUse,
    NotFound,
    ReadOnly,
    TimedOut,
    Unreachable,
)
from mount_server.journal import Journal, MountRow
from mount_server.listing import CommitTree
from mount_server.mount import Mount
from mount_server.names import COMMIT_ID, check_branch_name, check_mount_name, check_path
from mount_server.reader import Contents
from mount_server.source import Branch, CommitInfo, CommitRef, RepoInfo, Source

FOLLOW_INTERVAL = 0.5  # seconds between looks at the heads of mounted branches
IDLE_LIMIT = 3600.0  # seconds that a temporary mount stays when nobody uses it
MOST_TEMPORARY = 200  # temporary mounts at once; of more, those not used for longest go
REPOS_AGE = 1.0  # seconds that a list of repos is good for: UIs ask every two


class MountRequest(NamedTuple):
    """What is asked to be mounted. Empty strings mean the defaults: project `default`, branch `master`, mode `ro`."""

    name: str
    repo: str
    project: str = ""
    branch: str = ""
    commit: str = ""
    path: str = ""
    mode: str = ""
    temporary: bool = False


class Mounts:
    """The mounts of a server.

    :param state: the state directory: journal and read cache.
    :param connect: makes a source from an address.
    :param mount_dir: where the mounts appear; only told to clients here.
    """

    def __init__(self, state: Path, address: str, connect: Callable[[str], Source], mount_dir: Path) -> None:
        self.journal = Journal(state)
        self.cache = ReadCache(state / "cache")
        self.mount_dir = mount_dir
        self._connect = connect
        self.source = connect(address)
        self.contents = Contents(self.source, self.cache)
        self.reachable: bool | None = None
        self.started = time.time_ns()
        self._lock = threading.RLock()
        self._mounts: dict[str, Mount] = {}
        self._commit_locks: dict[tuple[str, str, str], threading.Lock] = {}
        self._repos: tuple[float, list[RepoInfo]] = (0.0, [])
        self._stopped = threading.Event()
        self.datum_mode = False
        self.idle_limit, self.most_temporary = IDLE_LIMIT, MOST_TEMPORARY
        rows = self.journal.mounts()
        self.journal.forget_others({row.name for row in rows})
        for row in rows:
            self._mounts[row.name] = self._restore(row)
        self._follower = threading.Thread(target=self._follow, name="follow-branches", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop following; everything staged stays in the journal for the next start."""
        self._stopped.set()
        for mount in self.all():
            with mount.lock:
                for writer in list(mount.writing.values()):
                    with contextlib.suppress(MountError, OSError):
                        mount.stage_writer(writer)
        self._follower.join(5)
        self.journal.close()
        self.source.close()

    def find(self, name: str) -> Mount | None:
        """The mount with exactly this name."""
        return self._mounts.get(name)

    def get(self, name: str) -> Mount:
        """:raises NotFound: no mount has exactly this name."""
        mount = self._mounts.get(name)
        if mount is None:
            raise NotFound(f"there is no mount {name!r}; PUT /_mount makes one")
        return mount

    def all(self) -> list[Mount]:
        """All mounts by name."""
        return sorted(self._mounts.values(), key=lambda mount: mount.row.name)

    def mount(self, requests: list[MountRequest]) -> None:
        """Make mounts, all or none; a mount that is there already in the same way is left as it is.

        :raises InvalidRequest: a request makes no sense, or what it names is not there.
        :raises NameInUse: another mount has the name. :raises Unreachable: pachd cannot be asked.
        """
        with self._lock:
            if self.datum_mode and requests:
                raise InvalidRequest("can't mount repos while in mounted datum mode")
            made: dict[str, Mount] = {}
            for request in requests:
                row, branch = self._checked(request)
                existing = made.get(row.name) or self._mounts.get(row.name)
                if existing is not None:
                    old = existing.row._replace(head="", head_time=0)
                    if old != row._replace(head="", head_time=0):
                        raise NameInUse(f"mount at {row.name!r} already in use")
                    if existing.temporary and not request.temporary:
                        self._keep(existing)
                    existing.used = time.monotonic()
                    continue
                made[row.name] = self._make(row, branch)
                made[row.name].temporary = request.temporary and row.mode == "ro"
            self.journal.save_mounts([mount.row for mount in made.values() if not mount.temporary])
            self._mounts.update(made)

    def unmount(self, names: list[str], discard: bool = False) -> None:
        """Commit what is staged in these mounts, then remove them.

        :param discard: forget what is staged instead of committing it.
        :raises NotFound: a name is no mount. :raises MountError: a commit failed. None is unmounted then.
        """
        mounts = [self.get(name) for name in dict.fromkeys(names)]
        if self.datum_mode and mounts:
            raise InvalidRequest("can't unmount repos while in mounted datum mode")
        if not discard:
            for mount in mounts:
                if mount.writable and any(mount.dirty()[:2]):
                    commits.commit(mount, self.source)
        for mount in mounts:
            with self._lock, mount.lock:
                if not discard and any(mount.dirty()[:2]) and mount.snapshot():
                    raise Conflict(f"mount {mount.row.name!r} was written to while it was committed: unmount it again")
                mount.retired = True
                for staged in mount.staged.values():
                    if staged.blob:
                        self.journal.drop_blob(staged.blob)
                self.journal.remove_mount(mount.row.name)
                self._mounts.pop(mount.row.name, None)

    def unmount_all(self) -> None:
        """Commit and remove all mounts, datums too.

        :raises Conflict: what some of them hold could not be committed; those stay, all others are gone.
        """
        self.end_datums()
        failed: dict[str, MountError] = {}
        for mount in self.all():
            try:
                self.unmount([mount.row.name])
            except MountError as e:
                failed[mount.row.name] = e
        if failed:
            name, error = next(iter(failed.items()))
            raise Conflict(
                f"not unmounted: {', '.join(failed)}; what is staged in {name!r} could not be committed: {error}."
                f" PUT /_unmount with discard: true drops it"
            ) from error

    def show_datum(self, mounts: list[Mount]) -> None:
        """Have just these mounts, until `end_datums`. They are not there after a restart."""
        with self._lock:
            self.datum_mode = True
            self._replace(mounts)

    def end_datums(self) -> None:
        """Remove the mounts of a datum and what was written into them."""
        with self._lock:
            if self.datum_mode:
                self._replace([])
                self.datum_mode = False
                self.journal.forget_others(set())

    def _replace(self, mounts: list[Mount]) -> None:
        for mount in self._mounts.values():
            mount.retired = True
        self._mounts = {mount.row.name: mount for mount in mounts}

    def commit(
        self, name: str, message: str, metadata: dict[str, str], expected: str | None, key: str
    ) -> dict[str, Any]:
        """Commit a mount; see `commits.commit`."""
        mount = self.get(name)
        answer = commits.commit(mount, self.source, message, metadata, expected, key)
        if answer["commit"]:
            self.journal.save_mounts([mount.row], sync=False)  # the next look at the branch finds the head again
        return answer

    def move(self, address: str) -> None:
        """Use another pachd. :raises Conflict: staged changes belong to the present one."""
        if address.removeprefix("grpc://") == self.source.address.removeprefix("grpc://"):
            self.source.ping(5.0)
            return
        port = address.rpartition(":")[2]
        if port.isdigit() and not 0 < int(port) < 65536:
            raise InvalidRequest(f"either empty or poorly formatted cluster endpoint: there is no port {port}")
        try:
            source = self._connect(address)
        except ValueError as e:
            raise InvalidRequest(f"either empty or poorly formatted cluster endpoint: {e}") from None
        try:
            source.ping(5.0)
            dirty = [mount.row.name for mount in self.all() if any(mount.dirty()[:2]) and mount.row.repo]
            if dirty:
                raise Conflict(
                    f"mounts {', '.join(dirty)} hold uncommitted changes for {self.source.address}:"
                    " commit or unmount them first"
                )
        except MountError:
            source.close()
            raise
        with self._lock:
            self.unmount_all()
            old, self.source = self.source, source
            self.contents = Contents(source, self.cache)
            self._repos = (0.0, [])
            old.close()

    def repos(self) -> list[RepoInfo]:
        """All repos, at most a second old. :raises Unreachable: pachd does not answer."""
        at, repos = self._repos
        if time.monotonic() - at > REPOS_AGE or not at:
            repos = self.source.repos()
            self._repos = (time.monotonic(), repos)
        return repos

    def ask(self, ref: str) -> tuple[str, str, str, CommitInfo]:
        """Resolve `[project/]repo[@branch|@commit|=commit]`: project, repo, branch ("" for a commit), finished commit.

        :raises NotFound: it is not there, or has no finished commit. :raises InvalidRequest: it has another form.
        """
        head, _, commit = ref.partition("=")
        name, _, branch = head.partition("@")
        project, slash, repo = name.rpartition("/")
        if not repo or ":" in ref or (slash and not project):
            raise InvalidRequest(f"{ref!r} is not a reference: write [project/]repo[@branch|=commit]")
        project = project or "default"
        if not commit and COMMIT_ID.match(branch):
            commit, branch = branch, ""
        if commit:
            info = self.source.commit(project, repo, commit)
            if not info.finished:
                raise NotFound(f"commit {project}/{repo}@{commit} is not finished")
            return project, repo, branch, info
        branch = branch or "master"
        found = self.source.branch(project, repo, branch).finished
        if found is None:
            raise NotFound(f"branch {project}/{repo}@{branch} has no finished commit")
        return project, repo, branch, found

    # --- making -----------------------------------------------------------------------------------------------------

    def _checked(self, request: MountRequest) -> tuple[MountRow, Branch | CommitInfo | None]:
        """Check one request. :return: the mount, and what it shows (None: a branch without commits)."""
        name = check_mount_name(request.name)
        if not request.repo:
            raise InvalidRequest("no repo specified")
        mode = request.mode or "ro"
        if mode not in ("ro", "rw"):
            raise InvalidRequest("mount mode can only be 'ro' or 'rw'")
        project, branch, commit = request.project or "default", request.branch, request.commit
        path = request.path.strip("/")
        if path:
            check_path(path)
        if commit and not COMMIT_ID.match(commit):
            raise InvalidRequest(f"invalid commit ID {commit!r}: it has 32 hexadecimal digits")
        if commit and mode == "rw":
            raise InvalidRequest("a commit cannot be changed: mount it read-only, or mount a branch with mode rw")
        row = MountRow(name, project, request.repo, branch or ("" if commit else "master"), commit, path, mode, "", 0)
        known = self._mounts.get(name)
        if known is not None and known.row._replace(head="", head_time=0) == row:
            return row, None
        if self.source.has_repo(project, request.repo) in ("read", "none") and mode == "rw":
            raise Denied(f"you may not write to {project}/{request.repo}: mount it read-only, or ask for repoWriter")
        what: Branch | CommitInfo | None
        if commit:
            what = self.source.commit(project, request.repo, commit)
            if not what.finished:
                raise InvalidRequest(f"commit {commit} is not finished")
            row = row._replace(branch=row.branch or what.branch)
        else:
            try:
                what = self.source.branch(project, request.repo, row.branch)
                if what.is_output and mode == "rw":
                    raise ReadOnly(
                        f"{project}/{request.repo}@{row.branch} is written by a pipeline: mount it read-only"
                    )
            except NotFound:
                if mode != "rw":
                    raise
                check_branch_name(row.branch)
                what = None
        return row, what

    def _make(self, row: MountRow, what: Branch | CommitInfo | None) -> Mount:
        info = what.finished if isinstance(what, Branch) else what
        ref = CommitRef(row.project, row.repo, info.id) if info is not None else None
        tree = CommitTree(self.source, ref, info.finished if info is not None else self.started)
        if row.path and tree.find(row.path) is None and row.mode == "ro":
            raise NotFound(f"path /{row.path} not found in {row.project}/{row.repo}@{row.commit or row.branch}")
        row = row._replace(head=tree.id, head_time=tree.mtime)
        return self._with_lock(Mount(row, tree, self.journal, self.contents))

    def _restore(self, row: MountRow) -> Mount:
        id_ = row.commit or row.head
        ref = CommitRef(row.project, row.repo, id_) if id_ else None
        return self._with_lock(Mount(row, CommitTree(self.source, ref, row.head_time), self.journal, self.contents))

    def _with_lock(self, mount: Mount) -> Mount:
        row = mount.row
        if row.mode == "rw":  # a branch has one open commit at most: its mounts commit one after the other
            mount.commit_lock = self._commit_locks.setdefault((row.project, row.repo, row.branch), threading.Lock())
        return mount

    def _keep(self, mount: Mount) -> None:
        mount.temporary = False
        self.journal.save_mounts([mount.row])

    def _drop_idle(self) -> None:
        """Remove temporary mounts that nobody uses. Whoever has a file of one open goes on reading it."""
        with self._lock:
            temporary = sorted((m for m in self._mounts.values() if m.temporary), key=lambda mount: mount.used)
            spare = len(temporary) - self.most_temporary
            now = time.monotonic()
            for number, mount in enumerate(temporary):
                if number < spare or now - mount.used > self.idle_limit:
                    mount.retired = True
                    self._mounts.pop(mount.row.name, None)

    # --- following --------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        wait = 0.0
        while not self._stopped.wait(wait):
            wait = FOLLOW_INTERVAL
            self._drop_idle()
            mounts = [mount for mount in self.all() if mount.row.repo]
            try:
                if not self.reachable or not mounts:
                    wait = 2.0 if self.reachable else FOLLOW_INTERVAL
                    self.source.ping(2.0)
                    self.reachable = True
                for mount in mounts:
                    self._look(mount)
            except Unreachable:
                self.reachable = False
                wait = 1.0
            except Exception:  # one odd answer must not end the following for good
                wait = 5.0

    def _look(self, mount: Mount) -> None:
        try:
            if mount.row.commit:
                self._look_at_commit(mount)
                return
            # a commit that runs moves the mount by itself
            if mount.commit_lock.acquire(blocking=False):
                try:
                    before = mount.tree.id
                    commits.resolve(mount, self.source)
                    commits.catch_up(mount, self.source)
                    if mount.tree.id != before:
                        self.journal.save_mounts([mount.row], sync=False)
                finally:
                    mount.commit_lock.release()
            mount.behind = 0
        except (TimedOut, Unreachable):
            raise
        except MountError as e:
            mount.last_error = str(e)

    def _look_at_commit(self, mount: Mount) -> None:
        row = mount.row
        if not row.branch:
            mount.latest = row.commit
            return
        head = self.source.branch(row.project, row.repo, row.branch).head
        if head != mount.latest:
            mount.behind = max(0, self.source.count_commits(row.project, row.repo, row.commit, head, 1000) - 1)
            mount.latest = head
