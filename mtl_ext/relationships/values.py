"""What a measure of task relationships gives: a number for every ordered pair of tasks."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_ext.task_names import split_name

Relationships = Mapping[str, float]
"""``SOURCE->TARGET`` -> value, for every ordered pair of different tasks."""


@dataclass(frozen=True)
class Measure:
    """A measure's values, and how they are to be read.

    Attributes:
        name: what tables and figures call it.
        values: source and target -> value.
        smaller_is_closer: whether a smaller value says that the source does more for the target.
        neutral: the value between helping and harming.
        style: format of a value, for people.
    """

    name: str
    values: Relationships
    smaller_is_closer: bool = False
    neutral: float = 0.0
    style: str = "{:+.1%}"

    @property
    def help(self) -> dict[str, float]:
        """How far each value is on the helping side of the neutral one."""
        sign = -1.0 if self.smaller_is_closer else 1.0
        return {pair: sign * (value - self.neutral) for pair, value in self.values.items()}


def tasks_of(values: Relationships) -> list[str]:
    """The tasks of all pairs, in the order of their first appearance as a target."""
    return list(dict.fromkeys([split_name(pair)[1] for pair in values] + [split_name(pair)[0] for pair in values]))


def by_target(values: Relationships) -> dict[str, dict[str, float]]:
    """Target -> source -> value."""
    found: dict[str, dict[str, float]] = {}
    for pair, value in values.items():
        source, target = split_name(pair)
        found.setdefault(target, {})[source] = value
    return found


def mean_relationships(each: Sequence[Relationships]) -> dict[str, float]:
    """The mean over runs of one kind, for example over seeds.

    Raises:
        ValueError: there are none, or they are of different pairs.
    """
    if not each or any(set(values) != set(each[0]) for values in each):
        raise ValueError(f"expected relationships of the same pairs, at least once, found {[sorted(v) for v in each]}")
    return {pair: statistics.fmean(values[pair] for values in each) for pair in each[0]}
