"""Taking in a stream of changes to files, fast: many messages per read, parsed where the bytes are stored."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pachd.api.keys import normal_commit, required_commit
from pachd.api.service import Call
from pachd.api.sources import fetch
from pachd.api.threads import in_own_thread
from pachd.errors import InvalidArgument, NotYet, PachError
from pachd.pfs import refs, temporary
from pachd.pfs.modify import Modification
from pachd.proto import pfs_pb2

T = TypeVar("T")

SMALL = 64 << 10  # bytes; a stream that is no longer than this is parsed in the writer's thread, which saves a hop
FEW = 8  # messages of a stream that is parsed twice, to see what is in it


class Ingest:
    """One stream of ModifyFileRequest messages becoming a `Modification`.

    :param call: the call that the stream belongs to.
    :param with_commit: the first message names the commit (ModifyFile); otherwise none may (CreateFileSet).

    `read` takes the stream in; `finish` returns the complete modification. Nothing is visible to anybody before that
    modification is applied.
    """

    def __init__(self, call: Call, with_commit: bool = True) -> None:
        self.commit: pfs_pb2.Commit | None = None
        self.modification = Modification(call.context.store)
        self._call = call
        self._with_commit = with_commit
        self._pending: list[bytes] = []
        self._closed = False
        self._lock = threading.Lock()  # a cancelled call's thread may still be at work when the call is closed
        self._parse: Callable[[bytes], Any] = pfs_pb2.ModifyFileRequest.FromString

    async def read(self) -> None:
        """Read the stream to its end.

        :raises PachError: a message is wrong; the sentence is Pachyderm's.
        """
        size, large = 0, False
        async for batch in self._call.batches():
            self._pending += batch
            size += sum(map(len, batch))
            if size > SMALL:
                await self._run(self._store)
                size, large = 0, True
        # whatever takes long happens here, while others may still write: waiting for the disk, or for some other server
        if large or any(b"://" in data for data in self._pending):
            await self._run(self._seal)

    def is_small(self) -> bool:
        """Whether the stream only adds a few small files to a commit that it names by its ID. To be asked after `read`.

        What is done for it takes no time then, and makes no commit. Errors as for `read`.
        """
        if not 0 < len(self._pending) <= FEW:
            return False
        first, *others = map(self._parse, self._pending)
        kinds = [request.WhichOneof("body") for request in others]
        return refs.is_id(first.set_commit.id) and kinds.count("add_file") == len(kinds)

    async def _run(self, step: Callable[[], bool]) -> None:
        context = self._call.context
        while await context.patiently(lambda: context.ingest(step)):
            await in_own_thread(self._fetch)

    def finish(self) -> Modification:
        """Parse what is left; errors as for `read`.

        :raises NotYet: files are to be copied from a commit that is being finished; to be called again.
        """
        with self._lock:
            if self._feed():
                url = self._parse(self._pending[0]).add_file.url.URL
                if ":" in url:
                    raise PachError(f"error parsing url {url}: it has no ://")
                raise PachError("unrecognized object store: ")
        if self._with_commit and self.commit is None:
            raise PachError("EOF")
        return self.modification

    def run(self, fn: Callable[[], T]) -> T:
        """Run `fn()`, which works on the modification, in the caller's thread: it is not closed meanwhile."""
        with self._lock:
            return fn()

    def close(self) -> None:
        """Let go of what was not applied, at once or when a thread that is still at work for us notices."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                self.modification.close()
            finally:
                self._lock.release()
        else:
            threading.Thread(target=self._close_later, name="ingest end", daemon=True).start()

    def _close_later(self) -> None:
        with self._lock:
            self.modification.close()

    def _store(self) -> bool:
        with self._lock:
            return self._feed()

    def _seal(self) -> bool:
        with self._lock:
            if self._feed():
                return True
            self.modification.seal()
            return False

    def _fetch(self) -> None:
        """Add what the next message's URL names, however long that takes."""
        with self._lock:
            add = self._parse(self._pending.pop(0)).add_file
            for path, content in fetch(add.path, add.url):
                if self._closed:
                    return
                self.modification.append(path, content, add.datum)

    def _feed(self) -> bool:
        """Parse what is pending, up to a URL; returns whether there is one, which is then the first that pends."""
        pending, self._pending = self._pending, []
        append = self.modification.append
        for number, data in enumerate(pending):
            request = self._parse(data)
            kind = request.WhichOneof("body")
            if kind == "add_file" and (self.commit is not None or not self._with_commit):
                add = request.add_file
                if add.HasField("url"):
                    self._pending = pending[number:]
                    return True
                append(add.path, add.raw.value, add.datum)
            else:
                try:
                    self._other(request, kind)
                except NotYet:
                    self._pending = pending[number:]
                    raise
        return False

    def _other(self, request: pfs_pb2.ModifyFileRequest, kind: str | None) -> None:
        if self._with_commit and self.commit is None:
            if kind != "set_commit":
                raise PachError("first message must be a commit")
            self._call.authorize_now(request)
            self.commit = required_commit(request, "set_commit")
        elif kind == "delete_file":
            self.modification.delete(request.delete_file.path, request.delete_file.datum)
        elif kind == "copy_file":
            if not request.copy_file.HasField("src"):
                raise InvalidArgument(
                    "validate recv: invalid ModifyFileRequest.CopyFile: embedded message failed validation | "
                    "caused by: invalid CopyFile.Src: value is required"
                )
            self._call.authorize_now(request)
            self._copy(request.copy_file)
        elif kind == "set_commit":
            raise PachError("cannot set commit")
        else:
            raise PachError("unrecognized message type")

    def _copy(self, copy: pfs_pb2.CopyFile) -> None:
        with self._call.context.store.read() as snapshot:
            source = normal_commit(copy.src.commit)
            if not self._call.old_client and not copy.src.commit.HasField("repo"):
                missing = "commit with no repo" if copy.src.HasField("commit") else "nil commit"
                raise PachError(f"pick commit tx: cannot pick {missing}")
            if source.repo.name == temporary.REPO:
                tree = temporary.view(snapshot, source.id).tree
                self.modification.copy_tree(tree, copy.src.path, copy.dst, copy.append, copy.datum, copy.src.datum)
                return
            row = refs.resolve_commit(snapshot, source)
        self.modification.copy(row, copy.src.path, copy.dst, copy.append, copy.datum, copy.src.datum)
