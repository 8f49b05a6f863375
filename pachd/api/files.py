"""pfs_v2: ModifyFile and the reads of files."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from pachd import wire
from pachd.api.egress import get
from pachd.api.ingest import Ingest
from pachd.api.keys import required_commit, required_file
from pachd.api.service import Call, read
from pachd.api.views import open_view
from pachd.errors import PachError
from pachd.pfs import encode, filesets, globs, modify, paths, refs, tar, temporary
from pachd.pfs.diff import diff
from pachd.pfs.read import Entry, PathRange, View, check_page, page
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn

CHUNK = 1 << 20  # bytes per message of a GetFile answer
# What has no more bytes is one message, as in Pachyderm: so many may be in one for a client with gRPC's own limit. Not
# for our own client, which may want no more than the first ones.
WHOLE = (4 << 20) - 4096
_OWN_CLIENT = "grpc-python-grpclib/"


class Files:
    """ModifyFile … DiffFile."""

    async def ModifyFile(self, call: Call) -> None:
        """Take a stream of changes into one commit: all of them or, when anything is wrong, none."""
        ingest = Ingest(call)
        try:
            await ingest.read()
            context, small = call.context, ingest.is_small()
            await context.patiently(lambda: context.write(lambda txn: _modify(txn, ingest), small=small))
        finally:
            ingest.close()
        await call.reply(call.reply_type())

    async def GetFile(self, call: Call) -> None:
        await get(call, _get_file)

    async def GetFileTAR(self, call: Call) -> None:
        await get(call, _get_file_tar)

    @read
    def InspectFile(self, snapshot: Snapshot, request: pfs_pb2.InspectFileRequest, call: Call) -> Any:
        file = required_file(request)
        view, commit = open_view(snapshot, file, call)
        return encode.file_info(view.inspect(file.path), commit)

    @read
    def ListFile(self, snapshot: Snapshot, request: pfs_pb2.ListFileRequest, call: Call) -> Iterator[bytes]:
        file = required_file(request)
        check_page(request.number, request.reverse)
        view, commit = open_view(snapshot, file, call)
        return _encoded(view, _page(view.list(file.path), request), commit)

    @read
    def WalkFile(self, snapshot: Snapshot, request: pfs_pb2.WalkFileRequest, call: Call) -> Iterator[bytes]:
        file = required_file(request)
        check_page(request.number, request.reverse)
        view, commit = open_view(snapshot, file, call)
        whole = paths.clean(file.path) == "/" and not request.reverse
        nothing = None if whole else view.not_there(file.path)
        return _encoded(view, _page(view.walk(file.path), request, nothing), commit)

    @read
    def GlobFile(self, snapshot: Snapshot, request: pfs_pb2.GlobFileRequest, call: Call) -> Iterator[bytes]:
        view, commit = open_view(snapshot, pfs_pb2.File(commit=required_commit(request)), call)
        return _encoded(view, view.glob(request.pattern, _path_range(request)), commit)

    @read
    def DiffFile(self, snapshot: Snapshot, request: pfs_pb2.DiffFileRequest, call: Call) -> Iterator[Any]:
        new_file = _checked(request, "new_file", "check new file commit")
        asked = _checked(request, "old_file", "check old file commit") if request.HasField("old_file") else None
        if call.old_client:
            open_view(snapshot, new_file, call)  # an error in the words that it knows
        old_file = _same_in_parent(snapshot, new_file)
        if asked is not None:
            old_file = asked
        old, old_commit = open_view(snapshot, old_file, call) if old_file.HasField("commit") else (None, None)
        new, new_commit = open_view(snapshot, new_file, call)
        for a, b in diff(new, old, new_file.path, old_file.path):
            response = pfs_pb2.DiffFileResponse()
            if a is not None:
                response.new_file.CopyFrom(encode.file_info(a, new_commit))
            if b is not None and old_commit is not None:
                response.old_file.CopyFrom(encode.file_info(b, old_commit))
            yield response


def _checked(request: pfs_pb2.DiffFileRequest, field: str, told: str) -> pfs_pb2.File:
    if not request.HasField(field):
        raise PachError("file cannot be nil")
    try:
        return required_file(request, field)
    except PachError as err:
        raise err.wrapped(told) from err


def _modify(txn: Txn, ingest: Ingest) -> None:
    modification = ingest.finish()
    assert ingest.commit is not None
    try:
        # a stream into an open commit is nothing that anybody waits for
        txn.quiet = not modify.modify_file(txn, ingest.commit, modification)
    except filesets.Large as large:
        make = large.make
        raise filesets.Large(lambda: ingest.run(make), large.goes_on) from None


def _get_file(snapshot: Snapshot, request: pfs_pb2.GetFileRequest, call: Call) -> Iterator[bytes]:
    file = required_file(request)
    try:
        view, _ = open_view(snapshot, file, call)
        globs.compile(file.path)
    except PachError as e:
        raise type(e)(f"get file: {e}") from None
    entry = view.get(file.path, _path_range(request))
    chunks = view.read(entry, request.offset)
    if request.offset < 0 or request.offset >= entry.size:
        return _bytes_values(chunks, CHUNK, empty=call.old_client)
    left = entry.size - request.offset
    return _known_bytes_values(chunks, WHOLE if left <= WHOLE and not _is_own(call) else CHUNK, left)


def _get_file_tar(snapshot: Snapshot, request: pfs_pb2.GetFileRequest, call: Call) -> Iterator[bytes]:
    file = required_file(request)
    view, _ = open_view(snapshot, file, call)
    chunks = tar.stream(view, view.files(file.path, _path_range(request)))
    if _is_own(call):
        return _bytes_values(chunks, CHUNK)
    return _one_if_small(chunks)


def _same_in_parent(snapshot: Snapshot, file: pfs_pb2.File) -> pfs_pb2.File:
    """Return the same path in the parent commit; without a parent, a File without a commit."""
    if file.commit.repo.name == temporary.REPO:
        return pfs_pb2.File(path=file.path, datum=file.datum)
    parent = refs.parent(snapshot, refs.resolve_commit(snapshot, file.commit))
    return pfs_pb2.File(path=file.path, datum=file.datum, commit=None if parent is None else refs.commit_pb(parent))


def _path_range(request: Any) -> PathRange:
    return PathRange(request.path_range.lower, request.path_range.upper)


def _page(entries: Iterable[Entry], request: Any, nothing: PachError | None = None) -> Iterator[Entry]:
    marker = request.paginationMarker.path if request.HasField("paginationMarker") else None
    return page(entries, marker, request.number, request.reverse, nothing)


def _encoded(view: View, entries: Iterable[Entry], commit: pfs_pb2.Commit) -> Iterator[bytes]:
    """Yield framed FileInfo messages, a few entries at first, then a thousand at a time."""
    batch: list[Entry] = []
    limit = 64
    try:
        for entry in entries:
            batch.append(entry)
            if len(batch) >= limit:
                yield view.encoded(batch, commit)
                batch, limit = [], 1024
    except PachError:
        if batch:  # what came before the error is an answer too
            yield view.encoded(batch, commit)
        raise
    if batch:
        yield view.encoded(batch, commit)


def _is_own(call: Call) -> bool:
    return call.user_agent.startswith(_OWN_CLIENT)


def _one_if_small(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield framed BytesValue messages: one if there are no more bytes than fit."""
    first: list[bytes] = []
    size = 0
    for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size > WHOLE:
            break
    return _bytes_values(chain(first, chunks), WHOLE if size <= WHOLE else CHUNK)


def _bytes_values(chunks: Iterable[bytes], size: int, empty: bool = False) -> Iterator[bytes]:
    """Yield framed BytesValue messages, the bytes apart from what is before them.

    :param size: how many bytes each message has, but for the last.
    :param empty: answer an empty content with one empty message, which python-pachyderm 7.6 insists on.
    """
    sent = not empty
    for piece in _pieces(chunks, size):
        sent = True
        field = b"\x0a" + encode.varint(len(piece))
        yield b"\0" + (len(field) + len(piece)).to_bytes(4, "big") + field
        yield piece
    if not sent:
        yield wire.frame(b"")


def _known_bytes_values(chunks: Iterable[bytes], size: int, left: int) -> Iterator[bytes]:
    """Yield the same where it is known that `left` bytes come: no chunk is joined with others."""
    room = 0  # in the message that is under way
    for chunk in chunks:
        while chunk:
            if not room:
                room = min(size, left)
                left -= room
                field = b"\x0a" + encode.varint(room)
                yield b"\0" + (len(field) + room).to_bytes(4, "big") + field
            part = chunk[:room]
            yield part
            room -= len(part)
            chunk = chunk[len(part) :]


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Join small chunks and cut large ones: pieces of `size` bytes, but for the last."""
    waiting: list[bytes] = []
    left = size
    for chunk in chunks:
        while len(chunk) >= left:
            yield b"".join((*waiting, chunk[:left]))
            chunk, waiting, left = chunk[left:], [], size
        if chunk:
            waiting.append(chunk)
            left -= len(chunk)
    if waiting:
        yield b"".join(waiting)
