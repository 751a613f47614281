"""`POST /predict` of the scoring server: pictures as they are, one as the body or several as a form."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_pipeline.data.pictures import BadImageError
from mnist_pipeline.serving.champion import Champion
from mnist_pipeline.serving.predict import read_image
from mnist_pipeline.serving.requests import RefusedRequestError, answer, read_body
from mnist_pipeline.system.text import printable

PATH = "/predict"
MAX_PICTURES = 200
"""In one request."""

_FORM = "multipart/form-data"


@dataclass(frozen=True)
class _Picture:
    name: str
    content: bytes


class PictureEndpoint:
    """Answers requests for `/predict`, and passes all others on."""

    def __init__(self, app: ASGIApp, champion: Champion) -> None:
        self._app = app
        self._champion = champion
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Classify the pictures of a request, or say what is wrong with it."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] != "POST":
                raise RefusedRequestError(405, f"{scope['method'][:20]}: send pictures with POST")
            pictures = await _read_pictures(scope, receive)
            async with self._turn:  # one at a time: a picture takes many times its size in memory
                response = JSONResponse(await asyncio.to_thread(self._classify, pictures))
        except RefusedRequestError as refusal:
            response = answer(refusal)
        await response(scope, receive, send)

    def _classify(self, pictures: list[_Picture]) -> dict[str, Any]:
        images = []
        for picture in pictures:
            try:
                images.append(read_image(picture.content, self._champion))
            except BadImageError as error:
                raise RefusedRequestError(400, f"{printable(picture.name)} cannot be used: {error}") from error
        names = self._champion.class_names
        predictions = [
            {
                "picture": picture.name,
                "class": names[int(probabilities.argmax())],
                "probability": float(probabilities.max()),
                "probabilities": dict(zip(names, map(float, probabilities), strict=True)),
            }
            for picture, probabilities in zip(pictures, self._champion.predict(np.stack(images)), strict=True)
        ]
        return {"model": self._champion.name, "version": self._champion.version, "predictions": predictions}


def save_example(champion: Champion, file: Path) -> None:
    """Write the image that the model was logged with as a picture."""
    (first, *_) = next(iter(json.loads(champion.example).values()))
    Image.fromarray(np.array(first, np.uint8)).save(file)


async def _read_pictures(scope: Scope, receive: Receive) -> list[_Picture]:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM and kind != "application/octet-stream" and not kind.startswith("image/"):
        raise RefusedRequestError(415, f"Content-Type {kind[:100]!r}: expected that of a picture, or {_FORM}")
    body = await read_body(scope, receive)
    if not body:
        raise RefusedRequestError(400, "the body is empty: send a picture")
    if kind != _FORM:
        return [_Picture("the picture", body)]
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    try:
        async with Request(scope, replay).form(max_files=MAX_PICTURES, max_fields=MAX_PICTURES) as form:
            found = [
                _Picture(value.filename or key, await value.read())
                for key, value in form.multi_items()
                if isinstance(value, UploadFile)
            ]
    except (MultiPartException, KeyError) as error:  # a KeyError: it names no boundary
        reason = error.message if isinstance(error, MultiPartException) else "its Content-Type has no boundary"
        raise RefusedRequestError(400, f"the form cannot be read: {reason}") from error
    if not found:
        raise RefusedRequestError(400, "the form has no files: send pictures, e.g. with curl -F picture=@FILE")
    return found
