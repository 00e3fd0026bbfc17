"""The next videos are read while a batch runs; rows of one size go together."""

import threading
import time

import pytest

from hippo_jax.evaluation.pipeline import ahead, gather


def test_work_goes_on_while_the_caller_is_busy_but_not_further_than_asked() -> None:
    begun: list[int] = []
    free = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item > 0:
            assert free.wait(10)
        return 10 * item

    found = ahead(range(8), work, depth=3)
    assert next(found) == (0, 0)
    deadline = time.monotonic() + 10
    while len(begun) < 3 and time.monotonic() < deadline:  # the caller does not ask for more
        time.sleep(0.01)
    assert begun == [0, 1, 2]
    free.set()
    assert list(found) == [(item, 10 * item) for item in range(1, 8)]
    assert begun == list(range(8))


def test_an_error_is_given_in_its_place_and_the_rest_follows() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise ValueError("no video")
        return item

    first, second, third = ahead(range(3), work, depth=2)
    assert (first, third) == ((0, 0), (2, 2))
    assert isinstance(second[1], ValueError)


def test_an_interrupt_is_no_result() -> None:
    def work(item: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ahead(range(3), work, depth=2))


def test_groups_are_of_one_size_and_none_is_lost() -> None:
    items = ["a1", "b1", "a2", "a3", "b2", "c1"]
    assert list(gather(items, lambda item: item[0], 2, patience=10)) == [
        ["a1", "a2"],
        ["b1", "b2"],
        ["a3"],
        ["c1"],
    ]


def test_no_more_than_asked_wait() -> None:
    items = ["a1", "a2", "b1", "c1", "d1"]
    groups = list(gather(items, lambda item: item[0], 8, patience=2))
    assert groups[0] == ["a1", "a2"]  # the largest, as soon as a third one waits
    assert sorted(item for group in groups for item in group) == items
