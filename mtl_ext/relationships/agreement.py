"""Whether a measure orders the sources of each target as another does."""

from dataclasses import dataclass

import numpy as np

from mtl_ext.relationships.values import Measure, by_target


@dataclass(frozen=True)
class Agreement:
    """How well two measures agree.

    Attributes:
        mean: Spearman's rank correlation, the mean over the targets; NaN where there is none.
        targets: target -> its correlation.
        left_out: targets for which one of the two does not tell its sources apart.
    """

    mean: float
    targets: dict[str, float]
    left_out: tuple[str, ...]


def agreement(measure: Measure, actual: Measure) -> Agreement:
    """Spearman's correlation over the sources of each target, and its mean over targets (SAAL, Table 5).

    Args:
        measure: the one in question.
        actual: what it should tell, the enumeration.

    Raises:
        ValueError: the two are of different pairs, or a value is NaN.
    """
    ours, theirs = by_target(measure.help), by_target(actual.help)
    if set(measure.values) != set(actual.values):
        pairs = ", ".join(sorted(set(measure.values) ^ set(actual.values)))
        raise ValueError(f"{measure.name} and {actual.name} are of different pairs: only one of them has {pairs}")
    for which in (measure, actual):
        for pair, value in which.values.items():
            if np.isnan(value):
                raise ValueError(f"{which.name} has NaN for {pair}, which has no rank: leave the pair out of both")
    targets, left_out = {}, []
    for target, sources in ours.items():
        first = np.array(list(sources.values()))
        second = np.array([theirs[target][source] for source in sources])
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            left_out.append(target)
        else:
            targets[target] = float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])
    mean = float(np.mean(list(targets.values()))) if targets else float("nan")
    return Agreement(mean, targets, tuple(left_out))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing the mean of theirs."""
    smaller, equal = values[:, None] > values, values[:, None] == values
    ranks: np.ndarray = smaller.sum(1) + (equal.sum(1) + 1) / 2
    return ranks
