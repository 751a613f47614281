"""Digits in pictures as people take them. The benchmark `photos` measures how many are classified rightly."""

import io
import sys

import numpy as np
import numpy.typing as npt
import pytest
from conftest import ROOT, digits_arrays
from PIL import Image, ImageDraw

from mnist_pipeline.data.pictures import BadImageError, Invert, fit_digit, read_grey

sys.path.insert(0, str(ROOT))
from benchmarks.photos import KINDS, draw

SHAPE = (28, 28)
NUM_PHOTOS = 8


def fit(picture: bytes) -> npt.NDArray[np.uint8]:
    return fit_digit(read_grey(picture), image_shape=SHAPE, invert=Invert.auto)


def photo(number: int, kind: str) -> bytes:
    images = digits_arrays()["x_test"]
    chance = np.random.default_rng([number, list(KINDS).index(kind)])
    return draw(images[number], kind, chance, images[number + 7])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "two"])
def test_a_photograph_becomes_the_image_that_was_drawn(kind: str) -> None:
    images = digits_arrays()["x_test"]
    differences = []
    for number in range(NUM_PHOTOS):
        original = fit_digit(images[number], image_shape=SHAPE, invert=Invert.no).astype(float)
        found = fit(photo(number, kind))
        shifted = [np.roll(found, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]  # by the centre of mass
        differences.append(min(float(np.abs(one - original).mean()) for one in shifted))
    # Of 255. Squares leave gaps in strokes along them.
    assert sorted(differences)[NUM_PHOTOS // 2] < (24 if kind == "squared" else 12)
    assert sorted(differences)[-2] < 32  # a digit and its mirror image differ by 50


def test_several_digits_are_counted() -> None:
    images = digits_arrays()["x_test"]
    for number in range(NUM_PHOTOS):
        with pytest.raises(BadImageError, match=r"it shows 2 digits: cut out one"):
            fit(photo(number, "two"))
    sheet = np.full((200, 480), 235, np.uint8)
    for place, number in enumerate((0, 1, 2, 3)):
        big = np.asarray(Image.fromarray(images[number]).resize((100, 100)))
        sheet[50:150, 15 + 115 * place : 115 + 115 * place] -= (big * 0.8).astype(np.uint8)
    with pytest.raises(BadImageError, match=r"it shows 4 digits"):
        fit_digit(sheet, image_shape=SHAPE, invert=Invert.auto)


def page_with_a_seven() -> Image.Image:
    page = Image.new("L", (240, 240), 230)
    ImageDraw.Draw(page).line([(70, 60), (170, 60), (110, 190)], fill=40, width=16)
    return page


def test_the_parts_of_one_digit_are_one_digit() -> None:
    five = Image.new("L", (240, 240), 230)
    pen = ImageDraw.Draw(five)
    pen.line([(150, 50), (90, 50)], fill=40, width=14)  # a bar of its own
    pen.line([(90, 75), (90, 115)], fill=40, width=14)
    pen.arc([70, 105, 170, 205], 200, 150, fill=40, width=14)
    found = fit_digit(np.asarray(five), image_shape=SHAPE, invert=Invert.auto)
    assert (found[4:7, 10:18] > 100).any()  # the bar is there


@pytest.mark.parametrize("invert", [False, True])
def test_neither_lines_nor_a_box_that_crosses_a_stroke_cut_it(invert: bool) -> None:
    page = page_with_a_seven()
    expected = fit_digit(np.asarray(page), image_shape=SHAPE, invert=Invert.auto).astype(int)
    pen = ImageDraw.Draw(page)
    for row in range(20, 240, 45):
        pen.line([(0, row), (240, row)], fill=110, width=3)
    pen.rectangle([50, 35, 190, 215], outline=40, width=3)
    drawn = 255 - np.asarray(page) if invert else np.asarray(page)
    found = fit_digit(drawn, image_shape=SHAPE, invert=Invert.auto)
    assert np.abs(found - expected).mean() < 8


def test_what_reaches_the_edge_is_dropped_only_beside_a_digit() -> None:
    page = page_with_a_seven()
    expected = fit_digit(np.asarray(page), image_shape=SHAPE, invert=Invert.auto).astype(int)
    ImageDraw.Draw(page).polygon([(0, 200), (60, 240), (0, 240)], fill=30)
    found = fit_digit(np.asarray(page), image_shape=SHAPE, invert=Invert.auto)
    assert np.abs(found - expected).mean() < 4
    alone = np.asarray(page_with_a_seven())[52:, 62:178]  # cut tightly: the seven itself reaches the edge
    assert np.abs(fit_digit(alone, image_shape=SHAPE, invert=Invert.auto) - expected).mean() < 12


@pytest.mark.parametrize("noise", [0, 2, 6])
def test_an_empty_sheet_is_refused_however_noisy(noise: int) -> None:
    rows = np.linspace(1.1, 0.8, 300)[:, None]
    grey = 200 * rows + np.random.default_rng(0).normal(0, noise, (300, 240))
    with pytest.raises(BadImageError, match="too little contrast"):
        fit_digit(grey.clip(0, 255).astype(np.uint8), image_shape=SHAPE, invert=Invert.auto)


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_of_16_bits_any_share_may_be_used(bits: int) -> None:
    grey = np.asarray(page_with_a_seven())
    content = io.BytesIO()
    Image.fromarray((grey.astype(np.float64) / 255 * (2**bits - 1)).astype(np.uint16)).save(content, "PNG")
    expected = fit_digit(grey, image_shape=SHAPE, invert=Invert.auto).astype(int)
    assert np.abs(fit(content.getvalue()) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "GIF", "PNG", "JPEG"])
def test_pictures_of_every_safe_format_are_read(kind: str) -> None:
    content = io.BytesIO()
    page_with_a_seven().save(content, kind)
    expected = fit_digit(np.asarray(page_with_a_seven()), image_shape=SHAPE, invert=Invert.auto).astype(int)
    assert np.abs(fit(content.getvalue()) - expected).mean() < 4
