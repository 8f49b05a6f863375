"""File sets, files that belong to no commit yet: the RPCs of pfs_v2 about them, and storage.Fileset."""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.empty_pb2 import Empty

from pachd.api.ingest import Ingest
from pachd.api.keys import required_commit
from pachd.api.service import Call, Service, read, write
from pachd.errors import PachError, Unimplemented
from pachd.pfs import cache, refs, temporary
from pachd.pfs.modify import Modification
from pachd.proto import pfs_pb2, storage_pb2
from pachd.store import Snapshot, Txn


class FileSets:
    """CreateFileSet … ShardFileSet of pfs_v2."""

    async def CreateFileSet(self, call: Call) -> None:
        ingest = Ingest(call, with_commit=False)
        try:
            await ingest.read()
            context = call.context
            file_set = await context.patiently(
                lambda: context.write(lambda txn: temporary.create(txn, ingest.finish()))
            )
        finally:
            ingest.close()
        await call.reply(pfs_pb2.CreateFileSetResponse(file_set_id=file_set))

    @write()
    def GetFileSet(self, txn: Txn, request: pfs_pb2.GetFileSetRequest, call: Call) -> Any:
        commit = required_commit(request)
        if commit.repo.name == temporary.REPO and (commit.id or commit.branch.name):
            raise PachError("get file set: the commit is forgotten")
        try:
            diff = request.type == pfs_pb2.GetFileSetRequest.DIFF
            file_set = temporary.of_commit(txn, refs.resolve_commit(txn, commit), diff)
        except PachError as e:
            raise e.wrapped("get file set") from None
        return pfs_pb2.CreateFileSetResponse(file_set_id=file_set)

    @write()
    def AddFileSet(self, txn: Txn, request: pfs_pb2.AddFileSetRequest, call: Call) -> None:
        commit = required_commit(request)
        temporary.check_id(request.file_set_id)
        row = refs.resolve_commit(txn, commit)
        if row.state != pfs_pb2.STARTED:
            raise PachError(f"commit {row.repo}@{row.id} has already finished")
        temporary.add_to(txn, row, request.file_set_id)

    @write()
    def RenewFileSet(self, txn: Txn, request: pfs_pb2.RenewFileSetRequest, call: Call) -> None:
        temporary.renew(txn, request.file_set_id, request.ttl_seconds)

    @write()
    def ComposeFileSet(self, txn: Txn, request: pfs_pb2.ComposeFileSetRequest, call: Call) -> Any:
        file_set = temporary.compose(txn, request.file_set_ids, request.ttl_seconds)
        return pfs_pb2.CreateFileSetResponse(file_set_id=file_set)

    @read
    def ShardFileSet(self, snapshot: Snapshot, request: pfs_pb2.ShardFileSetRequest, call: Call) -> Any:
        shards = temporary.shard(snapshot, request.file_set_id, request.num_files, request.size_bytes)
        return pfs_pb2.ShardFileSetResponse(shards=[pfs_pb2.PathRange(lower=a, upper=b) for a, b in shards])


class Cache:
    """PutCache, GetCache and ClearCache of pfs_v2."""

    @write()
    def PutCache(self, txn: Txn, request: pfs_pb2.PutCacheRequest, call: Call) -> None:
        cache.put(
            txn,
            request.key,
            request.value if request.HasField("value") else None,
            request.file_set_ids,
            request.tag,
        )

    @read
    def GetCache(self, snapshot: Snapshot, request: pfs_pb2.GetCacheRequest, call: Call) -> Any:
        return pfs_pb2.GetCacheResponse(value=cache.get(snapshot, request.key))

    @write()
    def ClearCache(self, txn: Txn, request: pfs_pb2.ClearCacheRequest, call: Call) -> None:
        cache.clear(txn, request.tag_prefix)


class Fileset(Service):
    """The same things as the newer service storage.Fileset names them."""

    name = "storage.Fileset"

    async def CreateFileset(self, call: Call) -> None:
        with Modification(call.context.store) as modification:
            async for batch in call.batches():
                await call.context.ingest(lambda batch=batch: self._feed(call, modification, batch))  # type: ignore[misc]
            file_set = await call.context.write(lambda txn: temporary.create(txn, modification))
        await call.reply(storage_pb2.CreateFilesetResponse(fileset_id=file_set))

    def _feed(self, call: Call, modification: Modification, batch: list[bytes]) -> None:
        for data in batch:
            request = call.parse(data)
            kind = request.WhichOneof("modification")
            if kind == "append_file":
                modification.append(request.append_file.path, request.append_file.data.value)
            elif kind == "delete_file":
                modification.delete(request.delete_file.path)
            elif kind == "copy_file":
                copy = request.copy_file
                with call.context.store.read() as snapshot:
                    tree = temporary.view(snapshot, copy.fileset_id).tree
                    modification.copy_tree(tree, copy.src, copy.dst or copy.src)

    @read
    def ReadFileset(self, snapshot: Snapshot, request: storage_pb2.ReadFilesetRequest, call: Call) -> Iterator[Any]:
        filters = [_filter(f) for f in request.filters]
        view = temporary.view(snapshot, request.fileset_id)
        for entry in view.walk("/"):
            if entry.is_dir or not all(matches(entry.path) for matches in filters):
                continue
            empty = True
            for chunk in () if request.empty_files else view.read(entry):
                empty = False
                yield storage_pb2.ReadFilesetResponse(path=entry.path, data={"value": chunk})
            if empty:
                yield storage_pb2.ReadFilesetResponse(path=entry.path, data={})

    @read
    def ReadFilesetCDR(self, snapshot: Snapshot, request: storage_pb2.ReadFilesetRequest, call: Call) -> Iterator[Any]:
        temporary.require(snapshot, request.fileset_id, "path does not exist")
        raise Unimplemented("the chunks of this pachd have no URLs: read the file set with ReadFileset instead")

    @write()
    def RenewFileset(self, txn: Txn, request: storage_pb2.RenewFilesetRequest, call: Call) -> Any:
        temporary.check_id(request.fileset_id)
        seconds = request.ttl_seconds  # the newer service counts in seconds
        if seconds < 1:
            raise PachError(f"ttl ({seconds}) must be at least one second")
        if seconds > temporary.MAX_TTL:
            raise PachError(f"ttl ({seconds}s) exceeds max ttl ({temporary.MAX_TTL}s)")
        temporary.renew(txn, request.fileset_id, request.ttl_seconds)
        return Empty()

    @write()
    def ComposeFileset(self, txn: Txn, request: storage_pb2.ComposeFilesetRequest, call: Call) -> Any:
        file_set = temporary.compose(txn, request.fileset_ids, request.ttl_seconds)
        return storage_pb2.ComposeFilesetResponse(fileset_id=file_set)

    @read
    def ShardFileset(self, snapshot: Snapshot, request: storage_pb2.ShardFilesetRequest, call: Call) -> Any:
        shards = temporary.shard(snapshot, request.fileset_id, request.num_files, request.size_bytes)
        return storage_pb2.ShardFilesetResponse(shards=[storage_pb2.PathRange(lower=a, upper=b) for a, b in shards])


def _filter(message: storage_pb2.FileFilter) -> Any:
    if message.WhichOneof("filter") == "path_regex":
        try:
            pattern = re.compile(message.path_regex)
        except re.error as e:
            raise PachError(f"error parsing regexp: {e}: `{message.path_regex}`") from None
        return pattern.search
    lower, upper = message.path_range.lower, message.path_range.upper
    return lambda path: path >= lower and (not upper or path < upper)


SERVICES = [Fileset]
