"""pfs_v2: files of a commit written to an object store, by Egress or by GetFile with a URL."""

from collections.abc import Callable, Iterator

from pachd.api.keys import required_commit, required_file
from pachd.api.service import Call
from pachd.api.threads import in_own_thread
from pachd.api.views import open_view
from pachd.errors import PachError
from pachd.pfs.egress import egress
from pachd.pfs.read import PathRange
from pachd.proto import pfs_pb2
from pachd.store import Snapshot


class Egress:
    """Egress."""

    async def Egress(self, call: Call) -> None:
        request: pfs_pb2.EgressRequest = await call.request()
        if request.HasField("sql_database"):
            secret = request.sql_database.secret
            if not request.sql_database.HasField("secret"):
                raise PachError("egress.sql_database.secret is required")
            if not secret.name or not secret.key:
                raise PachError("egress.sql_database.secret.name and egress.sql_database.secret.key are required")
        commit = required_commit(request)
        if request.HasField("sql_database"):
            raise PachError("egress to a database is not available in this pachd: egress to object storage instead")
        if not request.HasField("object_storage"):
            raise PachError("egress failed")
        file = pfs_pb2.File(commit=commit, path="/")
        written = await _write(call, file, request.object_storage.url, PathRange())
        result = pfs_pb2.EgressResponse.ObjectStorageResult(bytes_written=written)
        await call.reply(pfs_pb2.EgressResponse(object_storage=result))


async def get(call: Call, read: Callable[[Snapshot, pfs_pb2.GetFileRequest, Call], Iterator[bytes]]) -> None:
    """Answer a GetFileRequest with what `read` gives, or with nothing once the files are at the URL it names."""
    request: pfs_pb2.GetFileRequest = await call.request()
    if not request.URL:
        await call.context.patiently(lambda: call.send_all(lambda snapshot: read(snapshot, request, call)))
        return
    bounds = PathRange(request.path_range.lower, request.path_range.upper)
    await _write(call, required_file(request), request.URL, bounds)


async def _write(call: Call, file: pfs_pb2.File, url: str, bounds: PathRange) -> int:
    """Write matching files in a thread of its own kind: the network may be slow, and readers are few."""

    def run() -> int:
        with call.context.store.read() as snapshot:
            try:
                view, _ = open_view(snapshot, file, call)
            except PachError as err:
                raise err.wrapped("get file url") from err
            return egress(view, view.files(file.path, bounds), url)

    return await call.context.patiently(lambda: in_own_thread(run))
