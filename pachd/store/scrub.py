"""Reading everything again, a while at a time: pages and files are compared with their hashes, from where the last
scrub stopped."""

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pachd.store import system
from pachd.store.fsck import Fsck
from pachd.store.store import Store

_STATE = "scrub.json"
_BATCH = 64  # pages per snapshot


@dataclass
class Scrubbed:
    """What a scrub has done. `share`: the part of the store that lies behind the place where it stopped."""

    pages: int = 0
    files: int = 0
    bytes: int = 0
    problems: int = 0
    complete: bool = False
    share: float = 0.0
    cycles: int = 0  # how often everything was read, ever


def scrub(
    store: Store,
    seconds: float | None,
    found: Callable[[str], object],
    progress: Callable[[Scrubbed], object] = lambda done: None,
) -> Scrubbed:
    """Read and compare for at most `seconds` (None: to the end), then remember where; the next one goes on there.

    Pages are taken in the order of their hashes, so what is written meanwhile is met in this cycle or the next. A
    large file is finished even if the time is up.

    :param found: called with a sentence for each problem.
    :param progress: called every few pages.
    """
    begin = system.monotonic()
    path = os.path.join(store.path, _STATE)
    state = _load(path)
    after = bytes.fromhex(state["after"])
    done = Scrubbed(cycles=state["cycles"])
    over = False
    while not over:
        with store.read() as snapshot:
            fsck = Fsck(snapshot, rehash=True)
            try:
                rows = snapshot.db.execute(
                    "SELECT id, data FROM page WHERE id>? ORDER BY id LIMIT ?", (after, _BATCH)
                ).fetchall()
            except sqlite3.DatabaseError as err:
                found(f"database: {err}")
                done.problems += 1
                break
            if not rows:
                done.complete = over = True
            for page_id, data in rows:
                for problem in fsck.page(page_id, data):
                    found(problem)
                    done.problems += 1
                after = page_id
                done.pages += 1
                if seconds is not None and system.monotonic() - begin >= seconds:
                    over = True
                    break
        done.files, done.bytes = done.files + fsck.files, done.bytes + fsck.bytes
        done.share = 1.0 if done.complete else int.from_bytes(after[:4].ljust(4, b"\0"), "big") / 2**32
        progress(done)
    if done.complete:
        done.cycles, after = done.cycles + 1, b""
    _save(path, {"after": after.hex(), "cycles": done.cycles, "last": asdict(done), "at": system.now_ns()})
    return done


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            state = json.load(file)
        return {"after": bytes.fromhex(state["after"]).hex(), "cycles": int(state["cycles"])}
    except (OSError, ValueError, KeyError, TypeError):  # nothing is lost by beginning anew
        return {"after": "", "cycles": 0}


def _save(path: str, state: dict[str, Any]) -> None:
    fd = system.open_file(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        system.write_all(fd, json.dumps(state).encode())
        system.fsync(fd)
    finally:
        os.close(fd)
    system.rename(path + ".new", path)
    system.fsync_dir(os.path.dirname(path))
