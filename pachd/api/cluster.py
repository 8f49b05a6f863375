"""Who this server is: admin_v2, versionpb_v2, enterprise_v2 and license_v2."""

import platform

from pachd.api.service import Call, Service
from pachd.pfs import metadata
from pachd.proto import admin_pb2, enterprise_pb2, license_pb2, version_pb2

# The version of Pachyderm whose API is served: clients compare it with their own.
MAJOR, MINOR, MICRO = 2, 12, 2
PLATFORMS = {"x86_64": "amd64", "aarch64": "arm64"}


class Admin(Service):
    """InspectCluster; restarting the embedded server is left to whoever started it."""

    name = "admin_v2.API"

    async def InspectCluster(self, call: Call) -> None:
        request: admin_pb2.InspectClusterRequest = await call.request()
        info = admin_pb2.ClusterInfo(
            id=self.context.deployment_id,
            deployment_id=self.context.deployment_id,
            warnings_ok=True,  # without it pachctl says that the server is too old
            warnings=_skew(request),
            metadata=await self.context.read(metadata.cluster),
        )
        info.web_resources.SetInParent()  # pachctl reads its fields without asking whether it is there
        await call.reply(info)

    async def RestartPachyderm(self, call: Call) -> None:
        await call.request()
        await call.reply(admin_pb2.RestartPachydermResponse())


def _skew(request: admin_pb2.InspectClusterRequest) -> list[str]:
    if not request.HasField("client_version"):
        return []
    client = request.client_version
    if (client.major, client.minor) == (MAJOR, MINOR):
        return []
    return [
        f"version mismatch: this client is {client.major}.{client.minor}.{client.micro}, "
        f"the server speaks the API of {MAJOR}.{MINOR}.{MICRO}"
    ]


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
