"""Step times that can be compared."""

import statistics
import time
from collections.abc import Callable, Mapping


def relative_step_times(
    steps: Mapping[str, Callable[[], object]], reference: str, rounds: int = 15, repeats: int = 2
) -> dict[str, float]:
    """Times callables in turns, so that a change in the machine's speed meets all of them.

    After one run to warm up, in each round every callable runs ``repeats`` times and its fastest time
    counts; it is divided by the reference's time of the same round, and the median over rounds is the answer. Rounds
    start at a different callable each time.

    Args:
        steps: name -> one step.
        reference: the name whose time is the unit.
        rounds: number of rounds.
        repeats: runs per round.

    Returns:
        name -> time relative to the reference; exactly 1 for the reference.

    Raises:
        ValueError: the reference is not among the steps, or a count is below 1.
    """
    if reference not in steps or rounds < 1 or repeats < 1:
        found = f"reference {reference!r}, rounds {rounds}, repeats {repeats}"
        raise ValueError(f"{found}: expected a reference out of {', '.join(steps)} and positive counts")
    names = list(steps)
    for step in steps.values():
        step()
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        seconds = {name: _fastest(steps[name], repeats) for name in names[start:] + names[:start]}
        for name in names:
            ratios[name].append(seconds[name] / seconds[reference])
    return {name: statistics.median(values) for name, values in ratios.items()}


def _fastest(step: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best
