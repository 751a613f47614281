import threading
import time
from collections.abc import Callable

import pytest

from mnist_pipeline.system.aside import aside


def test_the_block_ends_when_both_are_done() -> None:
    begun, done = threading.Event(), []

    def work() -> None:
        assert begun.wait(10)
        done.append(threading.current_thread())

    with aside(work) as check:
        check()
        begun.set()
    assert done
    assert done[0] is not threading.current_thread()


def test_its_error_is_raised_where_it_is_looked_for_and_at_the_end() -> None:
    def work() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), aside(work):
        pass
    seen = []

    def look(check: Callable[[], None]) -> None:
        for _ in range(1000):
            check()
            time.sleep(0.01)
        seen.append("no error")

    with pytest.raises(OSError, match="no space"), aside(work) as check:
        look(check)
    assert not seen


def test_the_error_of_the_block_comes_first_and_waits_for_the_work() -> None:
    done = threading.Event()
    with pytest.raises(KeyboardInterrupt), aside(done.set):
        raise KeyboardInterrupt
    assert done.is_set()
