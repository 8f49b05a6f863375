"""debug_v2: what `pachctl debug` asks of an embedded server, in the smallest form that its reader accepts."""

import io
import platform
import sys
import tarfile

from google.protobuf.wrappers_pb2 import BytesValue

from pachd.api.service import Call, Service
from pachd.proto import debug_pb2


class Debug(Service):
    name = "debug_v2.Debug"

    async def Dump(self, call: Call) -> None:
        await call.request()
        await call.reply(BytesValue(value=_archive()))

    async def DumpV2(self, call: Call) -> None:
        await call.request()
        progress = debug_pb2.DumpProgress(task="version", total=1, progress=1)
        await call.reply(debug_pb2.DumpChunk(progress=progress))  # python-pachyderm expects progress first
        await call.reply(debug_pb2.DumpChunk(content=debug_pb2.DumpContent(content=_archive())))

    async def Profile(self, call: Call) -> None:
        await call.request()
        await call.reply(BytesValue(value=_archive()))

    async def Binary(self, call: Call) -> None:
        await call.request()
        await call.reply(BytesValue(value=_archive()))

    async def GetDumpV2Template(self, call: Call) -> None:
        await call.request()
        await call.reply(debug_pb2.GetDumpV2TemplateResponse())


def _archive() -> bytes:
    """Return a .tar.gz that says what runs here; it holds nothing of the data."""
    text = f"python {sys.version}\nplatform {platform.platform()}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("pachd/version.txt")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


SERVICES = [Debug]
