"""`data=folder`: a folder of pictures for each class."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.dataset import Attempt, Images
from mnist_pipeline.data.decoding import decode
from mnist_pipeline.data.pictures import SUFFIXES, Form, is_ignored
from mnist_pipeline.system import paths

_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_MAX_STRAY_SHARE = 0.1
_MIN_STRAY = 10


def load(
    path: str,
    *,
    image_size: tuple[int, int] | None = None,
    color: Literal["grey", "rgb"] = "rgb",
    fit: Literal["resize", "crop", "pad", "digit"] = "resize",
    on_bad: Literal["fail", "skip"] = "fail",
) -> Images:
    """Return pictures, each of the class that its folder is named after, in the order of their sorted paths.

    The folders of the classes lie in `path`, or in folders named train, test and validation there.

    Args:
        path: The folder.
        image_size: Height and width in pixels; null: that of the pictures, which then all have the same.
        color: Grey, or red, green and blue.
        fit: How a picture becomes an image of that size, see `pictures.Form`.
        on_bad: What to do about a picture that cannot be used.

    Raises:
        ValueError: There are no pictures, or some cannot be used.
    """
    root = paths.expand(path)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give one with a folder of pictures for each class")
    bad = _Bad(root, is_allowed=on_bad == "skip")
    splits = {name: _list_classes(folder, bad) for name, folder in _find_splits(root).items()}
    form = Form(image_size, color, fit)
    images: dict[str, npt.NDArray[np.uint8]] = {}
    names: dict[str, list[str]] = {}
    places: dict[str, list[str]] = {}
    for split, classes in splits.items():
        files = [file for found in classes.values() for file in found]
        if not files:
            raise ValueError(f"{root} has no pictures of {split}: put a folder of them for each class there")
        images[split], kept = decode(files, form, on_bad=bad.of(files))
        class_of = [name for name, found in classes.items() for _ in found]
        names[split], places[split] = [class_of[number] for number in kept], [files[number] for number in kept]
    copies = _find_copies(images, names, places, bad)
    bad.require_few(sum(map(len, images.values())) - len(copies))
    start = 0
    for split, array in images.items():
        stays = [number for number in range(len(array)) if start + number not in copies]
        start += len(array)
        if len(stays) < len(array):
            images[split], names[split] = array[stays], [names[split][number] for number in stays]
    labels = {split: np.array(found) for split, found in names.items()}
    return Images(images, labels, attempts=[Attempt(str(root), "found")], skipped=bad.skipped)


def _find_copies(
    images: Mapping[str, npt.NDArray[np.uint8]],
    names: Mapping[str, Sequence[str]],
    places: Mapping[str, Sequence[str]],
    bad: "_Bad",
) -> set[int]:
    """Return the numbers, over all splits, of images that an earlier one in another class has the bytes of."""
    all_names, all_places = list(chain(*names.values())), list(chain(*places.values()))
    hashes = np.fromiter((hash(image.tobytes()) for array in images.values() for image in array), np.int64)
    order = np.argsort(hashes, kind="stable")
    owners: dict[int, int] = {}
    copies = set()
    for place in np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]):
        earlier, later = map(int, order[place : place + 2])
        owner = owners.setdefault(int(hashes[earlier]), earlier)
        if all_names[later] != all_names[owner]:
            copies.add(later)
    for number in sorted(copies):
        owner = owners[int(hashes[number])]
        other = f"{all_names[owner]} ({Path(all_places[owner]).name})"
        bad.add(Path(all_places[number]), f"the same picture is in the class {other}")
    return copies


class _Bad:
    """The files that cannot be used."""

    def __init__(self, root: Path, *, is_allowed: bool) -> None:
        self.skipped: list[str] = []
        self._root = root
        self._is_allowed = is_allowed

    def add(self, file: Path, reason: str) -> None:
        """Note a picture that cannot be used, or refuse it."""
        text = f"{file.relative_to(self._root)!s}: {reason}"
        if not self._is_allowed:
            raise ValueError(f"{text}; remove it, or leave such pictures out with data.on_bad=skip")
        self.skipped.append(text)

    def of(self, files: Sequence[str]) -> Callable[[int, str], None]:
        """Return `add`, with the number of a file instead of the file."""
        return lambda number, reason: self.add(Path(files[number]), reason)

    def add_stray(self, file: Path) -> None:
        """Note a file that is not a picture by its name."""
        self.skipped.append(f"{file.relative_to(self._root)!s}: not a picture by its name")

    def require_few(self, num_images: int) -> None:
        """Refuse a folder in which too many files cannot be used."""
        if len(self.skipped) > max(_MIN_STRAY, _MAX_STRAY_SHARE * num_images):
            raise ValueError(
                f"{len(self.skipped):,} files of {self._root} cannot be used, beside {num_images:,} that can, e.g. "
                f"{self.skipped[0]}: is it the right folder?"
            )


def _find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of the splits; a root that has none is that of train."""
    folders = [place for place in sorted(root.iterdir()) if place.is_dir() and not is_ignored(place.name)]
    named = [(_SPLITS.get(folder.name.lower()), folder) for folder in folders]
    if not folders or any(name is None for name, _ in named):
        return {"train": root}
    found: dict[str, Path] = {}
    for name, folder in named:
        assert name is not None
        if name in found:
            raise ValueError(f"{root} has two folders for {name}: {found[name].name} and {folder.name}")
        found[name] = folder
    if "train" not in found:
        raise ValueError(f"{root} has the folders {', '.join(folder.name for folder in folders)}, but none for train")
    return found


def _list_classes(folder: Path, bad: _Bad) -> dict[str, list[str]]:
    """Return the pictures of each class, sorted."""
    classes: dict[str, list[str]] = {}
    for place in sorted(folder.iterdir()):
        if is_ignored(place.name):
            continue
        if not place.is_dir():
            bad.add_stray(place)
            continue
        _require_inside(place, folder, bad)
        pictures = [str(file) for file in _list_pictures(place, bad)]  # 60,000 paths would take 20 MB more
        if pictures:
            classes[place.name] = pictures
    return classes


def _list_pictures(folder: Path, bad: _Bad) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):  # a link to a folder is not followed
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in folders:
            _require_inside(Path(parent) / name, folder, bad)
        for name in sorted(names):
            file = Path(parent) / name
            if is_ignored(name):
                continue
            if file.suffix.lower() not in SUFFIXES:
                bad.add_stray(file)
            elif _require_inside(file, folder, bad) and file.is_file():
                yield file


def _require_inside(place: Path, folder: Path, bad: _Bad) -> bool:
    if place.is_symlink():
        try:
            is_inside = place.resolve(strict=True).is_relative_to(folder.resolve()) and place.is_file()
        except (OSError, RuntimeError):
            is_inside = False
        if not is_inside:
            bad.add(place, "a link that leads out of its folder, or nowhere")
            return False
    return True
