"""Work shared out to processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Raises a ValueError for fewer than one process."""
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")


def map_in_processes(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Calls a function on every job and gives the results in the order of the jobs, each as soon as it is there.

    Args:
        function: importable by name, as are its arguments and results; it has to give the same in every process.
        jobs: what it is called on.
        workers: processes; 1 calls it in this one.

    Raises:
        ValueError: fewer than one worker.
        RuntimeError: a process ended before its work was done.
    """
    check_workers(workers)
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        try:
            yield from pool.map(function, jobs)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process ended before its work was done: it was killed, perhaps for want of memory, or the "
                'script that started it lacks `if __name__ == "__main__":`; with workers=1 there are no processes'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
