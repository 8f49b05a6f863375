"""Run the speed table: `python -m benchmarks [--only NAME] [--quick] [--json FILE]`.

Every module named in PARTS has `run(folder, quick) -> list of rows` or `run(folder)`. A part that fails is shown with
its error, is not in the results, and makes the exit code 1; a missed bar does not.
"""

import argparse
import importlib
import inspect
import json
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.result import Row

PARTS = ("pfs", "pps", "mount", "label_studio")
RESULTS = Path(__file__).parent / "results.json"


def run_part(name: str, quick: bool) -> list[Row]:
    """The rows of one part, measured in a temporary folder of its own.

    :raises Exception: whatever stopped the part.
    """
    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        if "quick" in inspect.signature(module.run).parameters:
            rows: list[Row] = module.run(Path(folder), quick=quick)
        else:
            rows = module.run(Path(folder))
    return rows


def show(rows: list[Row], console: Console) -> None:
    """The rows as a table."""
    table = Table(title="Howdah, measured")
    for heading in ("what", "measured", "bar", "met", "peer", "peer measured"):
        table.add_column(heading, justify="right" if heading in ("measured", "bar", "peer measured") else "left")
    for r in rows:
        peer_value = "" if r["peer_value"] is None else f"{r['peer_value']:,g}"
        met = "[green]yes[/]" if r["met"] else "[red]no[/]"
        table.add_row(r["name"], f"{r['value']:,g} {r['unit']}", f"{r['bar']:,g}", met, r["peer"] or "", peer_value)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure every row of the speed table.")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one part ({', '.join(PARTS)}); repeatable")
    parser.add_argument("--quick", action="store_true", help="smaller numbers of files, to see that everything runs")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help=f"where results go ({RESULTS.name})")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a part has started ends with it
    unknown = set(options.only or ()) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")

    console = Console()
    rows: list[Row] = []
    failed: list[str] = []
    for part in options.only or PARTS:
        started = time.monotonic()
        try:
            rows += run_part(part, options.quick)
            options.json.write_text(json.dumps(rows, indent=1) + "\n")  # what a later part's end cannot lose
            console.print(f"{part}: {time.monotonic() - started:.0f} s")
        except Exception:
            failed.append(part)
            traceback.print_exc()
    show(rows, console)
    console.print(f"written to {options.json}")
    for part in failed:
        console.print(f"[red]{part} failed: its rows are missing[/]")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
