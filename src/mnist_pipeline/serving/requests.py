"""Requests to the scoring server: their size, the time they may take, and how one is refused."""

import asyncio

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope

MAX_BODY_BYTES = 8_000_000
"""Of a request: a few thousand images."""

BODY_TIMEOUT_SEC = 30.0


class RefusedRequestError(Exception):
    """A request to answer with `status` (4xx) and the message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(refusal: RefusedRequestError) -> JSONResponse:
    """Return the answer to a refused request."""
    return JSONResponse({"error_code": "BAD_REQUEST", "message": str(refusal)}, status_code=refusal.status)


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        RefusedRequestError: It is too large, or does not come to its end.
    """
    _require_size(int(Headers(scope=scope).get("content-length", "0")))
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SEC):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedRequestError(400, "the connection was closed in the middle of the request")
                body += message.get("body", b"")
                _require_size(len(body))
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise RefusedRequestError(408, f"the request was not complete after {BODY_TIMEOUT_SEC:g} s") from error


def _require_size(num_bytes: int) -> None:
    if num_bytes > MAX_BODY_BYTES:
        raise RefusedRequestError(413, f"the request is larger than {MAX_BODY_BYTES:,} bytes: send fewer images")
