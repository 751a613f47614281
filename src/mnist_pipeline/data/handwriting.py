"""The ink of one digit in a picture as people take them: under uneven light, in pencil, on ruled paper, in a box.

In steps, each of which returns a value: what is ink at all, against the ground near it; without lines and frames; the
parts that are the digit. Only sizes relative to the picture count.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mnist_pipeline.data.pictures import BadImageError, Invert

Grey = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEAST_SIDE = 64
"""Of a picture in pixels: in a smaller one strokes and lines cannot be told apart."""

_DIM = 96
"""Of 255: what differs little from a ground darker than that is noise rather than ink."""
_LEAST_INK = 0.05
"""Of the ground's brightness: fainter ink cannot be seen."""
_NUM_DEVIATIONS = 6  # of noise, that ink must be above
_INK_SHARE = 0.25
"""Of the darkest ink: what counts as ink. Lighter lines and the edges of strokes do not."""
_STROKE_SHARE = 1 / 6
"""Of the picture's side: no stroke is as wide."""
_PEAK = 99.7
"""Percentile of the ink that counts as the darkest."""
_LINE_SHARE = 0.85
"""Of the picture's side: a line from edge to edge is at least as long, and no stroke is."""
_MAX_LINE_SHARE = 0.04
"""Of the picture's side: a stroke is thicker than a line may be."""
_CONNECTED = np.ones((3, 3), np.bool_)


def find_ink(grey: npt.NDArray[np.uint8], *, invert: Invert) -> Grey:
    """Return the ink of the only digit, float64 (height, width) from 0; 0 where there is none.

    Args:
        grey: uint8 (height, width), each at least `LEAST_SIDE`.
        invert: Whether the strokes are dark on a bright ground.

    Raises:
        BadImageError: No digit can be seen, or several.
    """
    smooth = ndimage.gaussian_filter(grey.astype(np.float64), min(grey.shape) / 400)
    surface, is_bright = _fit_ground(smooth)
    as_bright, as_dark = (smooth, surface), (255 - smooth, 255 - surface)
    if invert is not Invert.auto:
        found = _find_parts(*(as_bright if invert is Invert.yes else as_dark))
    else:
        found = _find_parts(*(as_bright if is_bright else as_dark))
        # Nothing, or corners: what is bold may cover more than the ground around it.
        if not found.inside and _count_digits(found.parts) not in (1, 2):
            other = _find_parts(*(as_dark if is_bright else as_bright))
            found = other if other.inside else found
    return _cut_out(found)


def _fit_ground(grey: Grey) -> tuple[Grey, bool]:
    """Return the brightness of the paper as a quadratic surface, and whether most of what differs from it is darker.

    The surface is fitted to the pixels that are near it, again and again.
    """
    step = max(1, min(grey.shape) // 64)
    values = grey[::step, ::step].ravel()
    everywhere = _list_terms(grey.shape)
    terms = everywhere[::step, ::step].reshape(-1, 6)
    middle = float(np.median(values))
    possible = near = np.abs(values - middle) < 0.5 * max(middle, 255 - middle)
    rest = values - middle
    factors = np.array([middle, 0, 0, 0, 0, 0])
    for _ in range(6):
        if np.count_nonzero(near) < 50:
            break
        factors = np.linalg.lstsq(terms[near], values[near], rcond=None)[0]
        rest = values - terms @ factors
        near = possible & (np.abs(rest) < 2.5 * max(1.4826 * float(np.median(np.abs(rest[possible]))), 1))
    far = rest[~near]
    is_bright = bool(np.square(far[far < 0]).sum() > np.square(far[far > 0]).sum())
    return everywhere @ factors, is_bright


def _list_terms(shape: tuple[int, ...]) -> Grey:
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return np.stack([np.ones_like(rows), rows, columns, rows**2, rows * columns, columns**2], axis=-1)


def _measure_ink(grey: Grey, surface: Grey) -> Grey:
    """Return how much darker each pixel is than the ground near it, as a share of the ground, less what is usual.

    The ground follows the edges of shadows: it is the grey-level closing (Serra, 1982), which fills what is darker than
    all around it and narrower than a stroke may be. It is the surface where that would lose most of what is darkest: a
    large filled shape.
    """
    window = int(_STROKE_SHARE * min(grey.shape)) | 1
    closed = ndimage.gaussian_filter(ndimage.grey_closing(grey, size=(window, window)), window / 6)
    near, even = (_compare(grey, ground) for ground in (closed, surface))
    darkest = even > max(0.5 * float(np.percentile(even, _PEAK)), 0)
    return near if not darkest.any() or near[darkest].mean() > 0.5 * even[darkest].mean() else even


def _compare(grey: Grey, ground: Grey) -> Grey:
    ink = (ground - grey) / np.maximum(ground, _DIM)
    flat: Grey = ink - np.median(ink)
    return flat


def _drop_lines(mask: Mask) -> tuple[Mask, float]:
    """Return the mask without horizontal lines from edge to edge, and how thick the thickest was.

    Where a stroke crosses a line, it is thicker than the line, and stays.
    """
    length = max(3, int(0.25 * mask.shape[1]))
    tolerant = ndimage.maximum_filter1d(mask.astype(np.uint8), 5, axis=0)  # a line may be slightly inclined
    long = ndimage.maximum_filter1d(
        ndimage.minimum_filter1d(tolerant, length, axis=1, mode="nearest"), length, axis=1, mode="nearest"
    )
    labels, _ = ndimage.label(mask & (long > 0), _CONNECTED)
    runs = _measure_runs(mask)
    kept, thickest = mask.copy(), 0.0
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        here = labels[place] == number
        thickness = float(np.median(np.where(here, runs[place], 0).max(axis=0)))
        if here.shape[1] >= _LINE_SHARE * mask.shape[1] and thickness <= _MAX_LINE_SHARE * min(mask.shape):
            kept[place] &= ~(here & (runs[place] <= 1.5 * thickness + 2))
            thickest = max(thickest, thickness)
    return kept, thickest


def _measure_runs(mask: Mask) -> npt.NDArray[np.int64]:
    """Return the length of the vertical run that each pixel is part of; 0 outside of the mask."""
    rows = np.arange(len(mask))[:, None]
    before = np.maximum.accumulate(np.where(mask, -1, rows), axis=0)
    behind = np.minimum.accumulate(np.where(mask, len(mask), rows)[::-1], axis=0)[::-1]
    lengths: npt.NDArray[np.int64] = np.where(mask, behind - before - 1, 0)
    return lengths


def _drop_frames(mask: Mask) -> Mask:
    """Return the mask without boxes: parts whose four sides are straight, with ink inside."""
    labels, _ = ndimage.label(mask, _CONNECTED)
    kept = mask
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        part = labels[place] == number
        if min(part.shape) < 0.3 * min(mask.shape):
            continue
        frame = _find_frame(part)
        if frame is None:
            continue
        without = kept.copy()
        without[place] &= ~frame
        if np.count_nonzero(without[place]) > 0.002 * mask.size:
            kept = without
    return kept


def _find_frame(part: Mask) -> Mask | None:
    """Return the pixels of the four sides of a box; None where the part is none."""
    depth = max(3, int(0.12 * min(part.shape)))
    frame = np.zeros_like(part)
    for sides, found in ((part, frame), (part.T, frame.T)):
        runs = _measure_runs(sides)
        for band in (slice(0, depth), slice(len(sides) - depth, None)):
            if sides[band].any(axis=0).mean() < 0.9 or sides[band].mean(axis=1).max() < 0.6:
                return None
            thickness = float(np.median(runs[band].max(axis=0)))
            found[band] |= sides[band] & (runs[band] <= 1.5 * thickness + 2)
    return frame


@dataclass(frozen=True)
class _Part:
    """A connected part of the ink.

    Attributes:
        area: In pixels.
        touches: Whether it reaches the edge of the picture.
        strength: Of its ink.
    """

    number: int
    rows: slice
    columns: slice
    area: int
    touches: bool
    strength: float

    @property
    def height(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def extent(self) -> int:
        return max(self.height, int(self.columns.stop - self.columns.start))


@dataclass(frozen=True)
class _Found:
    """The ink of a picture.

    Attributes:
        ink: How dark it is, float64 (height, width).
        noise: The standard deviation of what is no ink.
        mask: Where ink is, without lines and frames.
        labels: The numbers of the parts, int32 (height, width).
        parts: Those as dark as strokes.
    """

    ink: Grey
    noise: float
    mask: Mask
    labels: npt.NDArray[np.int32]
    parts: list[_Part]

    @property
    def inside(self) -> list[_Part]:
        """Those that do not reach the edge, if one of them is as large as a digit; else none."""
        inside = [part for part in self.parts if not part.touches]
        return inside if any(part.extent >= 0.12 * min(self.mask.shape) for part in inside) else []


def _find_parts(grey: Grey, surface: Grey) -> _Found:
    """Return the ink on a bright ground, and its connected parts."""
    ink = _measure_ink(grey, surface)
    noise = 1.4826 * float(np.median(np.abs(ink)))
    peak = float(np.percentile(ink, _PEAK))
    if peak < max(_LEAST_INK, _NUM_DEVIATIONS * noise):
        return _Found(ink, noise, np.zeros(ink.shape, np.bool_), np.zeros(ink.shape, np.int32), [])
    mask, height = _drop_lines(ink > max(4 * noise, _INK_SHARE * peak))
    mask, width = _drop_lines(mask.T)
    mask, gap = _drop_frames(mask.T), max(height, width)
    around = math.ceil(max(1, min(mask.shape) / 150, gap / 2 + 2 if gap else 0))  # strokes were cut where lines were
    closed = ndimage.binary_closing(np.pad(mask, around + 1), _CONNECTED, iterations=around)
    labels, _ = ndimage.label(closed[around + 1 : -around - 1, around + 1 : -around - 1] | mask, _CONNECTED)
    parts = [part for part in _list_parts(labels, ink) if part.strength > 0.45 * peak]
    return _Found(ink, noise, mask, labels, parts)


def _cut_out(found: _Found) -> Grey:
    """Return the ink of the only digit; what reaches the edge beside it is a frame, a shadow, or the table.

    Raises:
        BadImageError: There is none, or there are several.
    """
    parts = found.inside or found.parts
    if not parts:
        raise BadImageError("no digit can be seen in it: too little contrast")
    area = max(part.area for part in parts)
    extent = max(part.extent for part in parts if part.area >= 0.2 * area)
    parts = [part for part in parts if part.area >= 0.02 * area and part.extent >= 0.12 * extent]
    num_digits = _count_digits(parts)
    if num_digits > 1:
        raise BadImageError(f"it shows {num_digits} digits: cut out one")
    mask = np.isin(found.labels, [part.number for part in parts]) & found.mask
    near = ndimage.binary_dilation(mask, _CONNECTED, iterations=2)  # with the soft edges of the strokes
    return np.where(near, np.clip(found.ink - 2 * found.noise, 0, None), 0)


def _list_parts(labels: npt.NDArray[np.int32], ink: Grey) -> list[_Part]:
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        here = labels[rows, columns] == number
        touches = 0 in (rows.start, columns.start) or rows.stop == len(labels) or columns.stop == labels.shape[1]
        strength = float(np.percentile(ink[rows, columns][here], 90))
        found.append(_Part(number, rows, columns, int(np.count_nonzero(here)), touches, strength))
    return found


def _count_digits(parts: list[_Part]) -> int:
    """Return how many groups of parts stand apart; parts that are much lower than others belong to one of them."""
    tallest = max((part.height for part in parts), default=0)
    groups: list[list[_Part]] = []
    for part in (part for part in parts if part.height >= 0.6 * tallest):
        beside = [group for group in groups if not all(_are_apart(part, other, 0.06 * tallest) for other in group)]
        for group in beside:
            groups.remove(group)
        groups.append([part, *(other for group in beside for other in group)])
    return len(groups)


def _are_apart(one: _Part, other: _Part, distance: float) -> bool:
    between = (
        max(one.columns.start, other.columns.start) - min(one.columns.stop, other.columns.stop),
        max(one.rows.start, other.rows.start) - min(one.rows.stop, other.rows.stop),
    )
    return bool(max(between) > distance)
