"""Requests of the kernel, received and answered by one thread at a time as long as nobody has to wait.

To wake a thread, and the CPU it sleeps on, costs more than most answers do. So the thread that has answered receives
the next request itself, and looks for it for a moment before it sleeps. A thread that is about to wait for pachd gives
up its turn to another; one that waits for something else, which it does not say, is noticed and loses its turn.
"""

import ctypes
import errno
import functools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from mount_server import waiting

log = logging.getLogger(__name__)

MOST_THREADS = 256  # more callers than this wait for each other; each may be waiting for pachd
LOOK = 0.0002  # seconds to look for the next request before sleeping; about what it takes to be woken
MISSES = 3  # looks in vain, one after the other, that are followed
REST = 0.05  # by so many seconds without
PUSHED = 0.0005  # seconds off the CPU while looking that tell of others who need it: a rest follows at once
STUCK = 0.02  # seconds over one answer after which another thread receives

_UNMOUNTED = (errno.ENODEV, errno.ECONNABORTED)


class _Seat:
    """What a thread needs to receive: a buffer, and whether it is over an answer."""

    def __init__(self, size: int) -> None:
        data = bytearray(size)
        self.buffer = memoryview(data)
        self.buffers = [self.buffer]
        self.held = (ctypes.c_char * size).from_buffer(data)
        self.address = ctypes.addressof(self.held)
        self.answering = False
        self.answered = 0


class Loop:
    """The threads that serve one FUSE device.

    :param fd: the device.
    :param size: bytes that the longest request may have.
    :param answer: called with a request, its address and its length in bytes, by several threads at once.
    """

    def __init__(self, fd: int, size: int, answer: Callable[[memoryview, int, int], object]) -> None:
        self._fd, self._size, self._answer = fd, size, answer
        os.set_blocking(fd, False)
        self._poll = functools.partial(_poll, fd)
        self._turn = threading.Lock()  # held by the thread that receives; another may release it
        self._mutex = threading.Lock()
        self._holder: _Seat | None = None
        self._parked: deque[None] = deque()  # one token per thread that waits for its turn
        self._threads: list[threading.Thread] = []
        self._awake, self._over = threading.Event(), threading.Event()
        self._misses = 0
        # with one CPU, looking would keep off it whoever makes the requests
        self._rest_until = 0.0 if len(os.sched_getaffinity(0)) > 1 else float("inf")

    def run(self) -> None:
        """Serve until the file system is unmounted."""
        watch = threading.Thread(target=self._watch, name="fuse-watch", daemon=True)
        watch.start()
        self._serve()
        for thread in (*self._threads, watch):
            thread.join()

    def _serve(self) -> None:
        seat = _Seat(self._size)
        waiting.call_before_waiting(functools.partial(self._give_up, seat))
        while True:
            self._parked.append(None)
            self._turn.acquire()
            self._parked.pop()
            self._holder = seat
            while not self._over.is_set() and self._holder is seat:
                size = self._receive(seat)
                if not size:
                    with self._mutex:  # no more threads from here on
                        self._over.set()
                    self._awake.set()
                    break
                seat.answering = True
                self._answer(seat.buffer, seat.address, size)
                seat.answering = False
                seat.answered += 1
            if self._over.is_set():
                self._give_up(seat)
                return

    def _receive(self, seat: _Seat) -> int:
        """Wait for a request. :return: its length in bytes; 0: there will be none any more."""
        began = seen = 0.0
        while True:
            try:
                size = os.readv(self._fd, seat.buffers)
                if began:
                    self._misses = 0
                return size
            except BlockingIOError:
                pass
            except OSError as e:
                if e.errno in _UNMOUNTED:
                    return 0
                if e.errno != errno.ENOENT:  # that one: its caller has given up
                    log.exception("the kernel's requests cannot be read")
                    return 0
                continue
            now = time.perf_counter()
            if not began and now > self._rest_until:
                began = seen = now
            if began and now - began < LOOK:
                seen = now
                continue
            if began:
                self._misses += 1
                if self._misses >= MISSES or now - seen > PUSHED:
                    self._misses, self._rest_until = 0, now + REST
                began = 0.0
            self._awake.clear()
            self._poll()
            self._awake.set()

    def _give_up(self, seat: _Seat) -> None:
        """Let another thread receive, if it is this one's turn."""
        with self._mutex:
            if self._holder is not seat:
                return
            self._holder = None
            if not self._parked and not self._over.is_set() and len(self._threads) < MOST_THREADS - 1:
                thread = threading.Thread(target=self._serve, name=f"fuse-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._turn.release()

    def _watch(self) -> None:
        """Take the turn from a thread that is over one answer for too long."""
        while not self._over.is_set():
            self._awake.wait()
            seat = self._holder
            before = seat.answered if seat is not None and seat.answering else -1
            self._over.wait(STUCK)
            if seat is not None and seat.answering and seat.answered == before:
                self._give_up(seat)


def _poll(fd: int) -> None:
    """Sleep until there is something to be read, or an error. Several threads may."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()
