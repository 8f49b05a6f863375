"""Bodies of requests. Unknown fields are ignored, as Pachyderm's mount server does; null means the default."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mount_server.errors import InvalidRequest

Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class MountItem(_Body):
    """One mount of `PUT /_mount`."""

    name: Text = ""
    repo: Text = ""
    project: Text = ""
    branch: Text = ""
    commit: Text = ""
    path: Text = ""
    mode: Text = ""
    temporary: bool = False


def _list(value: Any) -> Any:
    return [] if value is None else value


class MountBody(_Body):
    """`PUT /_mount`."""

    mounts: Annotated[list[MountItem], BeforeValidator(_list)] = []


class UnmountBody(_Body):
    """`PUT /_unmount`. `discard`: forget what is staged instead of committing it."""

    mounts: Annotated[list[str], BeforeValidator(_list)] = []
    discard: bool = False


class CommitBody(_Body):
    """`PUT /_commit`. `expected_head`: commit ID the branch must be at, "" for a branch without commits."""

    mount: Text = ""
    message: Text = ""
    metadata: Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)] = {}
    expected_head: str | None = None
    idempotency_key: Text = ""


class StageFile(_Body):
    """A file of `POST /_stage`: exactly one of text, base64 and delete."""

    path: str
    text: str | None = None
    base64: str | None = None
    delete: bool = False

    @model_validator(mode="after")
    def _one(self) -> "StageFile":
        if (self.text is not None) + (self.base64 is not None) + self.delete != 1:
            raise InvalidRequest(f"file {self.path!r}: give exactly one of `text`, `base64` and `delete: true`")
        return self


class StageBody(_Body):
    """`POST /_stage`."""

    mount: str
    files: list[StageFile] = Field(default_factory=list)


class ConfigBody(_Body):
    """`PUT /config`."""

    pachd_address: Text = ""
    server_cas: Text = ""


class TokenBody(_Body):
    """`PUT /auth/_login_token`: an OIDC ID token, or an access token of Pachyderm's own."""

    oidc: Text = ""
    token: Text = ""
