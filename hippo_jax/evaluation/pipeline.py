"""Decoding ahead of the running batch, and rows of one size gathered into batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ahead(
    items: Iterable[T], work: Callable[[T], U], *, depth: int, workers: int = 2
) -> Iterator[tuple[T, U | Exception]]:
    """``work(item)`` of each item, in order, or the exception that it raised.

    Up to ``depth`` items are worked on, by ``workers`` threads, while the caller is busy with what
    it got before.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="hippo eval")
    waiting: deque[tuple[T, Future[U]]] = deque()
    try:
        for item in islice(rest, depth):
            waiting.append((item, pool.submit(work, item)))
        while waiting:
            item, future = waiting.popleft()
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            for following in islice(rest, 1):
                waiting.append((following, pool.submit(work, following)))
            yield item, future.result() if error is None else error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def gather(
    items: Iterable[T], size_of: Callable[[T], Hashable], count: int, patience: int
) -> Iterator[list[T]]:
    """Groups of up to ``count`` items of one size.

    A group is given as soon as it is full. When more than ``patience`` items wait, the largest
    group goes as it is, so that what waits fits into memory; at the end all go.
    """
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        size = size_of(item)
        group = groups.setdefault(size, [])
        group.append(item)
        if len(group) == count:
            yield groups.pop(size)
        elif sum(map(len, groups.values())) > patience:
            yield groups.pop(max(groups, key=lambda key: len(groups[key])))
    yield from groups.values()
