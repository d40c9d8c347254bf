"""Batches that are made while the network learns from the ones before."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Prefetched(Generic[Made]):
    """What is made from each of some numbers, in their order, by threads that work ahead.

    Parameters
    ----------
    make : callable
        Of a number alone, so that it doesn't matter which thread makes it, and when. What it raises is raised where the
        result was to be taken, with the thread's own traceback.
    numbers : iterable of int
    workers : int
        Threads, each of which is one result ahead; 0 makes every result when it is taken.

    Attributes
    ----------
    waited_s : float
        Seconds that the taker has waited so far.
    """

    def __init__(self, make: Callable[[int], Made], numbers: Iterable[int], *, workers: int) -> None:
        self.make, self.numbers, self.workers = make, numbers, workers
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[tuple[int, Made]]:
        if self.workers == 0:
            for number in self.numbers:
                yield number, self._timed(lambda number=number: self.make(number))  # type: ignore[misc]
            return
        waiting = iter(self.numbers)
        ahead: deque[tuple[int, Future[Made]]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="loader") as pool:
            for number in itertools.islice(waiting, self.workers + 1):
                ahead.append((number, pool.submit(self.make, number)))
            try:
                while ahead:
                    number, future = ahead.popleft()
                    made = self._timed(future.result)
                    for following in itertools.islice(waiting, 1):
                        ahead.append((following, pool.submit(self.make, following)))
                    yield number, made
            finally:
                for _, future in ahead:
                    future.cancel()

    def _timed(self, take: Callable[[], Made]) -> Made:
        begin = time.monotonic()
        made = take()
        self.waited_s += time.monotonic() - begin
        return made
