"""Many pictures decoded on all cores, with a progress bar, into one array."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mnist_pipeline.data.pictures import BadImageError, Form, make_image
from mnist_pipeline.system import memory

_BATCH = 64
_FEW = 512
"""Pictures that one process decodes before others have started."""

Pixels = npt.NDArray[np.uint8]
OnBad = Callable[[int, str], None]


def decode(pictures: Sequence[str] | Sequence[bytes], form: Form, *, on_bad: OnBad) -> tuple[Pixels, list[int]]:
    """Return the images of many pictures, and the numbers of the pictures that they are of.

    Args:
        pictures: Files, or their bytes.
        form: How they become images.
        on_bad: Called with the number of each picture that cannot be used, and the reason; it may raise.

    Raises:
        ValueError: They have several sizes and `form` names none, or they do not fit into memory.
    """
    array: Pixels | None = None
    kept: list[int] = []
    first = 0
    with tqdm(total=len(pictures), desc="decoding", unit=" pictures", disable=None, leave=False) as bar:
        for batch in _decode_all(pictures, form):
            for number, reason in batch.bad:
                on_bad(first + number, reason)
            if batch.numbers:
                shape = batch.images.shape[1:]
                if array is None:
                    whole = (len(pictures), *shape)
                    memory.require(whole, np.uint8, instead="a smaller data.image_size, or data.color=grey, is less")
                    array = np.empty(whole, np.uint8)
                _require_same_size(array.shape[1:], shape, pictures[first + batch.numbers[0]])
                array[len(kept) : len(kept) + len(batch.numbers)] = batch.images
                kept += [first + number for number in batch.numbers]
            first += batch.num_pictures
            bar.update(batch.num_pictures)
    if array is None:
        raise ValueError("none of the pictures can be used")
    return array[: len(kept)], kept


@dataclass(frozen=True)
class _Batch:
    """What became of a few pictures: the images, the numbers of the pictures that they are of, and the bad ones."""

    num_pictures: int
    numbers: list[int]
    images: Pixels
    bad: list[tuple[int, str]]


def _decode_all(pictures: Sequence[str] | Sequence[bytes], form: Form) -> Iterator[_Batch]:
    work = partial(_decode_batch, form=form)
    batches = (pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH))
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(pictures) <= _FEW or num_cores == 1:
        yield from map(work, batches)
        return
    # Not forked: this process may have threads of TensorFlow.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_cores, mp_context=spawning, initializer=_begin_worker) as pool:
        pending: deque[Future[_Batch]] = deque()
        for batch in batches:
            pending.append(pool.submit(work, batch))
            if len(pending) > 4 * num_cores:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends: the pool's own workers would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_batch(pictures: Sequence[str | bytes], *, form: Form) -> _Batch:
    numbers: list[int] = []
    images: list[Pixels] = []
    bad: list[tuple[int, str]] = []
    for number, picture in enumerate(pictures):
        try:
            image = make_image(picture, form)
        except BadImageError as error:
            bad.append((number, str(error)))
            continue
        if images:
            _require_same_size(images[0].shape, image.shape, picture)
        numbers.append(number)
        images.append(image)
    return _Batch(len(pictures), numbers, np.stack(images) if images else np.empty(0, np.uint8), bad)


def _require_same_size(one: tuple[int, ...], other: tuple[int, ...], picture: str | bytes) -> None:
    if one != other:
        where = "" if isinstance(picture, bytes) else f" ({picture})"
        raise ValueError(
            f"the pictures have several sizes, {one[1]}x{one[0]} and {other[1]}x{other[0]}{where}: give one size for "
            "all, e.g. data.image_size=[32,32]"
        )
