"""Whether an indicator that was watched in training ranks methods as their test measures do."""

from collections.abc import Mapping, Sequence

import numpy as np

# How many samples at the end of a training curve stand for it.
LAST = 50


def ranking_similarity(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """How alike two rankings of the same methods are (Mao et al., Robust Analysis of MTL, section 6.3).

    The share s of ordered pairs of different methods of which "the first is greater" is true in both rankings or false
    in both, folded to ``max(s, 1 - s)``: an indicator that ranks the other way round is as good. Without ties s is
    (tau + 1) / 2 of Kendall's tau; a tie in one ranking alone agrees for one of the pair's two orders.

    Args:
        first: method -> value, at least two.
        second: the same methods -> value.

    Returns:
        From 0.5, nothing in common, to 1.

    Raises:
        ValueError: methods that differ, fewer than two, or a value that is NaN.
    """
    if set(first) != set(second) or len(first) < 2:
        raise ValueError(f"first ranks {sorted(first)}, second {sorted(second)}: expected the same, at least two")
    for name, ranking in (("first", first), ("second", second)):
        for method, value in ranking.items():
            if np.isnan(value):
                raise ValueError(f"{name}[{method!r}] is NaN and has no rank: leave the method out of both")
    a, b = np.array([[first[method], second[method]] for method in first], dtype=np.float64).T
    agree = (a[:, None] > a) == (b[:, None] > b)
    np.fill_diagonal(agree, False)
    share = float(agree.sum()) / (len(a) * (len(a) - 1))
    return max(share, 1 - share)


def final_value(curve: Sequence[float], last: int = LAST) -> float:
    """What a training curve is ranked by: the mean of its last samples, not smoothed; of all where there are fewer.

    Args:
        curve: samples in order, at least one.
        last: how many count.

    Raises:
        ValueError: an empty curve, or ``last`` below 1.
    """
    if not curve or last < 1:
        raise ValueError(f"curve has {len(curve)} samples, last is {last}: expected at least 1 of each")
    return float(np.mean(curve[-last:]))


def moving_average(curve: Sequence[float], share: float = 0.1) -> list[float]:
    """A curve smoothed for a figure: the mean over a centred window of a tenth of the run.

    Towards both ends the window shrinks to what there is on either side, so that the curve keeps its length and its
    first and last samples.

    Args:
        curve: samples in order.
        share: the window's length relative to the curve's, from 0 to 1.

    Raises:
        ValueError: ``share`` is outside 0 .. 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}, expected a number from 0 to 1")
    values = np.asarray(curve, dtype=np.float64)
    half, end = int(share * len(values)) // 2, len(values) - 1
    reach = [min(half, i, end - i) for i in range(len(values))]
    return [float(values[i - r : i + r + 1].mean()) for i, r in enumerate(reach)]
