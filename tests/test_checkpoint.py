import logging
import os
from pathlib import Path

import numpy as np
import pytest

from mnist_pipeline.model.score import Score
from mnist_pipeline.pipeline.checkpoints import Checkpoints, DamagedError, claim, decode, encode
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.train.epochs import Epoch, TrainState

DIGEST_AT = len(b"mnist-pipeline checkpoint 1\n")


def make_state(num_epochs: int, *, is_validated: bool = True) -> TrainState:
    history = tuple(
        Epoch(
            number=number,
            train=Score(loss=1 / (3 * number), accuracy=0.1),
            validation=Score(loss=2 / 7, accuracy=0.7) if is_validated else None,
            train_sec=0.123,
            images_per_sec=1e5 / 3,
            ended_ms=1_700_000_000_000 + number,
        )
        for number in range(1, num_epochs + 1)
    )
    weights = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    return TrainState(
        history=history, arrays=(weights * num_epochs, np.array([1, -2], np.int64), np.array(7, np.int64))
    )


def assert_equal(one: TrainState | None, other: TrainState) -> None:
    assert one is not None
    assert one.history == other.history
    assert [(array.dtype, array.shape) for array in one.arrays] == [(a.dtype, a.shape) for a in other.arrays]
    for mine, yours in zip(one.arrays, other.arrays, strict=True):
        np.testing.assert_array_equal(mine, yours)


@pytest.mark.parametrize("is_validated", [True, False])
def test_a_checkpoint_is_read_as_it_was_written(is_validated: bool) -> None:
    state = make_state(3, is_validated=is_validated)
    assert_equal(decode(encode(state)), state)


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


WHOLE = encode(make_state(2))


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:DIGEST_AT],
        WHOLE + b"\0",
        flip(WHOLE, 3),
        flip(WHOLE, DIGEST_AT + 5),
        flip(WHOLE, DIGEST_AT + 64),
        flip(WHOLE, len(WHOLE) // 2),
        flip(WHOLE, len(WHOLE) - 1),
        bytes(len(WHOLE)),
    ],
    ids=["empty", "a byte short", "half", "header only", "a byte more", "bit in header", "bit in digest",
         "bit after digest", "bit in payload", "last bit", "zeros"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(
    damaged: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DamagedError):
        decode(damaged)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(make_state(1))
    (tmp_path / "c" / "epoch-2.checkpoint").write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert_equal(checkpoints.load(), make_state(1))
    assert f"epoch-2.checkpoint is skipped: its {len(damaged):,} bytes" in caplog.text


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.load() is None
    for number in range(8, 12):  # beyond nine, where names no longer sort as numbers do
        checkpoints.save(make_state(number))
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"epoch-10.checkpoint", "epoch-11.checkpoint"}
    assert_equal(checkpoints.load(), make_state(11))


def test_the_id_stays_until_the_run_is_finished(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    first = checkpoints.id
    checkpoints.save(make_state(1))
    assert Checkpoints(tmp_path / "c").id == first
    checkpoints.clear()
    assert checkpoints.load() is None
    second = checkpoints.id
    assert second != first
    (tmp_path / "c" / "id").write_text("damaged")
    assert checkpoints.id not in (first, second)


def test_a_claim_is_exclusive_and_leaves_nothing(home: Path) -> None:
    with claim("f" * 64, wait=False):
        with (
            pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .* since .*wait=true"),
            claim("f" * 64, wait=False),
        ):
            pass
        with claim("e" * 64, wait=False):
            pass
    assert list((home / "mlruns" / "checkpoints").iterdir()) == []


def test_a_claim_keeps_checkpoints(home: Path) -> None:
    with claim("f" * 64, wait=False) as checkpoints:
        checkpoints.save(make_state(1))
    with claim("f" * 64, wait=False) as checkpoints:
        assert_equal(checkpoints.load(), make_state(1))
