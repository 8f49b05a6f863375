"""Label Studio as a person with a login uses it, over its REST API."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

ADDRESS = re.compile(r"pachyderm://[^/]+/[^@/]+@[0-9a-f]+/(?P<item>.+)")


class LabelStudioError(Exception):
    """Label Studio refused a request; the message has its answer."""


class LabelStudio:
    """One logged-in user.

    :param url: such as `http://127.0.0.1:8080`.
    Failures are LabelStudioError. One object may be used by several threads.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=300, follow_redirects=True)

    def __enter__(self) -> "LabelStudio":
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def log_in(self, email: str, password: str) -> None:
        """Log in with the form that people use."""
        self._form("/user/login/", {"email": email, "password": password})
        self.who()

    def sign_up(self, invitation: str, email: str, password: str) -> None:
        """Follow an invitation link: make a user and be logged in as that user."""
        self._form(f"/user/signup/?token={invitation}", {"email": email, "password": password})
        self.who()

    def _form(self, path: str, fields: dict[str, str]) -> None:
        try:
            self._http.get(path)
            fields = {**fields, "csrfmiddlewaretoken": (self._http.cookies.get("csrftoken") or "")}
            answer = self._http.post(path, data=fields, headers={"Referer": self.url})
        except httpx.HTTPError as e:
            raise LabelStudioError(f"Label Studio at {self.url} does not answer: {e}") from e
        if answer.is_error:
            raise LabelStudioError(f"{path} was answered with {answer.status_code}")

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request of the REST API; the parsed answer."""
        headers = {"X-CSRFToken": (self._http.cookies.get("csrftoken") or ""), "Referer": self.url}
        try:
            answer = self._http.request(method, path, json=body, params=query or None, headers=headers)
        except httpx.HTTPError as e:
            raise LabelStudioError(f"{method} {path}: Label Studio at {self.url} does not answer: {e}") from e
        if answer.is_error:
            raise LabelStudioError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def who(self) -> str:
        """The e-mail of the user that is logged in."""
        return str(self.call("GET", "/api/current-user/whoami")["email"])

    def invitation(self) -> str:
        """The token of the organisation's invitation link."""
        return str(self.call("GET", "/api/invite")["token"])

    def create_project(self, title: str, label_config: str) -> int:
        """A new project; its ID."""
        return int(self.call("POST", "/api/projects/", {"title": title, "label_config": label_config})["id"])

    def add_storage(self, project: int, target: bool, **fields: Any) -> int:
        """Attach a Pachyderm source or target storage; its ID."""
        body = {"project": project, **fields}
        return int(self.call("POST", f"/api/storages/{'export/' if target else ''}pachyderm", body)["id"])

    def sync(self, storage: int, target: bool) -> dict[str, Any]:
        """Press Sync. Raises LabelStudioError when the storage says that it failed."""
        path = f"/api/storages/{'export/' if target else ''}pachyderm/{storage}/sync"
        done = self.call("POST", path, {})
        if done.get("status") != "completed":
            raise LabelStudioError(f"Sync {done.get('status')}: {done.get('traceback') or done.get('meta')}")
        return dict(done)

    def tasks(self, project: int) -> dict[str, int]:
        """The tasks that came from a repo: item (path without leading slash) to task ID."""
        return dict(self._tasks(project))

    def _tasks(self, project: int) -> Iterator[tuple[str, int]]:
        page, size, seen = 1, 500, 0
        while True:
            answer = self.call("GET", "/api/tasks/", project=project, page=page, page_size=size, fields="task_only")
            for task in answer["tasks"]:
                for value in task["data"].values():
                    if isinstance(value, str) and (match := ADDRESS.fullmatch(original(value))):
                        yield match["item"], task["id"]
            seen += len(answer["tasks"])
            if not answer["tasks"] or seen >= answer["total"]:
                return
            page += 1

    def annotate(self, task: int, result: list[dict[str, Any]], lead_time: float) -> None:
        """Submit an annotation as the user that is logged in."""
        self.call("POST", f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": lead_time})

    def correct(self, task: int, result: list[dict[str, Any]]) -> None:
        """Change the annotation that the user who is logged in made of a task."""
        me = self.call("GET", "/api/current-user/whoami")["id"]
        mine = [a for a in self.call("GET", f"/api/tasks/{task}/annotations/") if a["completed_by"] == me]
        if not mine:
            raise LabelStudioError(f"task {task} has no annotation of {self.who()} to correct")
        self.call("PATCH", f"/api/annotations/{mine[-1]['id']}/", {"result": result})


def original(value: str) -> str:
    """The address in a task as it is stored: the API answers with Label Studio's own link to it, which holds it."""
    coded = parse_qs(urlsplit(value).query).get("fileuri") if "/resolve/" in value else None
    if not coded:
        return value
    try:
        return base64.urlsafe_b64decode(coded[0]).decode() or value
    except (binascii.Error, UnicodeDecodeError):
        return value
