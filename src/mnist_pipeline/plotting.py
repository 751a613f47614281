"""Shared parts of the figures: colours, axes, grids of images, PNG files.

Every function returns a new `matplotlib.figure.Figure`; pyplot's global state is never used.
"""

import io
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_pipeline.system.text import printable

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#9aa5ad"

mpl.rcdefaults()  # the user's own style is for the user's own figures; with text.usetex ours would need LaTeX
mpl.rcParams.update(
    {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110, "font.size": 10, "axes.titlesize": 11}
)


def to_png(figure: Figure) -> bytes:
    """Return `figure` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    # Not `savefig`: it draws everything twice, the first time only to lay it out.
    FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": 3})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def make_axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure of `width` by `height` inches and its only axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def draw_image_grid(images: npt.NDArray[np.uint8], titles: list[str], *, title: str, empty: str) -> Figure:
    """Draw images uint8 (n, height, width[, channels]) in a grid, each below its title.

    Without images the title is `empty`.
    """
    num_columns = min(len(images), max(4, math.ceil(math.sqrt(len(images))))) or 1
    num_rows = math.ceil(len(images) / num_columns) or 1
    # One sheet on one pair of axes: laying out a pair for each image takes ten times as long.
    figure, axes = make_axes(1.5 * num_columns + 0.4, 1.8 * num_rows + 0.5, title if len(images) else empty)
    axes.axis("off")
    axes.set_xlim(0, num_columns)
    axes.set_ylim(num_rows, 0)
    for number, (image, caption) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(number, num_columns)
        axes.imshow(
            image,
            cmap="gray_r",
            vmin=0,
            vmax=255,
            extent=(column + 0.1, column + 0.9, row + 1, row + 0.25),
            aspect="auto",
        )
        axes.text(column + 0.5, row + 0.22, caption, ha="center", va="bottom", fontsize=8)
    return figure


def draw_sheet(rows: Sequence[npt.NDArray[np.uint8]], *, names: Sequence[str], columns: int, title: str) -> Figure:
    """Draw rows of images uint8 (n, height, width[, channels]), all of one size, each row beside its name.

    Args:
        rows: With at most `columns` images each; one of them has at least one.
        names: Of the rows.
        columns: Width of the sheet, in images.
        title: Of the figure.
    """
    height, width, *channels = next(images.shape[1:] for images in rows if len(images))
    sheet = np.zeros((len(rows) * height, columns * width, *channels), np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    figure, axes = make_axes(6, min(60, 0.2 + 0.6 * len(rows)), title)
    axes.imshow(sheet, cmap="gray_r")
    axes.set_xticks([])
    axes.set_yticks([height * (row + 0.5) for row in range(len(rows))], list(map(literal, names)))
    axes.spines[:].set_visible(False)
    return figure


def slant(axes: Axes, names: Sequence[str]) -> None:
    """Set the labels of the classes below an axis at a slant if they would not fit side by side."""
    if max(map(len, names), default=0) * len(names) > 40:
        axes.tick_params(axis="x", rotation=60)


def literal(text: str) -> str:
    """Return foreign text such that matplotlib draws it literally; it would take text between dollars for a formula."""
    return printable(text, keep="\n").replace("$", "\\$")
