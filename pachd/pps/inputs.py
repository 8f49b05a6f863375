"""The input of a pipeline: a tree of repos, joined, crossed, united or grouped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pachd.errors import PachError
from pachd.pfs import schedule
from pachd.proto import pps_pb2
from pachd.types import Branch, Repo

_FAN = ("cross", "join", "group", "union")


class Leg(NamedTuple):
    """One leaf of the tree: a glob over one branch."""

    name: str
    branch: Branch


def kind(node: pps_pb2.Input) -> str:
    """Which sort of node this is: pfs, cron, cross, join, group, union; PachError if it is none or several."""
    found = [k for k in ("pfs", "cron") if node.HasField(k)] + [k for k in _FAN if getattr(node, k)]
    if not found:
        raise PachError("no input set")
    if len(found) > 1:
        raise PachError("multiple input types set")
    return found[0]


def children(node: pps_pb2.Input) -> list[pps_pb2.Input]:
    """The nodes directly below, empty for a leaf."""
    return [child for k in _FAN for child in getattr(node, k)]


def walk(node: pps_pb2.Input) -> Iterator[pps_pb2.Input]:
    """Every node of the tree, children before their parents."""
    for child in children(node):
        yield from walk(child)
    yield node


def name_of(node: pps_pb2.Input) -> str:
    """The name that decides a node's place among its siblings: its first leaf's."""
    if node.HasField("pfs"):
        return node.pfs.name
    below = children(node)
    return name_of(below[0]) if below else ""


def fill(node: pps_pb2.Input, pipeline: str, project: str) -> None:
    """Sort siblings by name, which is the order of a datum's inputs, and fill in an input's defaults, both in place.

    An input without a name is called after its repo, but not sorted by it: it comes before those with names.
    """
    _sort(node)
    triggered: dict[str, int] = {}
    for part in walk(node):
        if part.HasField("pfs"):
            pfs = part.pfs
            if not pfs.branch and pfs.HasField("trigger"):
                triggered[pfs.repo] = triggered.get(pfs.repo, 0) + 1
                pfs.branch = f"{pipeline}-trigger-{triggered[pfs.repo]}"
                pfs.trigger.branch = pfs.trigger.branch or "master"
            pfs.branch = pfs.branch or "master"
            pfs.name = pfs.name or pfs.repo
            pfs.repo_type = pfs.repo_type or "user"
            pfs.project = pfs.project or project
            if pfs.glob:
                pfs.glob = "/" + pfs.glob.strip("/")
        if part.HasField("cron"):
            part.cron.repo = part.cron.repo or f"{pipeline}_{part.cron.name}"
            part.cron.project = part.cron.project or project


def _sort(node: pps_pb2.Input) -> None:
    for part in walk(node):
        for fan in _FAN:
            nodes = getattr(part, fan)
            if len(nodes) > 1:
                ordered = sorted((pps_pb2.Input.FromString(n.SerializeToString()) for n in nodes), key=name_of)
                del nodes[:]
                nodes.extend(ordered)


def validate(node: pps_pb2.Input, project: str) -> None:
    """Check a filled input; PachError in Pachyderm's words."""
    _names(node, set())
    for part in walk(node):
        which = kind(part)
        if which == "pfs":
            _validate_pfs(part.pfs)
        elif which == "cron":
            try:
                schedule.parse(part.cron.spec)
            except PachError as error:
                raise PachError(f"error parsing cron-spec: {error}") from None
        elif which != "cross" and any(leaf.HasField("pfs") and leaf.pfs.s3 for leaf in walk(part)):
            raise PachError(f"S3 inputs in {which} expressions are not supported")


def _validate_pfs(pfs: pps_pb2.PFSInput) -> None:
    if not pfs.repo:
        raise PachError("input must specify a repo")
    if not pfs.s3 and not pfs.glob:
        raise PachError("input must specify a glob")
    if pfs.s3 and pfs.glob != "/":
        raise PachError(
            "inputs that set 's3' to 'true' must also set 'glob', to \"/\", as the S3 gateway is only able "
            "to expose data at the commit level"
        )
    if pfs.s3 and (pfs.lazy or pfs.empty_files):
        other = "lazy" if pfs.lazy else "empty_files"
        raise PachError(
            f"input cannot specify both 's3' and '{other}', as 's3' requires input data to be accessed via "
            "Pachyderm's S3 gateway rather than the file system"
        )
    if pfs.commit:
        raise PachError("input cannot come from a commit; use a branch with head pointing to the commit")


def _names(node: pps_pb2.Input, seen: set[str]) -> None:
    """Every leaf has a name of its own; only the legs of a union may share one."""
    if node.HasField("pfs") or node.HasField("cron"):
        name = node.pfs.name if node.HasField("pfs") else node.cron.name
        if not name:
            raise PachError("input must specify a name")
        if name in ("out", ".env"):
            raise PachError(f"input cannot be named {name}")
        if name in seen:
            raise PachError(f'name "{name}" was used more than once')
        seen.add(name)
        return
    if node.union:
        together: set[str] = set()
        for child in node.union:
            mine = set(seen)
            _names(child, mine)
            together |= mine
        seen |= together
        return
    for child in children(node):
        _names(child, seen)


def legs(node: pps_pb2.Input) -> list[Leg]:
    """All leaves with their branches, in the tree's order (a filled input)."""
    found = []
    for part in walk(node):
        if part.HasField("pfs"):
            repo = Repo(part.pfs.project or "default", part.pfs.repo, part.pfs.repo_type or "user")
            found.append(Leg(part.pfs.name, Branch(repo, part.pfs.branch)))
        elif part.HasField("cron"):
            found.append(
                Leg(part.cron.name, Branch(Repo(part.cron.project or "default", part.cron.repo, "user"), "master"))
            )
    return found


def quiet(node: pps_pb2.Input) -> list[Branch]:
    """The branches whose new commits start no job, as the propagationSpec of a leaf says (a filled input).

    Where several leaves of one branch have one, the last of them counts.
    """
    never: dict[Branch, bool] = {}
    for part in walk(node):
        if part.HasField("pfs") and part.pfs.HasField("propagation_spec"):
            repo = Repo(part.pfs.project or "default", part.pfs.repo, part.pfs.repo_type or "user")
            never[Branch(repo, part.pfs.branch)] = part.pfs.propagation_spec.never
    return [branch for branch, is_never in never.items() if is_never]


def pin(node: pps_pb2.Input, job: str) -> pps_pb2.Input:
    """A copy in which every leaf names the job's ID as its commit, as a job shows its input."""
    pinned = pps_pb2.Input()
    pinned.CopyFrom(node)
    for part in walk(pinned):
        if part.HasField("pfs"):
            part.pfs.commit = job
        elif part.HasField("cron"):
            part.cron.commit = job
    return pinned
