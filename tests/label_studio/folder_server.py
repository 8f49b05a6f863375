"""A mount server over plain folders, with the routes that Label Studio's storages use: for tests of this part alone.

It keeps whole copies of each commit and knows no pachd; what is tested against it is tested against the real mount
server too.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Refused(Exception):
    def __init__(self, status: int, sentence: str, code: str = "refused") -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


def glob_regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    table = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(table.get(part, re.escape(part)) for part in parts) + r"\Z")


class Folder:
    """Repos as {branch: [commits]}; a commit is a folder below `root`."""

    def __init__(self, root: Path, mount_dir: Path) -> None:
        self.root, self.mount_dir = root, mount_dir
        self.lock = threading.RLock()
        self.branches: dict[tuple[str, str], dict[str, list[str]]] = {}
        self.commits: dict[str, dict] = {}
        self.mounts: dict[str, dict] = {}
        self.staged: dict[str, dict[str, str | None]] = {}
        self.down = False
        self.keys: dict[str, dict] = {}
        self.parents: dict[str, str | None] = {}
        # Each is called once, when the next such request comes.
        self.before: dict[str, list[Callable[[], object]]] = {"commit": [], "stage": [], "status": [], "list": []}

    def create(self, project: str, repo: str) -> None:
        self.branches.setdefault((project, repo), {})

    def put(self, project: str, repo: str, branch: str, files: dict[str, bytes | None], **info: object) -> str:
        with self.lock:
            history = self.branches[(project, repo)].setdefault(branch, [])
            commit = uuid.uuid4().hex
            where = self.root / commit
            if history:
                shutil.copytree(self.root / history[-1], where)
            else:
                where.mkdir(parents=True)
            for path, content in files.items():
                target = where / path.lstrip("/")
                if content is None:
                    target.unlink(missing_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
            self.parents[commit] = history[-1] if history else None
            history.append(commit)
            self.commits[commit] = {"project": project, "repo": repo, "branch": branch, **info}
            return commit

    def files(self, commit: str) -> dict[str, tuple[int, str]]:
        where = self.root / commit
        found = {}
        for path in sorted(where.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                found["/" + str(path.relative_to(where))] = (len(content), hashlib.sha256(content).hexdigest())
        return found

    # -- routes
    def resolve(self, ref: str) -> dict:
        found = re.fullmatch(r"([^/]+)/([^@=]+)(?:@(.+)|=(.+))", ref)
        assert found, ref
        project, repo, branch, commit = found.groups()
        if (project, repo) not in self.branches:
            raise Refused(404, f"repo {project}/{repo} not found")
        if commit:
            if commit not in self.commits:
                raise Refused(404, f"commit {commit} not found")
            return {"project": project, "repo": repo, "branch": None, "commit": commit, "parent": self.parents[commit]}
        history = self.branches[(project, repo)].get(branch)
        if history is None:
            raise Refused(404, f"branch {branch} of {project}/{repo} not found")
        return {"project": project, "repo": repo, "branch": branch, "commit": history[-1] if history else None}

    def mount(self, body: dict) -> dict:
        for one in body["mounts"]:
            where = (one.get("project", "default"), one["repo"])
            if where not in self.branches:
                raise Refused(404, f"repo {where[0]}/{where[1]} not found")
            if one.get("commit"):
                if one["commit"] not in self.commits:
                    raise Refused(404, f"commit {one['commit']} not found")
                link = self.mount_dir / one["name"]
                if not link.exists():
                    link.symlink_to(self.root / one["commit"])
            self.mounts[one["name"]] = one
        return {"mounted": [], "unmounted": []}

    def stage(self, body: dict) -> dict:
        if body["mount"] not in self.mounts:
            raise Refused(404, f"no mount {body['mount']}")
        staged = self.staged.setdefault(body["mount"], {})
        for file in body["files"]:
            staged[file["path"]] = None if file.get("delete") else file["text"]
        return {"staged": len(body["files"]), "deleted": 0, "dirty": len(staged)}

    def status(self, mount: str) -> dict:
        if mount not in self.mounts:
            raise Refused(404, f"no mount {mount}")
        staged = self.staged.get(mount, {})
        gone = sum(text is None for text in staged.values())
        return {"mount": mount, "dirty_files": len(staged) - gone, "dirty_deletes": gone}

    def commit(self, body: dict) -> dict:
        mount = self.mounts.get(body["mount"])
        if mount is None:
            raise Refused(404, f"no mount {body['mount']}")
        if body.get("idempotency_key") in self.keys:
            return self.keys[body["idempotency_key"]]
        history = self.branches[(mount.get("project", "default"), mount["repo"])].get(mount["branch"], [])
        if body.get("expected_head") not in (None, history[-1] if history else ""):
            raise Refused(409, f"{mount['repo']} is elsewhere", "head_moved")
        staged = self.staged.pop(body["mount"], {})
        before = self.files(history[-1]) if history else {}
        changes: dict[str, bytes | None] = {}
        counts = {"files_added": 0, "files_changed": 0, "files_deleted": 0}
        for path, text in staged.items():
            if text is None:
                if path in before:
                    changes[path], counts["files_deleted"] = None, counts["files_deleted"] + 1
            elif before.get(path, ("", ""))[1] != hashlib.sha256(text.encode()).hexdigest():
                changes[path] = text.encode()
                counts["files_changed" if path in before else "files_added"] += 1
        commit = None
        if changes:
            project = mount.get("project", "default")
            info = {"message": body.get("message"), "metadata": body.get("metadata")}
            commit = self.put(project, mount["repo"], mount["branch"], changes, **info)
        answer = {"mounted": [], "unmounted": [], "commit": {"commit": commit, **counts}}
        self.keys[body.get("idempotency_key") or uuid.uuid4().hex] = answer
        return answer


def serve(folder: Folder, port: int = 0) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            return

        def _answer(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            try:
                with folder.lock:
                    status, text = 200, self._route(url.path, query, body)
            except Refused as error:
                status, text = error.status, json.dumps({"error": str(error), "code": error.code})
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = _answer

        def _route(self, path: str, query: dict, body: dict) -> str:
            if waiting := folder.before.get(path.removeprefix("/_")):
                waiting.pop(0)()
            if folder.down and path not in ("/_stage", "/_status"):
                raise Refused(503, "pachd at 127.0.0.1:30650 cannot be reached. Is it running?")
            if path == "/_resolve":
                return json.dumps(folder.resolve(query["ref"]))
            if path == "/_mount":
                return json.dumps(folder.mount(body))
            if path == "/_stage":
                return json.dumps(folder.stage(body))
            if path == "/_status":
                return json.dumps(folder.status(query["mount"]))
            if path == "/_commit":
                return json.dumps(folder.commit(body))
            if path in ("/_list", "/_diff"):
                if query.get("old", query.get("commit")) not in folder.commits:
                    raise Refused(404, "commit not found")
                wanted = glob_regex(query.get("glob", "/**"))
                new = folder.files(query.get("new") or query["commit"])
                old = folder.files(query["old"]) if "old" in query else {}
                rows = []
                for name in sorted(new.keys() | old.keys()):
                    if not wanted.match(name) or (path == "/_diff" and new.get(name) == old.get(name)):
                        continue
                    op = "deleted" if name not in new else "changed" if name in old else "added"
                    size, digest = new.get(name) or old[name]
                    rows.append(json.dumps({"path": name, "op": op, "size": size, "hash": digest}))
                return "".join(row + "\n" for row in rows)
            raise Refused(404, f"no route {path}")

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
