"""The mount server as this app needs it: a small HTTP client. No Django in here.

Its address comes from the server's configuration only, never from a form field: whoever may add a storage must not be
able to make Label Studio talk to an address of their choice. Redirects and proxies of the environment are ignored.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from .refs import Ref, mount_name


class MountError(Exception):
    """The mount server refused or could not be reached. `str()` is a sentence for the user.

    `status` is the HTTP status, 0 when there was no answer; `code` is the server's machine-readable word for it.
    """

    def __init__(self, sentence: str, status: int = 0, code: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


@contextlib.contextmanager
def _plainly(ref: Ref) -> Iterator[None]:
    """Say in a sentence what a reference names that does not exist; the words of pachd are a stack of its steps."""
    try:
        yield
    except MountError as error:
        if error.status == 403 and "is written by a pipeline" in str(error):
            output = f"{ref.project}/{ref.repo}@{ref.branch}"
            sentence = (
                f"{output} is written by a pipeline. Name a branch that only people write, such as labels@master."
            )
            raise MountError(sentence, error.status, error.code) from error
        if error.status != 404 or "no finished commit" in str(error):
            raise
        repo = f"{ref.project}/{ref.repo}"
        if re.search(r"\brepo (\([^)]*\)|\S+) not found", str(error)):
            sentence = f"There is no repository {repo}. Make it first, or correct the name."
        elif ref.commit:
            sentence = f"There is no commit {ref.commit} in repository {repo}."
        else:
            sentence = f"There is no branch {ref.branch} in repository {repo}."
        raise MountError(sentence, error.status, error.code) from error


class Resolved(NamedTuple):
    """What a reference stands for now. `commit` is None while the branch has no finished commit."""

    project: str
    repo: str
    branch: str | None
    commit: str | None
    created: float | str | None
    parent: str | None = None


class MountApi:
    """Thread-safe client of one mount server. Connections are opened at first use, so create it after a fork or before.

    Args: url — `http://host:port`; mount_dir — where its mounts appear on this machine; token — sent as bearer token.
    """

    def __init__(self, url: str, mount_dir: str | Path, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise MountError(f'HOWDAH_MOUNT_URL is "{url}": an http:// or https:// address is expected.')
        self.url = url.rstrip("/")
        self.mount_dir = Path(mount_dir)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, timeout=httpx.Timeout(30, connect=2)
        )
        self._mounted: set[str] = set()
        self._lock = threading.Lock()

    # -- requests
    def _fail(self, error: Exception) -> MountError:
        return MountError(
            f"The mount server at {self.url} cannot be reached ({error or type(error).__name__}). Is it running?"
        )

    def _check(self, response: httpx.Response) -> None:
        if response.status_code < 400:
            return
        response.read()
        try:
            body = response.json()
            sentence, code = str(body.get("error") or response.text), str(body.get("code") or "")
        except (ValueError, AttributeError):
            sentence, code = response.text.strip() or response.reason_phrase, ""
        raise MountError(sentence, response.status_code, code)

    def call(self, method: str, path: str, timeout: float = 30.0, **kwargs: Any) -> Any:
        """One request; returns the decoded JSON body. `timeout` in seconds. Raises: MountError."""
        try:
            response = self._client.request(
                method, path, timeout=httpx.Timeout(timeout, connect=min(timeout, 2.0)), **kwargs
            )
        except httpx.HTTPError as error:
            raise self._fail(error) from error
        self._check(response)
        try:
            return response.json()
        except ValueError as error:
            raise MountError(f"{self.url}{path} did not answer with JSON.", response.status_code) from error

    def _lines(self, path: str, params: dict[str, str]) -> Iterator[dict[str, Any]]:
        try:
            with self._client.stream("GET", path, params=params, timeout=300) as response:
                self._check(response)
                for line in response.iter_lines():
                    if line:
                        row = json.loads(line)
                        if "error" in row:  # the stream had begun when it failed
                            raise MountError(str(row["error"]), 500, str(row.get("code") or ""))
                        yield row
        except httpx.HTTPError as error:
            raise self._fail(error) from error

    # -- questions
    def resolve(self, ref: Ref, timeout: float = 15.0) -> Resolved:
        """What a reference stands for now. Raises: MountError, status 404 when repo, branch or commit do not exist."""
        with _plainly(ref):
            body = self.call("GET", "/_resolve", timeout=timeout, params={"ref": str(ref)})
        commit = body.get("commit")
        if isinstance(commit, dict):
            commit = commit.get("id")
        return Resolved(
            body["project"],
            body["repo"],
            body.get("branch") or ref.branch,
            commit or None,
            body.get("created"),
            body.get("parent") or None,
        )

    def head(self, ref: Ref) -> str | None:
        """The newest finished commit of a branch; None when there is none. Raises: MountError."""
        try:
            return self.resolve(ref).commit
        except MountError as error:
            if error.status != 404:
                raise
            return None

    def files(self, project: str, repo: str, commit: str, glob: str) -> Iterator[dict[str, Any]]:
        """The files of a commit that match a glob, sorted: {"path", "size", "hash"}."""
        return self._lines("/_list", {"project": project, "repo": repo, "commit": commit, "glob": glob})

    def diff(self, project: str, repo: str, old: str, new: str, glob: str) -> Iterator[dict[str, Any]]:
        """What changed between two commits: {"path", "op": added|changed|deleted, "size", "hash"}."""
        return self._lines("/_diff", {"project": project, "repo": repo, "old": old, "new": new, "glob": glob})

    def status(self, mount: str) -> dict[str, Any]:
        """What a mount holds that is not committed yet: {"dirty_files", "dirty_deletes", …}."""
        return dict(self.call("GET", "/_status", params={"mount": mount}))

    # -- mounts
    def _mount(self, name: str, ref: Ref, mode: str, timeout: float) -> None:
        # the server unmounts what is temporary when nobody has read it for long; `reading` mounts it again
        entry = {"name": name, "project": ref.project, "repo": ref.repo, "mode": mode, "temporary": mode == "ro"}
        entry.update({"commit": ref.commit} if ref.commit else {"branch": ref.branch or ""})
        with _plainly(ref):
            self.call("PUT", "/_mount", timeout=timeout, json={"mounts": [entry]})
        with self._lock:
            self._mounted.add(name)

    def reading(self, ref: Ref, timeout: float = 15.0) -> Path:
        """The directory where an exact commit can be read; mounted at the first request. Raises: MountError."""
        if not ref.commit:
            raise ValueError("Only a commit can be mounted for reading: a branch may move between two reads.")
        name = mount_name("read", ref)
        where = self.mount_dir / name
        if name not in self._mounted or not where.is_dir():
            self._mount(name, ref, "ro", timeout)
        return where

    def writing(self, ref: Ref, timeout: float = 15.0, again: bool = False) -> str:
        """The name of the writable mount of a branch, made at the first request; all storages of a branch share it.

        Raises: MountError (403 no right to write, 404 no such repo, 409 not writable).
        """
        name = mount_name("labels", ref)
        if again or name not in self._mounted:
            self._mount(name, ref, "rw", timeout)
        return name

    def stage(self, ref: Ref, files: list[dict[str, Any]], timeout: float = 30.0) -> dict[str, Any]:
        """Hand over files and deletions; durable when this returns. Mounts the branch if it is not mounted.

        Args: files — {"path", "text"} or {"path", "delete": True}. Raises: MountError; nothing is staged then.
        """
        body = {"mount": self.writing(ref, timeout), "files": files}
        content = json.dumps(body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json"}
        try:
            return dict(self.call("POST", "/_stage", timeout=timeout, content=content, headers=headers))
        except MountError as error:
            if error.status != 404:
                raise
            self.writing(ref, timeout, again=True)  # the mount server was restarted without it
            return dict(self.call("POST", "/_stage", timeout=timeout, content=content, headers=headers))

    def commit(self, ref: Ref, message: str, metadata: dict[str, str], key: str, head: str | None) -> dict[str, Any]:
        """Commit everything staged; {"commit": id or None, "files_added", "files_changed", "files_deleted"}.

        `key` makes a repetition after a lost answer harmless; `head` is the commit the branch must be at (None: it has
        none). Raises: MountError (code head_moved: it is elsewhere); what was staged stays staged.
        """
        body = {"mount": self.writing(ref), "message": message, "metadata": metadata, "idempotency_key": key}
        body["expected_head"] = head or ""
        return dict(self.call("PUT", "/_commit", timeout=600, json=body).get("commit") or {"commit": None})


_api: MountApi | None = None
_api_lock = threading.Lock()


def mount_api() -> MountApi:
    """This process's client, made from the Django settings at first use."""
    global _api
    with _api_lock:
        if _api is None:
            from django.conf import settings

            _api = MountApi(settings.HOWDAH_MOUNT_URL, settings.HOWDAH_MOUNT_DIR, settings.HOWDAH_MOUNT_TOKEN)
        return _api
