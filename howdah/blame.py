"""Who labelled an item: the history of one label file."""

import json
from collections.abc import Iterator
from typing import Any

import click
from grpclib.const import Status

from howdah.pachyderm import Problem, ancestors, commit_info, describe_commit, is_missing, read, show_repo
from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2

LABELS = "labels"


def blame(client: Client, ref: pfs_pb2.File, labels: str = LABELS) -> dict[str, Any]:
    """Tell for each annotation of an item who made it, when, and which commit brought it.

    :param ref: the label file, or the labelled item: in the labels repo (`.json` may be left out) or in any other repo
        (the same name is then looked up in the repo `labels`).
    :return: path, repo, commit (the one that changed the file last), `annotations` as they are now, and `history`,
        newest first, of every commit that changed the file.
    :raises Problem: no such repo, branch or path; or a path that was never labelled.
    """
    if not ref.path.strip("/"):
        raise click.UsageError("name a path: howdah blame labels@master:/cats/001.jpg")
    commit, path = _find(client, ref, labels)
    history: list[dict[str, Any]] = []
    newer: dict[str, Any] | None = None
    for info, content in _versions(client, commit, path):
        version = {**describe_commit(info), "change": "deleted" if content is None else "added", "_content": content}
        if newer is not None and newer["_content"] is not None and content is not None:
            newer["change"] = "changed"
        history.append(version)
        newer = version
    contents = [_annotations(version.pop("_content")) for version in history]
    for n, version in enumerate(history):
        older = contents[n + 1] if n + 1 < len(contents) else {}
        version["annotations"] = [a for key, a in contents[n].items() if older.get(key) != a]
        version["removed"] = [a for key, a in older.items() if key not in contents[n]]
    now = []
    for key, annotation in contents[0].items() if contents else ():
        since = 0
        while since + 1 < len(contents) and contents[since + 1].get(key) == annotation:
            since += 1
        brought = history[since]
        commit_of = {"commit": brought["commit"], "committed": brought["time"], "synced_by": brought["by"]}
        now.append({**annotation, **commit_of})
    return {
        "repo": show_repo(commit.repo if commit.repo.name else commit.branch.repo),
        "path": path,
        "commit": history[0]["commit"] if history else None,
        "deleted": bool(history) and history[0]["change"] == "deleted",
        "annotations": now,
        "history": history,
    }


def _find(client: Client, ref: pfs_pb2.File, labels: str) -> tuple[pfs_pb2.Commit, str]:
    """The label file that a reference means: the commit to look back from, and the path."""
    path = "/" + ref.path.strip("/")
    commit_info(client, ref.commit)  # an unknown repo or branch is said first
    places, missing = [(ref.commit, path), (ref.commit, path + ".json")], ""
    if ref.commit.repo.name != labels:
        repo = pfs_pb2.Repo(name=labels, type="user", project=ref.commit.repo.project)
        branch = pfs_pb2.Branch(repo=repo, name="master")
        head = pfs_pb2.Commit(repo=repo, branch=branch)
        try:
            commit_info(client, head)
            places.append((head, path + ".json"))
        except RpcError as e:
            if not is_missing(e):
                raise
            missing = f"; there is no branch {show_repo(repo)}@master, --labels names another repo"
    for commit, candidate in places:
        if _labelled(client, commit, candidate):
            return commit, candidate
    # it may have been labelled once and deleted since
    for commit, candidate in places:
        if candidate.endswith(".json") and any(True for _ in _versions(client, commit, candidate, first=True)):
            return commit, candidate
    tried = " or ".join(f"{show_repo(commit.repo)}:{candidate}" for commit, candidate in places[1:])
    raise Problem(f"nobody has labelled {path}: there is no {tried}{missing}")


def _labelled(client: Client, commit: pfs_pb2.Commit, path: str) -> bool:
    if not path.endswith(".json"):
        return False
    try:
        return isinstance(json.loads(read(client, commit_info(client, commit).commit, path)), dict)
    except ValueError:
        raise Problem(f"{path} in {show_repo(commit.repo)} is not a label file: it is not JSON") from None
    except RpcError as e:
        if is_missing(e):
            return False
        raise


def _versions(
    client: Client, commit: pfs_pb2.Commit, path: str, first: bool = False
) -> Iterator[tuple[pfs_pb2.CommitInfo, bytes | None]]:
    """The commits that changed a path, newest first, each with the content it left (None: it deleted the file)."""
    head = commit_info(client, commit).commit
    try:
        infos = [commit_info(client, found) for found in _find_commits(client, head, path)]
    except RpcError as e:
        if e.code not in (Status.UNIMPLEMENTED, Status.UNKNOWN, Status.UNAVAILABLE):  # the last: it is still open
            raise
        infos = list(ancestors(client, head))
    before: tuple[pfs_pb2.CommitInfo, bytes | None] | None = None
    for info in infos:
        try:
            content: bytes | None = read(client, info.commit, path)
        except RpcError as e:
            if not is_missing(e):
                raise
            content = None
        if before is not None and before[1] != content:
            yield before
            if first:
                return
        before = info, content
    if before is not None and before[1] is not None:
        yield before


def _find_commits(client: Client, start: pfs_pb2.Commit, path: str) -> Iterator[pfs_pb2.Commit]:
    """FindCommits: the commits that touched a path, newest first."""
    request = pfs_pb2.FindCommitsRequest(start=start, file_path=path)
    for reply in client.pfs.FindCommits(request):
        if reply.HasField("found_commit"):
            yield reply.found_commit


def _annotations(content: bytes | None) -> dict[str, dict[str, Any]]:
    """The annotations of a label file by a key that stays the same while they are edited."""
    try:
        task = json.loads(content or b"{}")
    except ValueError:
        return {}
    found = {}
    for n, annotation in enumerate(task.get("annotations") or []):
        who = annotation.get("completed_by")
        email = who.get("email") if isinstance(who, dict) else who
        answers = [region.get("value", {}) for region in annotation.get("result") or [] if isinstance(region, dict)]
        found[str(annotation.get("id", f"#{n}"))] = {
            "annotator": email,
            "answer": [_short(answer) for answer in answers],
            "time": annotation.get("updated_at") or annotation.get("created_at"),
            "created": annotation.get("created_at"),
            "cancelled": bool(annotation.get("was_cancelled")),
        }
    return found


def _short(value: dict[str, Any]) -> Any:
    """The class or text of a region; a region of another kind as it is."""
    for key, entry in value.items():
        if key == "text" or (isinstance(entry, list) and all(isinstance(e, str) for e in entry)):
            return ", ".join(entry) if isinstance(entry, list) else entry
    return value
