"""Numbers over seeds: their mean and deviation."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Values of one quantity, one per seed, in the seeds' order."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean; NaN of none."""
        return statistics.fmean(self.values) if self.values else float("nan")

    @property
    def deviation(self) -> float:
        """Their standard deviation (n - 1); NaN of fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else float("nan")

    @property
    def agree(self) -> bool:
        """Whether all seeds, at least two, have the same sign."""
        return len(self.values) > 1 and (all(v > 0 for v in self.values) or all(v < 0 for v in self.values))

    def text(self, digits: int = 3, factor: float = 1.0, sign: bool = False) -> str:
        """The mean as text."""
        return f"{factor * self.mean:{'+' if sign else ''}z.{digits}f}"

    def detail(self, digits: int = 3, factor: float = 1.0) -> str:
        """The deviation as text, empty without one."""
        return "" if self.deviation != self.deviation else f"± {factor * self.deviation:.{digits}f}"

    def percent(self) -> str:
        """Mean and deviation in percent, with a sign."""
        return f"{self.text(1, 100, sign=True)}% {self.detail(1, 100)}".strip()


def spread(values: Sequence[float]) -> Spread:
    """The values of the seeds."""
    return Spread(tuple(values))
