"""Threads that serve others say here that they are about to wait, so that somebody else serves meanwhile."""

import threading
from collections.abc import Callable

_of_thread = threading.local()


def call_before_waiting(call: Callable[[], None]) -> None:
    """Have something called, in this thread, each time when it is about to wait for what may take long."""
    _of_thread.call = call


def about_to_wait() -> None:
    """To be called before waiting for pachd, or for somebody who waits for pachd. In most threads it does nothing."""
    call = getattr(_of_thread, "call", None)
    if call is not None:
        call()
