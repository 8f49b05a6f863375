"""auth_v2, identity_v2 and license_v2 of a server on which access control was never activated.

Clients recognise the sentence: pachctl's `auth whoami`, and both Python clients' `delete_all`, which ignores it.
"""

from google.protobuf import descriptor_pool
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from pachd.api.service import Call, Service
from pachd.proto import auth_pb2, identity_pb2, license_pb2  # noqa: F401  (they fill the descriptor pool)

NOT_ACTIVATED = "the auth service is not activated"


class Inactive(Service):
    """A service whose every RPC answers that authentication is not activated."""

    def __mapping__(self) -> dict[str, Handler]:
        service = descriptor_pool.Default().FindServiceByName(self.name)
        inactive = Handler(_refuse, Cardinality.STREAM_STREAM, bytes, bytes)
        return {f"/{self.name}/{m.name}": inactive for m in service.methods} | super().__mapping__()


async def _refuse(stream: "Stream[bytes, bytes]") -> None:
    raise GRPCError(Status.UNIMPLEMENTED, NOT_ACTIVATED)


class Auth(Inactive):
    name = "auth_v2.API"


class Identity(Inactive):
    name = "identity_v2.API"


class License(Service):
    """No licence is needed and none is kept."""

    name = "license_v2.API"

    async def DeleteAll(self, call: Call) -> None:
        await call.request()
        await call.reply(license_pb2.DeleteAllResponse())


SERVICES = [Auth, Identity, License]
