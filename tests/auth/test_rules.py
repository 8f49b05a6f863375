"""The table of what each RPC takes is complete, and every RPC is asked about it."""

import importlib
import pkgutil

import pytest
from google.protobuf import descriptor_pool
from grpclib.const import Status

import pachd.proto
from pachd.api.rules import BY_TRANSACTION_FIELD, RULES
from pachd.client import Client, Method, RpcError
from pachd.pfs.transactions import executors
from pachd.pps.hooks import EXECUTORS
from pachd.proto import transaction_pb2
from tests.auth.conftest import Guarded

# Served by each worker for its own code, at an address of its own.
ELSEWHERE = {"pachyderm.worker.Worker"}


def methods() -> list[str]:
    """The path of every RPC of every service that pachd's descriptions have."""
    found = []
    for module in pkgutil.iter_modules(pachd.proto.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"pachd.proto.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                if service.full_name not in ELSEWHERE:
                    found += [f"/{service.full_name}/{method.name}" for method in service.methods]
    return sorted(found)


def call(client: Client, path: str) -> RpcError | None:
    """Call an RPC with an empty message; the error, or None."""
    service, name = path.strip("/").split("/")
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    method = Method(client, descriptor)
    request = method.request_type()
    try:
        reply = method([request] if descriptor.client_streaming else request, timeout=20)
        if descriptor.server_streaming:
            next(iter(reply), None)
            reply.close()
    except RpcError as error:
        return error
    return None


def test_every_rpc_is_in_the_table() -> None:
    assert len(methods()) > 150
    assert sorted(RULES) == methods()


def test_every_request_of_a_transaction_is_in_the_table() -> None:
    fields = set(transaction_pb2.TransactionRequest.DESCRIPTOR.fields_by_name)
    assert fields == set(BY_TRANSACTION_FIELD)
    assert set(executors) | set(EXECUTORS) <= fields
    assert set(BY_TRANSACTION_FIELD.values()) <= set(RULES)


def served(guarded: Guarded) -> list[str]:
    """The RPCs that this server has."""
    found = []
    for path in methods():
        error = call(guarded.root, path)
        if error is None or "is not available in this pachd" not in error.message:
            found.append(path)
    return found


# Those that take the whole server away from the other tests.
RUINOUS = {"/auth_v2.API/Deactivate", "/auth_v2.API/RotateRootToken", "/pfs_v2.API/SubscribeCommit"}
OPEN = {path for path, rule in RULES.items() if rule.gate is None}


@pytest.mark.parametrize("token", [None, "nonsense"])
def test_without_a_valid_token_only_open_rpcs_answer(guarded: Guarded, token: str | None) -> None:
    words = "no authentication token" if token is None else "provided auth token is corrupted"
    stranger = guarded.as_token(token)
    refused = 0
    for path in methods():
        error = call(stranger, path)
        if error is not None and "is not available in this pachd" in error.message:
            continue
        if path in OPEN:
            continue
        assert error is not None, f"{path} let a stranger in"
        if "identity provider" in error.message:  # there is nothing behind these
            continue
        assert (error.code, words in error.message) == (Status.UNAUTHENTICATED, True), (path, error)
        refused += 1
    assert refused > 100
    for path in ("/auth_v2.API/WhoAmI", "/auth_v2.API/Authorize"):
        error = call(stranger, path)
        assert error is not None and error.code in (Status.UNAUTHENTICATED, Status.INVALID_ARGUMENT), path


def test_a_user_without_roles_lacks_what_the_table_says(guarded: Guarded) -> None:
    nobody = guarded.robot("nobody")
    refused = 0
    for path, rule in sorted(RULES.items()):
        if not rule.gate or path == "/pfs_v2.API/CreateProject":  # everybody may make projects
            continue
        error = call(nobody, path)
        if error is not None and ("is not available" in error.message or "identity provider" in error.message):
            continue
        assert error is not None, f"{path} let a user without roles in"
        assert error.code == Status.PERMISSION_DENIED, (path, error)
        assert error.message.startswith(
            "robot:nobody is not authorized to perform this operation - needs permissions ["
        )
        assert " on CLUSTER . Run `pachctl auth roles-for-permission`" in error.message
        refused += 1
    assert refused > 25


def test_a_handler_of_a_stream_asks_for_itself() -> None:
    """Unary requests are asked about by the dispatch; those of streaming clients by whoever reads them."""
    import inspect

    from pachd.api import datums, ingest

    streaming = {
        path
        for path in methods()
        if descriptor_pool.Default()
        .FindServiceByName(path.strip("/").split("/")[0])
        .methods_by_name[path.rsplit("/", 1)[1]]
        .client_streaming
    }
    with_checks = {path for path in streaming if RULES[path].check is not None}
    assert with_checks == {"/pfs_v2.API/ModifyFile", "/pfs_v2.API/CreateFileSet", "/pps_v2.API/CreateDatum"}
    assert inspect.getsource(ingest).count("authorize_now(request)") == 2
    assert "authorize(request)" in inspect.getsource(datums)
