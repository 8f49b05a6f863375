"""Ports of services: what connects to the external port on loopback reaches the internal one."""

from __future__ import annotations

import asyncio
import threading

from pachd.errors import PachError

_PIECE = 64 << 10  # bytes


class Forwarder:
    """Listens on 127.0.0.1:``external`` and hands every connection on to 127.0.0.1:``internal``.

    Raises PachError when the external port is taken.
    """

    def __init__(self, external: int, internal: int) -> None:
        self._external, self._internal = external, internal
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        try:
            self._server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", external))
        except OSError as error:
            self._loop.close()
            raise PachError(
                f"cannot listen on the service's external port {external} on 127.0.0.1: {error.strerror or error}; "
                "choose another external_port"
            ) from None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"port-{external}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and cut all connections."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._internal)
        except OSError:
            writer.close()  # the code does not listen yet
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


def forward(external: int, internal: int) -> Forwarder | None:
    """A forwarder, or None where the code itself listens on the port that others use."""
    return Forwarder(external, internal) if external and internal and external != internal else None
