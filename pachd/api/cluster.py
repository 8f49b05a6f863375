"""Who this server is: admin_v2, versionpb_v2, enterprise_v2 and license_v2."""

import logging
import platform
import re

from pachd.api.context import Context
from pachd.api.service import Call, Service
from pachd.auth import tokens
from pachd.errors import NotFound, PachError
from pachd.pfs import metadata, projects
from pachd.proto import admin_pb2, enterprise_pb2, license_pb2, version_pb2
from pachd.store import Snapshot

log = logging.getLogger(__name__)

# The version of Pachyderm whose API is served: clients compare it with their own.
MAJOR, MINOR, MICRO = 2, 12, 2
# What may follow the numbers of a version with a dash; see semver.org.
_IDENTIFIERS = re.compile(r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*")
PLATFORMS = {"x86_64": "amd64", "aarch64": "arm64"}


class Admin(Service):
    """InspectCluster, and restarts asked for: they are noted, and done by whoever started the embedded server."""

    name = "admin_v2.API"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._restarts: list[str] = []  # the newest first; a restart forgets them

    async def InspectCluster(self, call: Call) -> None:
        request: admin_pb2.InspectClusterRequest = await call.request()
        warnings = _skew(request)
        if request.current_project.name:
            token = call.metadata.get("authn-token")
            warnings += await self.context.read(lambda s: self._project(s, token, request.current_project.name))
        info = admin_pb2.ClusterInfo(
            id=self.context.deployment_id,
            deployment_id=self.context.deployment_id,
            warnings_ok=True,  # without it pachctl says that the server is too old
            warnings=warnings,
            metadata=await self.context.read(metadata.cluster),
            pending_restart=bool(self._restarts),
            restart_info="; ".join(self._restarts),
        )
        info.web_resources.SetInParent()  # pachctl reads its fields without asking whether it is there
        await call.reply(info)

    def _project(self, snapshot: Snapshot, token: str | None, name: str) -> list[str]:
        """Return what is wrong with the project that the client works in; who is not signed in is not told."""
        if self.context.guard.active:
            try:
                tokens.identify(snapshot, token)
            except PachError:
                return []
        try:
            projects.inspect_project(snapshot, name)
        except NotFound as error:
            return [f'WARNING: Could not inspect project "{name}": {error}']
        return []

    async def RestartPachyderm(self, call: Call) -> None:
        request: admin_pb2.RestartPachydermRequest = await call.request()
        self._restarts.insert(0, f"{request.reason or 'restart requested'} by {call.principal or '<unknown>'}")
        log.warning("a restart of pachd is asked for: %s", self._restarts[0])
        await call.reply(admin_pb2.RestartPachydermResponse())


def _skew(request: admin_pb2.InspectClusterRequest) -> list[str]:
    """Return what Pachyderm tells clients of another version; pachctl shows it as it is."""
    told = "WARNING: The client used to connect to Pachyderm "
    client = request.client_version
    if not request.HasField("client_version"):
        return [f"{told}did not send its version, which means that it is likely too old.  Please upgrade it."]
    number = (client.major, client.minor, client.micro)
    if number == (0, 0, 0):  # made by a developer
        return []
    pre_release = client.additional.lstrip("-.+").partition("+")[0]
    if client.additional and not _IDENTIFIERS.fullmatch(pre_release):
        number = (0, 0, 0)  # no version at all, which is before every other one
    elif client.additional:
        return [
            f"{told}is a pre-release version not compatible with the server; please use a released version compatible "
            f"with v{MAJOR}.{MINOR}.{MICRO}."
        ]
    if number[:2] < (MAJOR, MINOR):
        return [f"{told}is much older than the server; please upgrade the client."]
    if number[:2] > (MAJOR, MINOR):
        return [f"{told}is much newer than the server; please use a version of the client that matches the server."]
    return []


class Version(Service):
    name = "versionpb_v2.API"

    async def GetVersion(self, call: Call) -> None:
        await call.request()
        machine = platform.machine()
        await call.reply(
            version_pb2.Version(
                major=MAJOR,
                minor=MINOR,
                micro=MICRO,
                go_version=f"python{platform.python_version()}",
                platform=PLATFORMS.get(machine, machine),
            )
        )


class Enterprise(Service):
    """There is no licence to ask for: the state is NONE."""

    name = "enterprise_v2.API"

    async def GetState(self, call: Call) -> None:
        await call.request()
        await call.reply(enterprise_pb2.GetStateResponse(state=enterprise_pb2.NONE))

    async def GetActivationCode(self, call: Call) -> None:
        await call.request()
        await call.reply(enterprise_pb2.GetActivationCodeResponse(state=enterprise_pb2.NONE))

    async def Deactivate(self, call: Call) -> None:
        await call.request()
        await call.reply(enterprise_pb2.DeactivateResponse())

    async def PauseStatus(self, call: Call) -> None:
        await call.request()
        await call.reply(enterprise_pb2.PauseStatusResponse(status=enterprise_pb2.PauseStatusResponse.UNPAUSED))


class License(Service):
    """No licence is needed and none is kept."""

    name = "license_v2.API"

    async def DeleteAll(self, call: Call) -> None:
        await call.request()
        await call.reply(license_pb2.DeleteAllResponse())


SERVICES = [Admin, Version, Enterprise, License]
