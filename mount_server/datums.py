"""Datums of an input, mounted one at a time as a worker would see them: each input under its name, and `out`.

Pachyderm's mount server has this for notebooks (its routes `/datums`): code that will run in a pipeline is tried on one
datum after the other. `out` is scratch space of the datum that is mounted, nothing commits it.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from mount_server.errors import Conflict, InvalidRequest, NotFound, PachdFailed
from mount_server.journal import MountRow
from mount_server.listing import CommitTree
from mount_server.manager import Mounts
from mount_server.mount import Mount
from mount_server.source import CommitInfo, CommitRef, DatumFile
from pachd.proto import pps_pb2

OUT = "out"
LIMIT = 1_000_000  # datums of one input; about a kilobyte each


class Leaf(NamedTuple):
    """A PFS input: the name that its files appear under, and the commit that they are of."""

    name: str
    branch: str
    glob: str
    ref: CommitRef
    info: CommitInfo


class Datum(NamedTuple):
    """One datum: its ID where pachd gives one, and its files by the name they appear under."""

    id: str
    files: dict[str, list[DatumFile]]


class _Moved(Exception):
    """A branch got a new head between two looks."""


class Datums:
    """The datums that are mounted, and which of them is seen. :param mounts: what shows them."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self._lock = threading.RLock()
        self._input: pps_pb2.Input | None = None
        self._leaves: list[Leaf] = []
        self._datums: list[Datum] = []
        self._index = 0
        self._trees: dict[CommitRef, CommitTree] = {}
        self._globbed: dict[tuple[CommitRef, str], set[str]] = {}

    def state(self) -> dict[str, Any]:
        """What is mounted, as GET `/datums` answers."""
        with self._lock:
            if not self._active():
                return {"num_datums": 0, "input": None, "idx": 0, "all_datums_received": False}
            document = MessageToDict(self._input, preserving_proto_field_name=True) if self._input else None
            return {
                "num_datums": len(self._datums),
                "input": document,
                "idx": self._index,
                "all_datums_received": True,
            }

    def mount(self, body: bytes) -> dict[str, Any]:
        """Show the first datum of an input. All other mounts are committed and unmounted, but only when this is sound.

        :param body: JSON or YAML with an `input`, such as a whole pipeline spec.
        :raises InvalidRequest: it is no input, names what is not there, or has no datums; nothing has changed then.
        """
        input_ = parse(body)
        with self._lock:
            leaves, datums = self._listed(input_)
            if not datums:
                raise InvalidRequest("error listing spec's datums: spec produces zero datums; nothing to mount")
            if self._active():
                self._mounts.end_datums()
            else:
                self._mounts.unmount([mount.row.name for mount in self._mounts.all()])
            self._input, self._leaves, self._datums = input_, leaves, datums
            self._trees, self._globbed = {}, {}
            return self._show(0)

    def next(self) -> dict[str, Any]:
        """Show the next datum. :raises InvalidRequest: there is none."""
        return self._step(1, "already at last datum")

    def previous(self) -> dict[str, Any]:
        """Show the datum before. :raises InvalidRequest: there is none."""
        return self._step(-1, "already at first datum")

    def show(self, index: int | None, id_: str) -> dict[str, Any]:
        """Show the datum with a number, counted from 0, or with an ID. :raises InvalidRequest: there is none."""
        with self._lock:
            self._check_active()
            if index is None:
                index = next((i for i, datum in enumerate(self._datums) if id_ and datum.id == id_), -1)
            if not 0 <= index < len(self._datums):
                raise InvalidRequest(f"there is no such datum: {len(self._datums)} are mounted, counted from 0")
            return self._show(index)

    def _active(self) -> bool:
        return self._mounts.datum_mode

    def _check_active(self) -> None:
        if not self._active():
            raise InvalidRequest("no datums mounted")

    def _step(self, by: int, over: str) -> dict[str, Any]:
        with self._lock:
            self._check_active()
            if not 0 <= self._index + by < len(self._datums):
                raise InvalidRequest(over)
            return self._show(self._index + by)

    def _show(self, index: int) -> dict[str, Any]:
        datum = self._datums[index]
        shown = [self._mount_of(leaf, datum.files[leaf.name]) for leaf in self._leaves if leaf.name in datum.files]
        journal = self._mounts.journal
        journal.remove_mount(OUT)  # each datum begins with an empty one
        row = MountRow(OUT, "", "", "", "", "", "rw", "", 0)
        tree = CommitTree(self._mounts.source, None, self._mounts.started)
        self._mounts.show_datum([*shown, Mount(row, tree, journal, self._mounts.contents)])
        self._index = index
        return {"id": datum.id, "idx": index, "num_datums": len(self._datums), "all_datums_received": True}

    def _mount_of(self, leaf: Leaf, files: list[DatumFile]) -> Mount:
        ref, info = leaf.ref, leaf.info
        tree = self._trees.get(ref)
        if tree is None:
            tree = self._trees[ref] = CommitTree(self._mounts.source, ref, info.finished)
        paths = sorted({file.path.strip("/") for file in files})
        row = MountRow(
            leaf.name, ref.project, ref.repo, leaf.branch, ref.id,
            "" if "" in paths else "\n".join(paths), "ro", ref.id, info.finished,
        )  # fmt: skip
        mount = Mount(row, tree, self._mounts.journal, self._mounts.contents)
        mount.shown_path = files[0].path
        return mount

    def _listed(self, input_: pps_pb2.Input) -> tuple[list[Leaf], list[Datum]]:
        for _ in range(3):
            try:
                leaves, datums = self._resolved(input_), []
                for id_, files in self._mounts.source.datums(input_):
                    datums.append(self._sorted_out(leaves, id_, files))
                    if len(datums) > LIMIT:
                        raise InvalidRequest(f"the input has more than {LIMIT} datums: give it a narrower glob")
                order = {leaf.name: number for number, leaf in reversed(list(enumerate(leaves)))}
                datums.sort(
                    key=lambda datum: sorted((order[n], f.path) for n, files in datum.files.items() for f in files)
                )
                return leaves, datums
            except _Moved:
                continue
            except (NotFound, InvalidRequest) as e:
                raise InvalidRequest(f"error processing input: {e}") from e
            except PachdFailed as e:
                raise InvalidRequest(f"error listing spec's datums: {e}") from e
        raise Conflict("the branches of the input move all the time: try again")

    def _resolved(self, input_: pps_pb2.Input) -> list[Leaf]:
        """The PFS inputs with what their branches have now. :raises NotFound: a repo or branch is not there."""
        leaves = []
        source = self._mounts.source
        for pfs in _pfs_inputs(input_):
            source.has_repo(pfs.project, pfs.repo)
            info = source.branch(pfs.project, pfs.repo, pfs.branch).finished
            if info is None:
                raise NotFound(f"branch {pfs.project}/{pfs.repo}@{pfs.branch} has no finished commit")
            leaves.append(Leaf(pfs.name, pfs.branch, pfs.glob, CommitRef(pfs.project, pfs.repo, info.id), info))
        return leaves

    def _sorted_out(self, leaves: list[Leaf], id_: str, files: list[DatumFile]) -> Datum:
        """Which file of a datum came by which input: pachd does not say, so commits and globs have to tell."""
        found: dict[str, list[DatumFile]] = {}
        for file in files:
            possible = [leaf for leaf in leaves if leaf.ref == file.ref]
            if len(possible) > 1:
                possible = [leaf for leaf in possible if file.path.strip("/") in self._matching(leaf)] or possible
            if not possible:
                raise _Moved
            # the files come in the order of the inputs
            leaf = next((leaf for leaf in possible if leaf.name not in found), possible[-1])
            found.setdefault(leaf.name, []).append(file)
        return Datum(id_, found)

    def _matching(self, leaf: Leaf) -> set[str]:
        key = (leaf.ref, leaf.glob)
        known = self._globbed.get(key)
        if known is None:
            known = self._globbed[key] = set(self._mounts.source.matching(leaf.ref, leaf.glob))
        return known


def parse(body: bytes) -> pps_pb2.Input:
    """The input of a spec, defaults filled in.

    :param body: JSON or YAML: an object with `input`, or a list of one.
    :raises InvalidRequest: it is something else, or an input that cannot be mounted.
    """
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise InvalidRequest(
                f"error reading next CreatePipeline request: malformed pipeline spec: {' '.join(str(e).split())}"
            ) from None
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        raise InvalidRequest("error reading next CreatePipeline request: a JSON or YAML object with `input` is needed")
    try:
        request = ParseDict(document, pps_pb2.CreatePipelineRequest())
    except (ParseError, AttributeError, TypeError) as e:
        raise InvalidRequest(
            f"error reading next CreatePipeline request: could not unmarshal CreatePipelineRequest: {e}"
        ) from None
    if not request.HasField("input"):
        raise InvalidRequest("error processing input: datum input is not specified")
    try:
        _check(request.input)
        _check_names(request.input)
    except InvalidRequest as e:
        raise InvalidRequest(f"error processing input: {e}") from None
    return request.input


def _children(input_: pps_pb2.Input) -> list[pps_pb2.Input]:
    return [*input_.join, *input_.group, *input_.cross, *input_.union]


def _pfs_inputs(input_: pps_pb2.Input) -> Iterator[pps_pb2.PFSInput]:
    if input_.HasField("pfs"):
        yield input_.pfs
    for child in _children(input_):
        yield from _pfs_inputs(child)


def _check(input_: pps_pb2.Input) -> None:
    kinds = [kind for kind in ("pfs", "cron") if input_.HasField(kind)]
    kinds += [kind for kind in ("join", "group", "cross", "union") if getattr(input_, kind)]
    wrong = ""
    if not kinds:
        wrong = "no input set"
    elif len(kinds) > 1:
        wrong = "multiple input types set"
    elif kinds == ["cron"]:
        wrong = "cron input type not supported in mounting datums"
    elif kinds == ["pfs"]:
        wrong = _fill(input_.pfs)
    if wrong:
        raise InvalidRequest(f"error parsing datum input: {wrong}")
    for child in _children(input_):
        _check(child)


def _fill(pfs: pps_pb2.PFSInput) -> str:
    """Fill in a PFS input's defaults. :return: what is wrong with it, or ""."""
    if not pfs.repo:
        return "repo must be specified"
    if pfs.repo == OUT and not pfs.name:
        return "name must be specified for repo 'out'"
    if pfs.name == OUT:
        return "an input cannot be named 'out': that is where a datum's output goes"
    if pfs.commit:
        return "commit cannot be specified"
    if not pfs.glob:
        return "glob must be specified"
    if pfs.s3:
        return "s3 data not supported in mounting datums"
    pfs.project, pfs.branch = pfs.project or "default", pfs.branch or "master"
    pfs.name = pfs.name or pfs.repo
    if "/" in pfs.name or pfs.name in (".", ".."):
        return f"name {pfs.name!r} cannot be a directory"
    return ""


def _check_names(input_: pps_pb2.Input) -> set[str]:
    """The names of an input; those that are seen together have to differ."""
    if input_.HasField("pfs"):
        return {input_.pfs.name}
    names: set[str] = set()
    for child in _children(input_):
        more = _check_names(child)
        if not input_.union and (twice := names & more):
            raise InvalidRequest(f'invalid names in datum input: name "{min(twice)}" was used more than once')
        names |= more
    return names
