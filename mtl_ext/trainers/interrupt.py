"""Ctrl-C that lets a step finish."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class RunInterrupted(KeyboardInterrupt):
    """A run was ended by Ctrl-C after its checkpoint was saved; the message says how to go on."""


class InterruptFlag:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.is_set = False


@contextmanager
def deferred_interrupt(active: bool) -> Iterator[InterruptFlag]:
    """Inside the block the first Ctrl-C only sets the flag; a second one interrupts as usual.

    Args:
        active: False leaves Ctrl-C alone. Outside the main thread, where signals cannot be caught, it is left alone
            too.
    """
    flag = InterruptFlag()
    if not active or threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.getsignal(signal.SIGINT)
    before = signal.default_int_handler if before is None else before  # not set from Python

    def remember(number: int, frame: FrameType | None) -> None:
        flag.is_set = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, remember)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
