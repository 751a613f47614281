"""MLflow's scoring server for the champion, behind a check that accepts only images of raw pixels.

MLflow casts its input to the type of the signature: 7.6 becomes 7, so an image scaled to 0..1 would become black and
get a confident answer. The check refuses anything but raw pixels with a 4xx status and the reason.
"""

import asyncio
import json
from typing import Any, NoReturn

import mlflow.pyfunc.scoring_server
import numpy as np
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_pipeline.serving.champion import Champion
from mnist_pipeline.serving.picture_endpoint import PictureEndpoint
from mnist_pipeline.serving.requests import RefusedRequestError, answer, read_body

_LARGE_BODY_BYTES = 100_000

_KEYS = ("inputs", "instances")


class _Model:
    """The champion as the scoring server expects a model."""

    def __init__(self, champion: Champion) -> None:
        self.metadata = champion.metadata
        self._champion = champion

    def predict(self, data: Any) -> Any:
        """Return the probabilities."""
        return self._champion.predict(np.asarray(data, np.uint8))


class OnlyRawPixels:
    """Passes a request to MLflow only if it holds images of whole pixels."""

    def __init__(self, app: ASGIApp, *, image_shape: tuple[int, ...]) -> None:
        self._app = app
        self._image_shape = image_shape
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it to MLflow. Every POST is checked: a path can be written in several ways."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            require_json(Headers(scope=scope).get("content-type", ""))
            body = await read_body(scope, receive)
        except RefusedRequestError as refusal:
            await answer(refusal)(scope, receive, send)
            return
        if len(body) < _LARGE_BODY_BYTES:
            await self._pass_on(body, scope, receive, send)
            return
        async with self._turn:  # one at a time: each takes many times its size in memory
            await self._pass_on(body, scope, receive, send)

    async def _pass_on(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if len(body) < _LARGE_BODY_BYTES:
                require_images(body, self._image_shape)
            else:
                await asyncio.to_thread(require_images, body, self._image_shape)
        except RefusedRequestError as refusal:
            await answer(refusal)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        # MLflow accepts fewer spellings of the type than HTTP allows.
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        await self._app({**scope, "headers": [*headers, (b"content-type", b"application/json")]}, replay, send)


def require_json(content_type: str) -> None:
    """Refuse every type but JSON in UTF-8.

    Raises:
        RefusedRequestError: With status 415.
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind != "application/json" or any(part not in ("", "charset=utf-8", 'charset="utf-8"') for part in parameters):
        raise RefusedRequestError(415, f"Content-Type {content_type[:100]!r}: expected application/json")


def require_images(body: bytes, image_shape: tuple[int, ...]) -> None:
    """Require `{"inputs": [...]}` with images of whole pixels 0..255, in the model's shape; none is changed.

    Raises:
        RefusedRequestError: With status 400 and what is wrong.
    """
    height, width, *channels = image_shape
    one = f"{width} pixels of {channels[0]}" if channels else f"{width}"
    expected = f'expected {{"inputs": images}}, each {height} rows of {one} whole numbers of 0..255'
    try:
        request = json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_refuse_fraction)
    except (ValueError, RecursionError) as error:
        raise RefusedRequestError(400, f"the body is not JSON ({error}); {expected}") from error
    if not isinstance(request, dict) or len(request) != 1 or next(iter(request)) not in _KEYS:
        found = f"the keys {sorted(request)[:5]}"[:200] if isinstance(request, dict) else _describe(request)
        raise RefusedRequestError(400, f"found {found}; {expected}")
    (images,) = request.values()
    if not isinstance(images, list) or not images:
        raise RefusedRequestError(400, f"it has no images; {expected}")
    for number, image in enumerate(images):
        _require_image(image, number, image_shape, expected)


def _require_image(image: Any, number: int, image_shape: tuple[int, ...], expected: str) -> None:
    height, width, *channels = image_shape
    if not isinstance(image, list) or len(image) != height:
        raise RefusedRequestError(400, f"image {number} is {_describe(image)}; {expected}")
    for row in image:
        if not isinstance(row, list) or len(row) != width:
            raise RefusedRequestError(400, f"image {number} has a row that is {_describe(row)}; {expected}")
        for pixel in row if channels else ():
            if not isinstance(pixel, list) or len(pixel) != channels[0]:
                raise RefusedRequestError(400, f"image {number} has a pixel that is {_describe(pixel)}; {expected}")
    for values in [pixel for row in image for pixel in row] if channels else image:
        # True is a number in Python, but not a pixel. A set of the types is faster than a check of each pixel.
        if set(map(type, values)) != {int}:
            wrong = next(value for value in values if type(value) is not int)
            raise RefusedRequestError(400, f"image {number} has a pixel that is {_describe(wrong)}; {expected}")
        if min(values) < 0 or max(values) > 255:
            wrong = next(value for value in values if not 0 <= value <= 255)
            raise RefusedRequestError(400, f"image {number} has the pixel {str(wrong)[:50]}; {expected}")


def _describe(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {str: "text", dict: "an object", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _refuse_fraction(text: str) -> NoReturn:
    raise RefusedRequestError(
        400,
        f"the number {text[:50]} has a fraction or an exponent: send raw pixels, whole numbers from 0 to 255; the "
        "model scales them itself",
    )


def _refuse_constant(text: str) -> NoReturn:
    raise RefusedRequestError(400, f"{text} is not a number from 0 to 255")


def make_app(champion: Champion) -> ASGIApp:
    """Return MLflow's scoring server behind the check, and beside it the endpoint for pictures."""
    app = OnlyRawPixels(mlflow.pyfunc.scoring_server.init(_Model(champion)), image_shape=champion.image_shape)
    return PictureEndpoint(app, champion)
