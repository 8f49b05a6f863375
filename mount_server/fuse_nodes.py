"""The paths of directories that the kernel speaks of by number, overheard from libfuse, which alone knows them.

Before the kernel makes a file it asks for its name, which is not there. With the path of the directory at hand this is
answered at a third of what libfuse needs. Whatever is found is left to libfuse, which then gives it a number.
"""

import contextlib
import threading
from collections.abc import Iterator

from mount_server.overlay import Attr


class Here(threading.local):
    """What the request that this thread is over asks for."""

    asked: tuple[int, bytes] | None = None
    """A directory without a known path, and a name in it."""
    found: tuple[bytes, Attr] | None = None
    """A path that was looked up before libfuse was asked, so that it need not be looked up again."""


class Nodes:
    """The known directories. Nothing is known, nor learned, while something is being renamed: paths change then.

    A path that `path` gave may have changed since. Whoever has found nothing there asks again: only if the same object
    comes back has it been the directory's path all the time.
    """

    def __init__(self) -> None:
        self.here = Here()
        self.missing = False
        """Whether the name that was asked for last was not there. Then the next will not be either, most likely; else
        it is left to libfuse at once, as all names are when a directory is listed with its files' states."""
        self._paths: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._renaming = 0
        self.path = self._paths.get
        """The path of a directory by its number, with `/` at its end, or None."""

    def learn(self, path: bytes) -> None:
        """Note the directory of what was asked for, now that libfuse tells its path. To be called in its callback:
        libfuse renames nothing above it until it has returned."""
        if self.here.asked is not None:
            node, name = self.here.asked
            self.here.asked = None
            with self._lock:
                if not self._renaming and path.endswith(b"/" + name):
                    self._paths[node] = path[: -len(name)]

    def forget(self, node: int | None) -> None:
        """The kernel has forgotten a directory, or several; numbers may be used again."""
        with self._lock:
            if node is None:
                self._paths.clear()
            else:
                self._paths.pop(node, None)

    @contextlib.contextmanager
    def renaming(self) -> Iterator[None]:
        """While something is renamed, up to and after the answer."""
        with self._lock:
            self._renaming += 1
            self._paths.clear()
        try:
            yield
        finally:
            with self._lock:
                self._renaming -= 1
