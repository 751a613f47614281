import threading
import time

import pytest

from mnist_pipeline.system.aside import Aside, aside


def test_the_block_ends_when_both_are_done() -> None:
    begun, done = threading.Event(), []

    def work() -> None:
        assert begun.wait(10)
        done.append(threading.current_thread())

    with aside(work) as doing:
        doing.start()
        doing.start()
        doing.check()
        begun.set()
    assert done
    assert done[0] is not threading.current_thread()


def test_its_error_is_raised_where_it_is_looked_for_and_at_the_end() -> None:
    def work() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), aside(work):
        pass
    seen = []

    def look(doing: Aside) -> None:
        doing.start()
        for _ in range(1000):
            doing.check()
            time.sleep(0.01)
        seen.append("no error")

    with pytest.raises(OSError, match="no space"), aside(work) as doing:
        look(doing)
    assert not seen


def test_the_error_of_the_block_comes_first_and_waits_for_the_work() -> None:
    done = threading.Event()

    def stop(doing: Aside) -> None:
        doing.start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), aside(done.set) as doing:
        stop(doing)
    assert done.is_set()


def test_work_that_has_not_started_is_left_if_the_block_fails() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), aside(lambda: done.append("done")):
        raise KeyboardInterrupt
    assert not done
