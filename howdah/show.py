"""Answers as a person reads them in a terminal."""

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree


def console(stderr: bool = False) -> Console:
    """A console for standard output (or standard error); long lines are left whole when it is not a terminal."""
    out = Console(highlight=False, stderr=stderr)
    return out if out.is_terminal else Console(highlight=False, stderr=stderr, width=200, soft_wrap=True)


def percent(value: float | None) -> str:
    """0.9562 as `95.62 %`."""
    return "–" if value is None else f"{100 * value:.2f} %"


def points(value: float | None) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return "–" if value is None else f"{100 * value:+.2f}"


def status(answer: dict[str, Any]) -> None:
    """Tables of repos and pipelines."""
    out = console()
    out.print(f"pachd {answer['version']} at {answer['address']}")
    repos = Table("repo", "branch", "head", "finished", "by", "message", title="Repos", title_justify="left")
    for repo in answer["repos"]:
        for branch in repo["branches"] or [{}]:
            message = (
                branch.get("error") and f"[red]{escape(branch['error'])}[/red]" or escape(branch.get("message") or "")
            )
            cells = [branch.get(key) or "–" for key in ("branch", "commit", "time", "by")]
            repos.add_row(repo["repo"], *cells, message)
    pipelines = Table("pipeline", "version", "state", "last job", "reason", title="Pipelines", title_justify="left")
    for p in answer["pipelines"]:
        pipelines.add_row(p["pipeline"], str(p["version"]), p["state"], p["last_job"] or "–", escape(p["reason"] or ""))
    out.print(repos if answer["repos"] else "No repos yet.")
    out.print(pipelines if answer["pipelines"] else "No pipelines yet.")


def blame(answer: dict[str, Any]) -> None:
    """One line per annotation, then the history."""
    out = console()
    deleted = ", deleted since" if answer["deleted"] else ""
    out.print(f"{answer['repo']}:{escape(answer['path'])}{deleted}")
    table = Table("annotator", "answer", "labelled", "commit", "committed", "Sync by")
    for a in answer["annotations"]:
        cells = (a["annotator"], _answer(a), a["time"], a["commit"], a["committed"], a["synced_by"])
        table.add_row(*(escape(str(cell or "–")) for cell in cells))
    out.print(table)
    out.print("History, newest first:")
    for version in answer["history"]:
        out.print(f"  {version['commit']}  {version['time']}  {version['change']}  by {escape(version['by'] or '–')}")
        for a in version["annotations"]:
            out.print(f"      {escape(str(a['annotator']))}: {escape(_answer(a))}")
        for a in version["removed"]:
            out.print(f"      removed: {escape(str(a['annotator']))}: {escape(_answer(a))}")


def _answer(annotation: dict[str, Any]) -> str:
    if annotation["cancelled"]:
        return "skipped"
    return ", ".join(a if isinstance(a, str) else json.dumps(a) for a in annotation["answer"]) or "nothing"


def lineage(answer: dict[str, Any]) -> None:
    """One tree: what the commit was made of, and what was made of it."""
    root = Tree(f"[bold]{_commit(answer)}[/bold]")
    for side, title in (("upstream", "made of"), ("downstream", "used for")):
        branch = root.add(f"[dim]{title}[/dim]" if answer[side] else f"[dim]{title}: nothing[/dim]")
        _grow(branch, answer[side], side)
    console().print(root)


def _grow(tree: Tree, nodes: list[dict[str, Any]], side: str) -> None:
    for node in nodes:
        _grow(tree.add(_commit(node)), node[side], side)


def _commit(node: dict[str, Any]) -> str:
    words = [
        f"{node['repo']}@{node['commit']}",
        node["time"] or "",
        node["state"] if node["state"] != "finished" else "",
    ]
    words += [f"by {node['by']}" if node["by"] else "", f"“{node['message']}”" if node["message"] else ""]
    if job := node.get("job"):
        words.append(f"job {job['state']}, {job['processed']} processed, {job['skipped']} skipped of {job['total']}")
    line = escape("  ".join(word for word in words if word))
    return f"{line}  [red]{escape(node['error'])}[/red]" if node["error"] else line


def metrics(answer: list[dict[str, Any]]) -> None:
    """One row per commit."""
    table = Table(
        "commit", "finished", "accuracy", "macro F1", "held out", "trained on", "before*", "change*", "because of"
    )
    for row in answer:
        why = "; ".join(f"{c['repo']}@{c['commit'][:12]} {c['message'] or ''}".strip() for c in row["causes"])
        f1, numbers = percent(row["macro_f1"]), [str(row[key]) for key in ("held_out", "trained_on")]
        before = f"{percent(row['before'])} of {row['common_items']}" if row["before"] is not None else "–"
        cells = [
            row["commit"],
            row["time"] or "",
            percent(row["accuracy"]),
            f1,
            *numbers,
            before,
            points(row["change"]),
        ]
        table.add_row(*cells, escape(why))
    out = console()
    out.print(table)
    out.print(
        "* the model before, on the items that both evaluated, with the newer labels; change in percentage points"
    )


def rollback(answer: dict[str, Any]) -> None:
    """What moved, how to go back, and what runs now."""
    out = console()
    if not answer["moved"]:
        out.print(f"{answer['branch']} is at {answer['to']['commit']} already; nothing was changed.")
        return
    out.print(f"{answer['branch']} is now at {answer['to']['commit']} ({answer['to']['time']}).")
    out.print(f"Forward again: howdah rollback {answer['branch']} --to {answer['from']['commit']}")
    for started in answer["started"]:
        out.print(f"  runs again: {started['branch']}, commit {started['commit']}")
