"""The file of the database's log, made as large as it will be before it is needed.

SQLite appends every write to its log and waits for the disk. While the file grows, the disk has to take its new size
too, which costs as much again; in the room that is there already a write is waited for half as long. So where the log
shows that much is written, zeros go behind its end. To SQLite they are what a crash might have left there: a frame
counts only if its salt and its checksum are right, and those of zeros are not.
"""

import contextlib
import logging
import os

from pachd.store import system

logger = logging.getLogger(__name__)

CHECKPOINT = 4000  # pages in the log at which SQLite brings them into the database, and begins the log anew
START = 1 << 20  # bytes; a log that stays shorter is left alone
STEP = 1 << 20  # bytes of zeros at a time: the next write waits for them
LIMIT = CHECKPOINT * (4096 + 24) + STEP  # bytes; a longer one is the exception


class Log:
    """The log of the database `path`. To be used by the one who has the writer's lock, between two transactions."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-wal"
        self._size = 0  # when it was last seen
        self._enough = False

    def make_room(self) -> None:
        """Put zeros behind the log if the write that has just happened made it longer. A disk that does not take them
        is no error: it has room for what is asked of it, or not, without them."""
        if self._enough:
            return
        try:
            size = os.stat(self._path).st_size
            if size == self._size:
                return
            grew, self._size = size > self._size, size
            if grew and START <= size < LIMIT:
                self._size = self._extend(size)
        except OSError as error:
            self._enough = True
            logger.info("no room is kept for the log %s: %s", self._path, error.strerror)

    def _extend(self, size: int) -> int:
        fd = system.open_file(self._path, os.O_WRONLY)
        try:
            system.write_at(fd, bytes(STEP), size)
        except OSError:
            with contextlib.suppress(OSError):
                system.truncate(fd, size)  # give back what there was: others may need it more
            raise
        finally:
            os.close(fd)  # SQLite's own locks are on other files, and are not lost by this
        return size + STEP
