"""Errors as RFC 9457 problem details: what was wrong, where, and what to do, with the field at fault."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from tipbench.api.models import Fault, ProblemBody
from tipbench.engines.base import EngineUnreachable
from tipbench.errors import InputError, TipbenchError, UnreachableError
from tipbench.judging.validate import pointer

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: ("bad-request", "The request cannot be read"),
    401: ("unauthenticated", "Who are you?"),
    403: ("forbidden", "This is not allowed"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "This cannot be done here"),
    406: ("not-acceptable", "There is no such rendering"),
    409: ("conflict", "This cannot be done now"),
    413: ("too-large", "The body is too large"),
    415: ("unsupported-media-type", "The body is of the wrong kind"),
    422: ("invalid", "The request is not valid"),
    429: ("slow-down", "Too many attempts"),
    500: ("internal", "The API itself failed"),
    502: ("bad-gateway", "A service that the API needs gave a wrong answer"),
    503: ("unavailable", "A service that the API needs is away"),
}
RETRY_AFTER_S = 5
log = logging.getLogger("tipbench.api")


class Problem(HTTPException):
    """An error that is shown to the caller as it is."""

    def __init__(
        self, status: int, detail: str, *, errors: Sequence[Fault] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = tuple(errors)


def invalid(detail: str, *faults: tuple[str, str]) -> Problem:
    """422, with (pointer, words) for every fault."""
    return Problem(422, detail, errors=[Fault(pointer=place, detail=words) for place, words in faults])


def from_tipbench(error: TipbenchError) -> Problem:
    """tipbench's own errors: wrong input is the caller's, a service that is away is 503, any other refusal is 502."""
    if isinstance(error, InputError):
        faults = [_fault(one) for one in error.faults]
        return Problem(422, str(error).split("\n", 1)[0], errors=faults)
    if isinstance(error, UnreachableError | EngineUnreachable):
        return Problem(503, str(error), headers={"Retry-After": str(RETRY_AFTER_S)})
    return Problem(502, str(error))


def _fault(line: str) -> Fault:
    """`"n_tips: 0 is too small"` and `"/items/0/id: ..."` are faults with a place; anything else has none."""
    place, colon, words = line.partition(": ")
    if not colon or " " in place:
        return Fault(pointer="", detail=line)
    return Fault(pointer=place if place.startswith("/") or not place else "/" + place, detail=words)


def response(problem: Problem, request_id: str) -> Response:
    """The problem as it goes out."""
    slug, title = TITLES.get(problem.status_code, ("error", "The request failed"))
    body = ProblemBody(
        type=f"urn:tipbench:problem:{slug}",
        title=title,
        status=problem.status_code,
        detail=str(problem.detail),
        instance=f"urn:uuid:{request_id}",
        errors=problem.errors,
    )
    # ASCII, so that half a surrogate pair from the request cannot break the answer about it.
    content = json.dumps(body.model_dump(mode="python"))
    return Response(content, problem.status_code, dict(problem.headers or {}), MEDIA_TYPE)


def of(error: Exception) -> Problem:
    """Any error as a problem; one that nobody foresaw tells nothing of itself."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TipbenchError):
        return from_tipbench(error)
    if isinstance(error, RequestValidationError):
        return _validation(error)
    if isinstance(error, StarletteHTTPException):
        words = {404: "Nothing is here.", 405: "This path has no such method."}.get(error.status_code)
        return Problem(error.status_code, words or str(error.detail), headers=dict(error.headers or {}))
    log.error("unforeseen error", exc_info=error)
    return Problem(500, "The error is in the API's log, under this problem's instance.")


def _validation(error: RequestValidationError) -> Problem:
    """FastAPI's own findings; a body's place is a JSON pointer, a parameter's its name."""
    faults = []
    for one in error.errors()[:50]:
        where, *rest = one["loc"]
        if one["type"] == "json_invalid":
            faults.append(("", f"not JSON: {one.get('ctx', {}).get('error', one['msg'])}"))
        else:
            place = pointer(rest) if where == "body" else ".".join(map(str, rest))
            faults.append((place, one["msg"]))
    return invalid(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the request", *faults)


def install(app: FastAPI) -> None:
    """Have every error of the app go out as a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return response(of(error), request.scope.get("request_id", "0" * 32))

    for kind in (Problem, StarletteHTTPException, RequestValidationError, TipbenchError):
        app.add_exception_handler(kind, handle)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these statuses."""
    return {
        status: {"description": TITLES[status][1], "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}}}
        for status in statuses
    }


PROBLEM_REF = {"$ref": "#/components/schemas/ProblemBody"}
