"""What the HTTP API answers to errors: a domain error has one status, and each error a JSON body."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mount_server import errors

STATUS: dict[type[errors.MountError], int] = {
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.NotADirectory: 400,
    errors.IsADirectory: 400,
    errors.NotEmpty: 409,
    errors.ReadOnly: 403,
    errors.IllegalName: 400,
    errors.InvalidRequest: 400,
    errors.NameInUse: 409,
    errors.HeadMoved: 409,
    errors.Conflict: 409,
    errors.TimedOut: 504,
    errors.Unreachable: 503,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.NoSpace: 507,
    errors.NotSupported: 501,
    errors.NotImplementedHere: 501,
    errors.PachdFailed: 502,
}


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.MountError)
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    return JSONResponse({"error": str(error), "code": error.code}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    text = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"error": text, "code": code}, error.status_code, headers=dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"internal error: {type(error).__name__}: {error}", "code": "internal"}, 500)


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    errors.MountError: _domain_error,
    HTTPException: _http_error,
    Exception: _bug,
}
"""For Starlette: which errors it answers how."""
