"""Every refusal of this server in OpenAI's shape, whoever found it: we, FastAPI, the router, or the database."""

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tokenworks.control.objects.store import StoreError
from tokenworks.control.storage.database import describe
from tokenworks.control.storage.pages import UnknownCursor
from tokenworks.core.errors import (
    CallerError,
    InternalError,
    InvalidRequest,
    LimitReached,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    TokenworksError,
    Unauthenticated,
    Unavailable,
)

RETRY_AFTER = 1.0

log = logging.getLogger(__name__)


def response(error: TokenworksError) -> JSONResponse:
    body = {"message": error.message, "type": _type(error), "param": error.param, "code": error.code}
    headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": body}, error.status, headers)


def install(app: FastAPI) -> None:
    async def refused(_: Request, error: Any) -> JSONResponse:
        return response(error)

    async def invalid(_: Request, error: Any) -> JSONResponse:
        return response(_invalid(error))

    async def off_the_list(_: Request, error: Any) -> JSONResponse:
        return response(InvalidRequest(f"after: this list has no {str(error)!r}.", param="after"))

    async def unrouted(request: Request, error: Any) -> JSONResponse:
        return response(_unrouted(request, error))

    async def no_database(_: Request, error: Any) -> JSONResponse:
        return response(database_away(error))

    async def no_store(_: Request, error: Exception) -> JSONResponse:
        log.error("object store: %s", error)
        return response(Unavailable("The files cannot be read now.", code="object_store", retry_after=RETRY_AFTER))

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=499)  # its client left while it sent its body: nobody reads this

    async def broken(_: Request, error: Exception) -> JSONResponse:
        return response(InternalError("Internal error; the log of the control process has the cause."))

    app.add_exception_handler(TokenworksError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(UnknownCursor, off_the_list)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(SQLAlchemyError, no_database)
    app.add_exception_handler(StoreError, no_store)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, broken)


def database_away(error: Exception) -> Unavailable:
    log.error("database: %s", describe(error))
    return Unavailable("The database is not available.", code="database", retry_after=RETRY_AFTER)


def _type(error: TokenworksError) -> str:
    match error:
        case Unauthenticated():
            return "authentication_error"
        case PermissionDenied():
            return "permission_error"
        case LimitReached():
            return "rate_limit_error"
        case CallerError():
            return "invalid_request_error"
        case _:
            return "server_error"


def _invalid(error: RequestValidationError) -> InvalidRequest:
    """Only the first problem; it names the field as the caller wrote it."""
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return InvalidRequest(f"The body is not JSON: {problem.get('ctx', {}).get('error', problem['msg'])}.")
    where = ".".join(str(part) for part in problem["loc"][1:])
    if not where:
        return InvalidRequest("The body must be a JSON object, sent as application/json.")
    said = problem["msg"].removeprefix("Value error, ").rstrip(".")
    return InvalidRequest(f"{where}: {said}.", param=where)


def _unrouted(request: Request, error: HTTPException) -> TokenworksError:
    if error.status_code == 404:
        return NotFound(f"There is nothing at {request.url.path}.")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}.")
    return InvalidRequest(str(error.detail))
