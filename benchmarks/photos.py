"""The champion on digits as people photograph them: MNIST's test images, drawn on paper under light of many kinds."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.champion import home_with_runs
from benchmarks.measuring import PIPELINE, Row, python, run

SIDE = 360
KINDS = {
    "scan": "scanned",
    "falloff": "light that falls off from 1.1 to 0.8 across the sheet",
    "vignette": "dark corners",
    "shadow": "the edge of a shadow",
    "pencil": "pencil",
    "ruled": "ruled paper",
    "squared": "squared paper",
    "inclined": "ruled paper, slightly inclined",
    "frame": "a dark frame around the picture",
    "box": "a box around the digit",
    "desk": "the desk beside the sheet",
    "two": "two digits, to be refused",
}
BEFORE = {
    "scan": "0.975 right, 0.025 wrong, 0.000 refused",
    "falloff": "0.000 right, 0.000 wrong, 1.000 refused",
    "vignette": "0.011 right, 0.001 wrong, 0.989 refused",
    "shadow": "0.321 right, 0.264 wrong, 0.415 refused",
    "pencil": "0.000 right, 0.000 wrong, 1.000 refused",
    "ruled": "0.914 right, 0.071 wrong, 0.014 refused",
    "squared": "0.732 right, 0.164 wrong, 0.104 refused",
    "inclined": "0.942 right, 0.051 wrong, 0.006 refused",
    "frame": "0.899 right, 0.085 wrong, 0.016 refused",
    "box": "0.542 right, 0.458 wrong, 0.000 refused",
    "desk": "0.070 right, 0.760 wrong, 0.170 refused",
    "two": "0.118 right, 0.881 wrong, 0.000 refused",
}
"""How the code before 0.2.0 did on the same photographs, with the same champion."""

Grey = npt.NDArray[np.float64]


def draw(image: npt.NDArray[np.uint8], kind: str, chance: np.random.Generator, other: npt.NDArray[np.uint8]) -> bytes:
    """Return a photograph of a digit as a JPEG file.

    Args:
        image: uint8 (28, 28), bright strokes on black.
        kind: One of `KINDS`.
        chance: Decides sizes, places, greys and noise.
        other: A second digit, for the kind `two`.
    """
    paper, dark = chance.uniform(215, 245), chance.uniform(30, 80)
    if kind == "pencil":
        dark = paper - chance.uniform(35, 60)
    size = 150 if kind == "two" else int(chance.integers(150, 260))
    top, left = (100, 20) if kind == "two" else (int(chance.integers(20, SIDE - size - 19)) for _ in range(2))
    ink = np.zeros((SIDE, SIDE))
    ink[top : top + size, left : left + size] = _enlarge(image, size)
    if kind == "two":
        ink[top : top + size, 185 : 185 + size] = _enlarge(other, size)
    sheet = Image.fromarray(_as_bytes(paper - (paper - dark) * ink))
    if kind in ("ruled", "squared", "inclined"):
        sheet = _rule(sheet, kind, paper, chance)
    _draw_around(ImageDraw.Draw(sheet), kind, chance, top=top, left=left, size=size)
    grey = _light(np.asarray(sheet, np.float64), kind, chance)
    grey += chance.normal(0, 1 if kind == "scan" else 3, grey.shape)
    photo = Image.fromarray(_as_bytes(grey)).filter(ImageFilter.GaussianBlur(0.8))
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=int(chance.integers(70, 95)))
    return file.getvalue()


def _as_bytes(grey: Grey) -> npt.NDArray[np.uint8]:
    return grey.clip(0, 255).astype(np.uint8)


def _enlarge(image: npt.NDArray[np.uint8], size: int) -> Grey:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255


def _rule(sheet: Image.Image, kind: str, paper: float, chance: np.random.Generator) -> Image.Image:
    grey, step, width = int(paper - chance.uniform(40, 90)), int(chance.integers(32, 60)), int(chance.integers(1, 4))
    first = int(chance.integers(0, step)) - 20
    slope = chance.uniform(-0.03, 0.03) if kind == "inclined" else 0
    layer = Image.new("L", sheet.size, 255)
    lines = ImageDraw.Draw(layer)
    for place in range(first, SIDE + 20, step):
        lines.line([(0, place), (SIDE, place + slope * SIDE)], fill=grey, width=width)
        if kind == "squared":
            lines.line([(place, 0), (place, SIDE)], fill=grey, width=width)
    return Image.fromarray(np.minimum(np.asarray(sheet), np.asarray(layer)))


def _draw_around(
    sheet: ImageDraw.ImageDraw, kind: str, chance: np.random.Generator, *, top: int, left: int, size: int
) -> None:
    bottom, right = top + size, left + size
    match kind:
        case "frame":
            width, grey = int(chance.integers(4, 24)), int(chance.uniform(0, 70))
            sheet.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=grey, width=width)
        case "box":
            margin, width = int(chance.integers(6, 16)) - int(size * 0.02), int(chance.integers(2, 5))
            place = (
                max(2, left - margin),
                max(2, top - margin),
                min(SIDE - 3, right + margin),
                min(SIDE - 3, bottom + margin),
            )
            sheet.rectangle(place, outline=int(chance.uniform(20, 90)), width=width)
        case "desk":
            sides, width, grey = chance.permutation(4)[:2], int(chance.integers(15, 35)), int(chance.uniform(30, 110))
            places = (
                (0, 0, SIDE, min(width, top - 6)),
                (0, max(SIDE - width, bottom + 6), SIDE, SIDE),
                (0, 0, min(width, left - 6), SIDE),
                (max(SIDE - width, right + 6), 0, SIDE, SIDE),
            )
            for x0, y0, x1, y1 in (places[int(side)] for side in sides):
                if x1 > x0 and y1 > y0:
                    sheet.rectangle((x0, y0, x1, y1), fill=grey)


def _light(grey: Grey, kind: str, chance: np.random.Generator) -> Grey:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    angle = chance.uniform(0, 2 * np.pi)
    along = np.cos(angle) * (columns - 0.5) + np.sin(angle) * (rows - 0.5)
    light: Grey = 1.05 - 0.1 * rows
    match kind:
        case "falloff":
            light = 1.1 - 0.3 * (along / np.sqrt(0.5) + 0.5)
        case "vignette":
            light = 1 - 0.9 * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2)
        case "shadow":
            light = 1 - 0.35 / (1 + np.exp(-25 * (along - chance.uniform(-0.2, 0.2))))
        case "scan":
            light = np.ones_like(grey)
    return grey * light


def measure_photos() -> Iterator[Row]:
    """Classify 2,000 test images of each kind with the default run as the champion."""
    with home_with_runs() as home:
        run([*PIPELINE, "promote"], home=home)
        told = run(python("-m", "benchmarks.photos_once"), home=home).output
    for line in told.splitlines():
        kind, right, wrong, refused = line.split()
        yield Row(
            f"`predict` on 2,000 test images as photographs: {KINDS[kind]}",
            f"{right} right, {wrong} wrong, {refused} refused (before: {BEFORE[kind]})",
            "all refused" if kind == "two" else "as scanned",
        )
