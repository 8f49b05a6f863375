"""Lazy inputs: named pipes that get a file's bytes when the code opens them, and cost nothing when it does not."""

from __future__ import annotations

import os
import threading

from pachd.store import Store, contents, system
from pachd.store.tree import Entry

_LOOK = 0.01  # seconds between looks for a reader


class Pipes:
    """Feeds the pipes of one datum, (path on disk, entry): each of them once.  `close` it when the datum is over."""

    def __init__(self, store: Store, pipes: list[tuple[str, Entry]]) -> None:
        self._store = store
        self._waiting = dict(pipes)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if pipes:
            self._thread = threading.Thread(target=self._look, name="lazy-inputs", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Feed no more pipes; one that is being read goes on until its reader ends."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while self._waiting and not self._over.wait(_LOOK):
            for path in list(self._waiting):
                try:
                    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                except FileNotFoundError:
                    del self._waiting[path]
                except OSError:  # nobody has opened it
                    continue
                else:
                    entry = self._waiting.pop(path)
                    threading.Thread(target=self._feed, args=(fd, entry), name="lazy-input", daemon=True).start()

    def _feed(self, fd: int, entry: Entry) -> None:
        try:
            os.set_blocking(fd, True)
            with self._store.read() as snapshot:
                for part in contents.read(snapshot, entry[3]):
                    system.write_all(fd, part)
        except OSError:  # its reader has read enough
            pass
        finally:
            os.close(fd)
