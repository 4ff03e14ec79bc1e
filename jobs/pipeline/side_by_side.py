"""Tasks that depend on one another, several at a time: each begins once those that it needs are done."""

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def side_by_side(
    names: Sequence[str], needs: Mapping[str, set[str]], task: Callable[[str], Callable[[], T]], at_once: int
) -> Iterator[T]:
    """Do a task for each name and yield what it gives as it is done; of those that may begin, the first ones do.

    names: each after those that it needs. task: called in the caller's thread; what it returns is called in another.
    at_once: how many at a time; one at a time stays in the caller's thread. An error is raised once the tasks that run
    beside it are done; no other is begun. Where the caller is interrupted, they go on in threads that do not keep the
    process alive.
    """
    if at_once <= 1:
        yield from (task(name)() for name in names)
        return
    done: queue.SimpleQueue[tuple[str, list[T], BaseException | None]] = queue.SimpleQueue()

    def do(name: str, work: Callable[[], T]) -> None:
        try:
            done.put((name, [work()], None))
        except BaseException as e:
            done.put((name, [], e))

    waiting, running, finished = list(names), set[str](), set[str]()
    error: BaseException | None = None
    while True:
        while error is None and len(running) < at_once:
            name = next((n for n in waiting if needs[n] <= finished), "")
            if not name:
                break
            try:
                work = task(name)
            except Exception as e:
                error = e
                break
            waiting.remove(name)
            running.add(name)
            thread(do, name, work)
        if not running:
            break
        name, results, failure = done.get()
        running.remove(name)
        finished.add(name)
        error = error or failure
        yield from results
    if error is not None:
        raise error


def default_at_once() -> int:
    """Return how many tables to build at a time: one for every two cores, four at most."""
    return min(4, max(1, len(os.sched_getaffinity(0)) // 2)) if hasattr(os, "sched_getaffinity") else 1


def thread(do: Callable[..., None], name: str, work: Callable[[], object]) -> None:
    """Begin a thread; once Spark has started, one to which a thread of Spark's own belongs, with its own properties."""
    spark = sys.modules.get("pyspark")
    kind: type[threading.Thread] = threading.Thread if spark is None else spark.InheritableThread
    kind(target=do, args=(name, work), name=f"headgate: {name}", daemon=True).start()
