"""The subcommands of `pachd` that look after a data folder: check, scrub, collect, describe, back up, restore."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pachd.store import Store, StoreError, StoreInUse

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def open_folder(data: Path, create: bool = True, objects: str | None = None, endpoint: str = "") -> Store:
    """Open a data folder with all its tables; new large contents go to `objects`, if given. Raises StoreError."""
    from pachd import pfs, pps
    from pachd.pps import hooks
    from pachd.store import contents

    store = Store.open(data, [*pfs.SCHEMA, *pps.SCHEMA], create=create)
    hooks.connect(store)
    if objects:
        try:
            contents.shared(store).packs.use(store, objects, endpoint)
        except BaseException:
            store.close()
            raise
    return store


def _folder(name: str = "data", metavar: str = "DIR") -> Callable[[Any], Any]:
    return click.argument(name, type=click.Path(file_okay=False, path_type=Path), metavar=metavar)


def _examples(*commands: str) -> str:
    return "\b\n" + "\n".join(("Examples:" if len(commands) > 1 else "Example:", *(f"  {each}" for each in commands)))


def _json_option() -> Callable[[Any], Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextmanager
def _looked_at(data: Path) -> Iterator[Store]:
    """The folder, whether a pachd serves it or begins to; StoreError becomes a sentence and exit code 1."""
    with _sentences():
        try:  # a folder of an older pachd gets the tables that it lacks
            open_folder(data, create=False).close()
        except StoreInUse:
            pass
        with Store.view(data) as store:
            yield store


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except StoreError as e:
        raise click.ClickException(str(e)) from None
    except sqlite3.DatabaseError as e:
        raise click.ClickException(f"the database is damaged ({e}): restore a backup") from None
    except OSError as e:
        raise click.ClickException(f"{e.filename or ''}{': ' if e.filename else ''}{e.strerror or e}") from None


@contextmanager
def _bar(label: str, unit: str = "bytes") -> Iterator[Callable[[int, int], object]]:
    """A progress bar on stderr, where that is a terminal: call what it gives with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bar = BarColumn()
    columns: list[Any] = [TextColumn("{task.description}"), bar, DownloadColumn(), TransferSpeedColumn()]
    if unit != "bytes":
        columns = [TextColumn("{task.description}"), bar, TextColumn("{task.percentage:>3.0f} %")]
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@click.command(epilog=_examples("pachd fsck ~/howdah/pachd", "pachd fsck --data ~/howdah/pachd"))
@_folder()
@click.option("--data", "rehash", is_flag=True, help="Also read every file and compare its hash.")
def fsck(data: Path, rehash: bool) -> None:
    """Check the data folder DIR, whether a pachd serves it or not.

    Checks the database, the trees of files, repos, branches, commits, provenance, pipelines and jobs. Exit code 1 if
    anything is wrong, with a line for each problem.
    """
    with _looked_at(data) as store:
        _tell(data, problems(store, rehash))


def problems(store: Store, rehash: bool) -> Iterator[str]:
    """What is wrong with a store, a sentence each, as they are found."""
    from pachd.pfs import check
    from pachd.pps import check as pps_check

    with store.read() as snapshot:
        yield from check.check(snapshot, rehash)
        yield from pps_check.check(snapshot)


def _tell(data: Path, found: Iterator[str]) -> None:
    count = 0
    for problem in found:
        click.echo(problem)
        count += 1
    if count:
        raise click.ClickException(f"{count} problems in {data}")
    click.echo(f"{data}: no problems found")


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 10m or 1.5h")
    return float(match[1]) * _UNITS[match[2]]


@click.command(epilog=_examples("pachd scrub ~/howdah/pachd --max-duration 10m", "pachd scrub ~/howdah/pachd --json"))
@_folder()
@click.option("--max-duration", callback=_seconds, metavar="TIME", help="Stop after this time: 90s, 10m, 1.5h.")
@_json_option()
def scrub(data: Path, max_duration: float | None, as_json: bool) -> None:
    """Read the files of DIR again and compare their hashes, from where the last scrub stopped.

    Works beside a pachd that serves the folder. Exit code 1 if anything is damaged.
    """
    from pachd.store.scrub import scrub as run

    found: list[str] = []
    with _looked_at(data) as store, _bar(f"scrub {data}", "percent") as progress:
        done = run(store, max_duration, found.append, lambda done: progress(int(done.share * 1000), 1000))
    if as_json:
        click.echo(json.dumps({**asdict(done), "found": found}))
    else:
        for problem in found:
            click.echo(problem)
        rest = "all has been read" if done.complete else f"{done.share:.0%} of the way; the next scrub goes on there"
        click.echo(f"{data}: {done.pages} pages, {done.files} files, {_human(done.bytes)} read: {rest}")
    if found:
        raise click.ClickException(f"{len(found)} problems in {data}")


@click.command(epilog=_examples("pachd gc ~/howdah/pachd"))
@_folder()
@_json_option()
def gc(data: Path, as_json: bool) -> None:
    """Free what no commit or file set needs in DIR, which no pachd may be using; a running pachd does it by itself."""
    from pachd.pfs import collect
    from pachd.store import shrink

    with _sentences(), open_folder(data, create=False) as store:
        done = collect.garbage(store)
        shrunk = shrink.database(store)
    if as_json:
        click.echo(json.dumps({**done._asdict(), "database": shrunk}))
        return
    click.echo(
        f"{data}: {done.pages} pages and {done.containers} contents of {_human(done.bytes)} were collected, "
        f"{_human(done.punched)} given back inside packs, the database is {_human(shrunk)} smaller"
    )


@click.command(epilog=_examples("pachd info ~/howdah/pachd", "pachd info ~/howdah/pachd --json"))
@_folder()
@_json_option()
def info(data: Path, as_json: bool) -> None:
    """Tell what is in DIR: format, repos, commits, files, bytes, and how much of the disk they take."""
    from pachd.pfs import describe

    with _looked_at(data) as store, store.read() as snapshot:
        found = describe.describe(snapshot)
    if as_json:
        click.echo(json.dumps(found))
        return
    for key, value in found.items():
        if key != "repos":
            click.echo(f"{key.replace('_', ' '):24}{_human(value) if key.endswith('bytes') else value}")
    for repo in found["repos"]:
        click.echo(
            f"repo {repo['name']}: {repo['branches']} branches, {repo['commits']} commits; "
            f"newest: {repo['files']} files, {_human(repo['bytes'])}"
        )


@click.command(epilog=_examples("pachd backup ~/howdah/pachd /backups/today"))
@_folder()
@_folder("dest", "DEST")
def backup(data: Path, dest: Path) -> None:
    """Copy the data folder DIR to the new folder DEST, while a pachd serves it or not.

    What was committed when it began is in the copy.
    """
    from pachd.store.backup import backup as run

    with _looked_at(data) as store, _bar(f"back up {data}") as progress:
        copied = run(store, str(dest), progress)
    click.echo(f"{dest}: {copied.files} files, {_human(copied.bytes)}; `pachd restore {dest} DIR` makes a folder of it")


@click.command(
    epilog=_examples(
        "pachd restore /backups/today ~/howdah/restored", "pachd restore --quick /backups/today ~/howdah/restored"
    )
)
@_folder("source", "BACKUP")
@_folder()
@click.option("--quick", is_flag=True, help="Check the structure only, do not read every file again.")
def restore(source: Path, data: Path, quick: bool) -> None:
    """Make the new folder DIR of what `pachd backup` wrote to BACKUP, and check it."""
    from pachd.store.backup import restore as run

    with _sentences(), _bar(f"restore {data}") as progress:
        copied = run(str(source), str(data), progress)
    click.echo(f"{data}: {copied.files} files, {_human(copied.bytes)}")
    with _looked_at(data) as store:
        _tell(data, problems(store, rehash=not quick))


COMMANDS = (fsck, scrub, gc, info, backup, restore)


def _human(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
