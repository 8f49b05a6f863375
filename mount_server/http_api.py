"""The HTTP API: the routes and bodies of Pachyderm's mount server, and staging, status and history beside them.

Thin: a request becomes one call on `manager.Mounts`; `http_errors` answers domain errors.
"""

import base64
import hmac
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mount_server import errors
from mount_server.datums import Datums
from mount_server.http_errors import HANDLERS
from mount_server.http_models import CommitBody, ConfigBody, MountBody, StageBody, TokenBody, UnmountBody
from mount_server.manager import MountRequest, Mounts
from mount_server.metrics import Metrics
from mount_server.mount import Mount
from mount_server.pachd_source import check_certificates
from mount_server.source import CommitRef, Source

log = logging.getLogger(__name__)

Body = TypeVar("Body", bound=BaseModel)


class Api:
    """Handlers of all routes."""

    def __init__(self, mounts: Mounts, metrics: Metrics) -> None:
        self._mounts, self._metrics = mounts, metrics
        self._datums = Datums(mounts)

    def routes(self) -> list[Route]:
        """The route table."""
        put, get, post = ["PUT"], ["GET"], ["POST"]
        return [
            Route("/health", self._plain(self.health), methods=get),
            Route("/config", self._plain(self.config), methods=get),
            Route("/config", self._plain(self.set_config, ConfigBody), methods=put),
            Route("/projects", self._plain(self.projects), methods=get),
            Route("/repos", self._plain(self.repos), methods=get),
            Route("/mounts", self._plain(self.mounts), methods=get),
            Route("/_mount", self._plain(self.mount, MountBody), methods=put),
            Route("/_unmount", self._plain(self.unmount, UnmountBody), methods=put),
            Route("/_unmount_all", self._plain(self.unmount_all), methods=put),
            Route("/_commit", self._plain(self.commit, CommitBody), methods=put),
            Route("/_stage", self._plain(self.stage, StageBody), methods=post),
            Route("/_status", self._asked(self.status), methods=get),
            Route("/_resolve", self._asked(self.resolve), methods=get),
            Route("/_list", self._asked(self.list_files), methods=get),
            Route("/_diff", self._asked(self.diff), methods=get),
            Route("/_history", self._asked(self.history), methods=get),
            Route("/auth/_login_token", self._plain(self.login_token, TokenBody), methods=put),
            Route("/auth/_logout", self._plain(self.logout), methods=put),
            Route("/auth/_login", self._plain(self.login), methods=put),
            Route("/datums", self._plain(self._datums.state), methods=get),
            Route("/datums/_mount", self._raw(self._datums.mount), methods=put),
            Route("/datums/_next", self._plain(self._datums.next), methods=put),
            Route("/datums/_prev", self._plain(self._datums.previous), methods=put),
            Route("/datums/_show", self._asked(self.show_datum), methods=put),
            Route("/metrics", self._metrics_page, methods=get),
        ]

    # --- routes of Pachyderm's mount server --------------------------------------------------------------------------

    def health(self) -> Any:
        """Running, whether or not pachd answers."""
        pachd = {True: "reachable", False: "unreachable", None: "unknown"}[self._mounts.reachable]
        return {"status": "running", "pachd": pachd, "pachd_address": self._mounts.source.address}

    def config(self) -> Any:
        """Address of pachd and whether it has access control; INVALID while it does not answer."""
        try:
            status = self._mounts.source.ping(5.0)
        except errors.MountError:
            status = "INVALID"
        return {"cluster_status": status, "pachd_address": self._mounts.source.address}

    def set_config(self, body: ConfigBody) -> Any:
        """Move to another pachd."""
        if not body.pachd_address:
            raise errors.InvalidRequest("either empty or poorly formatted cluster endpoint")
        if body.server_cas:
            check_certificates(body.server_cas)
        self._mounts.move(body.pachd_address)
        return self.config()

    def projects(self) -> Any:
        """All projects."""
        return self._mounts.source.projects()

    def repos(self) -> Any:
        """All repos with their branches."""
        return [
            {
                "project": r.project,
                "repo": r.repo,
                "branches": list(r.branches) or None,
                "authorization": r.authorization,
            }
            for r in self._mounts.repos()
        ]

    def mounts(self) -> Any:
        """What is mounted, and what could be; without pachd the latter is empty and `error` says why."""
        mounted = [self._state(mount) for mount in self._mounts.all() if mount.row.repo]
        try:
            return {"mounted": mounted, "unmounted": self.repos()}
        except errors.MountError as e:
            return {"mounted": mounted, "unmounted": [], "error": str(e)}

    def mount(self, body: MountBody) -> Any:
        """Mount, all or none."""
        requests = [MountRequest(**item.model_dump()) for item in body.mounts]
        try:
            self._mounts.mount(requests)
        except (errors.NameInUse, errors.Unreachable, errors.Denied):
            raise
        except errors.MountError as e:
            # what is wrong with a mount request is the requester's to mend, also what it names and is not there
            raise type(e)(f"mount request: {e}") from e
        return self.mounts()

    def unmount(self, body: UnmountBody) -> Any:
        """Commit and unmount."""
        self._mounts.unmount(body.mounts, body.discard)
        return self.mounts()

    def unmount_all(self) -> Any:
        """Commit and unmount everything."""
        self._mounts.unmount_all()
        return self.mounts()

    def commit(self, body: CommitBody) -> Any:
        """Make one commit of what is staged, or none where nothing differs."""
        if not body.mount:
            raise errors.InvalidRequest('name the mount to commit: {"mount": …}')
        with self._metrics.timed("commit"):
            made = self._mounts.commit(
                body.mount, body.message, body.metadata, body.expected_head, body.idempotency_key
            )
        return {**self.mounts(), "commit": made}

    def show_datum(self, asked: dict[str, str]) -> Any:
        """Show the datum with a number or an ID."""
        index = asked.get("idx", "")
        if index and not index.isdigit():
            raise errors.InvalidRequest("`idx` is the number of a datum, counted from 0")
        return self._datums.show(int(index) if index else None, asked.get("id", ""))

    def login(self) -> Any:
        """Log in at pachd with a browser: the page's address is answered, and the login takes effect by itself."""
        source = self._mounts.source
        url, state = source.login_page()
        threading.Thread(target=_wait_for_login, args=(source, state), name="login", daemon=True).start()
        return {"auth_url": url}

    def login_token(self, body: TokenBody) -> Any:
        """Log in at pachd with an ID token, or with a token of pachd's own; it stays here and is never told again."""
        if not body.oidc and not body.token:
            raise errors.InvalidRequest("give an ID token as `oidc`, or a token of Pachyderm as `token`")
        self._mounts.source.login(body.oidc, body.token)
        return {}

    def logout(self) -> None:
        """Commit and unmount everything, then forget the login."""
        self._mounts.unmount_all()
        self._mounts.source.logout()

    # --- routes of ours -----------------------------------------------------------------------------------------------

    def stage(self, body: StageBody) -> Any:
        """Stage files durably; pachd is not asked."""
        mount = self._mounts.get(body.mount)
        files: list[tuple[str, bytes | None]] = []
        for file in body.files:
            if file.delete:
                data = None
            elif file.text is not None:
                data = file.text.encode()
            else:
                try:
                    data = base64.b64decode(file.base64 or "", validate=True)
                except ValueError as e:
                    raise errors.InvalidRequest(f"file {file.path!r}: `base64` does not decode: {e}") from None
            files.append((file.path, data))
        with self._metrics.timed("stage"):
            staged, deleted = mount.stage(files)
        dirty = mount.dirty()
        return {"staged": staged, "deleted": deleted, "dirty": dirty.files + dirty.deletes}

    def status(self, asked: dict[str, str]) -> Any:
        """How much of a mount is staged, and how its last commit went."""
        mount = self._mounts.get(asked.get("mount", ""))
        dirty = mount.dirty()
        return {
            "mount": mount.row.name,
            "dirty_files": dirty.files,
            "dirty_deletes": dirty.deletes,
            "dirty_bytes": dirty.bytes,
            "head": mount.tree.id or None,
            "last_commit": mount.last_commit or None,
            "last_error": mount.last_error or None,
        }

    def resolve(self, asked: dict[str, str]) -> Any:
        """The finished commit that a reference names."""
        project, repo, branch, info = self._mounts.ask(asked.get("ref", ""))
        return {
            "project": project,
            "repo": repo,
            "branch": branch,
            "commit": info.id,
            "parent": info.parent or None,
            "description": info.description,
            "created": info.started / 1e9,
            "finished": info.finished / 1e9,
        }

    def list_files(self, asked: dict[str, str]) -> Iterator[bytes]:
        """Files of a commit that match a glob, as NDJSON sorted by path."""
        glob = asked.get("glob") or "/**"
        found = self._mounts.source.walk(self._ref(asked, "commit"), glob if glob.startswith("/") else "/" + glob)
        return _lines({"path": "/" + path, "size": entry.size, "hash": entry.hash.hex()} for path, entry in found)

    def diff(self, asked: dict[str, str]) -> Iterator[bytes]:
        """Files that differ between two commits, as NDJSON sorted by path. Without `old`: all files of `new`."""
        new = self._ref(asked, "new")
        old = self._ref(asked, "old") if asked.get("old") else None
        found = self._mounts.source.diff(old, new, 0)
        glob = asked.get("glob") or "/**"
        if glob != "/**":
            glob = glob if glob.startswith("/") else "/" + glob
            # the glob is pachd's to judge, so each commit is asked which of its paths match
            matching = {path for path, _ in self._mounts.source.walk(new, glob)}
            if old is not None:
                matching |= {path for path, _ in self._mounts.source.walk(old, glob)}
            found = [change for change in found if change.path in matching]
        return _lines({"path": "/" + c.path, "op": c.op, "size": c.size, "hash": c.hash.hex()} for c in found)

    def history(self, asked: dict[str, str]) -> Iterator[bytes]:
        """The commits that changed a file, newest first, as NDJSON."""
        project, repo = asked.get("project") or "default", asked.get("repo", "")
        start = self._mounts.source.branch(project, repo, asked.get("branch") or "master").finished
        if start is None:
            return iter(())
        found = self._mounts.source.history(project, repo, start.id, asked.get("path", "").strip("/"), 0)
        return _lines({"commit": i.id, "finished": i.finished / 1e9, "description": i.description} for i in found)

    def _ref(self, asked: dict[str, str], name: str) -> CommitRef:
        if not asked.get("repo") or not asked.get(name):
            raise errors.InvalidRequest(f"`repo` and `{name}` are needed")
        ref = CommitRef(asked.get("project") or "default", asked["repo"], asked[name])
        self._mounts.source.commit(*ref)
        return ref

    def _state(self, mount: Mount) -> dict[str, Any]:
        row, dirty = mount.row, mount.dirty()
        if mount.behind:
            status = f"{mount.behind} commits behind latest; current = {mount.tree.id[:8]}, latest = {mount.latest[:8]}"
        elif mount.tree.id:
            status = f"up to date on latest commit {mount.tree.id[:8]}"
        else:
            status = "branch does not contain any commits"
        return {
            "name": row.name,
            "project": row.project,
            "repo": row.repo,
            "branch": row.branch,
            "commit": mount.tree.id,
            "path": mount.shown_path,
            "mode": row.mode,
            "state": "mounted",
            "status": status,
            "mountpoint": str(self._mounts.mount_dir / row.name),
            "latest_commit": mount.latest or mount.tree.id,
            "how_many_commits_behind": mount.behind,
            "dirty": dirty.files + dirty.deletes,
            "conflicts": sorted("/" + path for path in mount.conflicts)[:100],
            "last_error": mount.last_error or None,
        }

    # --- plumbing -----------------------------------------------------------------------------------------------------

    def _plain(
        self, call: Callable[..., Any], model: type[Body] | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            if model is None:
                found = await run_in_threadpool(call)
                return Response() if found is None else JSONResponse(found)
            body = await request.body()

            def run() -> Any:
                return call(_parse(model, body))

            return JSONResponse(await run_in_threadpool(run))

        return handle

    def _raw(self, call: Callable[[bytes], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(call, await request.body()))

        return handle

    def _asked(self, call: Callable[[dict[str, str]], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            found = await run_in_threadpool(call, dict(request.query_params))
            if isinstance(found, dict):
                return JSONResponse(found)
            first = await run_in_threadpool(next, found, b"")  # an error here still gets its status
            return StreamingResponse(_chain(first, found), media_type="application/x-ndjson")

        return handle

    async def _metrics_page(self, request: Request) -> Response:
        return PlainTextResponse(self._metrics.text(self._mounts))


def _wait_for_login(source: Source, state: str) -> None:
    try:
        source.logged_in(state)
    except errors.MountError as e:
        log.warning("nobody logged in: %s", e)


def make_app(mounts: Mounts, metrics: Metrics, token: str | None) -> ASGIApp:
    """The ASGI application. With a token, every request but `/health` has to bear it."""
    app = Starlette(
        routes=Api(mounts, metrics).routes(),
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    return _Guard(app, token) if token else app


class _Guard:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                answer = JSONResponse({"error": "a bearer token is needed", "code": "unauthenticated"}, 401)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _parse(model: type[Body], body: bytes) -> Body:
    try:
        document = json.loads(body)
    except ValueError as e:
        raise errors.InvalidRequest(
            f"the request's body is not JSON: {e}" if body else "the request has no body"
        ) from None
    try:
        return model.model_validate({} if document is None else document)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise errors.InvalidRequest(f"the request's body does not fit: {where or 'body'}: {first['msg']}") from None


def _lines(documents: Iterator[dict[str, Any]] | Any) -> Iterator[bytes]:
    lines: list[str] = []
    for document in documents:
        lines.append(json.dumps(document, separators=(",", ":")))
        if len(lines) >= 1000:
            yield ("\n".join(lines) + "\n").encode()
            lines = []
    if lines:
        yield ("\n".join(lines) + "\n").encode()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
