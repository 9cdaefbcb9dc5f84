"""What the runs of the robust study gave, by variant and seed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mtl_ext.metrics import final_value, ranking_similarity
from mtl_ext.studies.changes import Column, relative_change
from mtl_ext.studies.claims import NotTestableError
from mtl_ext.studies.robust.protocol import BASELINE, Variant
from mtl_ext.studies.runs import RunRecord
from mtl_ext.studies.spread import Spread, spread

INDICATORS = ("gds", "gms", "fd")
# From this relative change on, the paper's arrows go up or down: see `paper.py`.
THRESHOLD = 0.01


class Outcomes:
    """Measures, changes and indicators. Values over seeds are in the order of the seeds that all runs here have.

    Args:
        variants: the baseline and the variants of the study.
        columns: the metrics.
        records: the runs that have been carried out.
        segmentation: the tasks that the paper's claims on segmentation are tested on.

    Attributes:
        present: the variants, without the baseline, of which at least one seed ran to the end, as the baseline did.
        failures: why runs ended early, by variant and seed.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        columns: Sequence[Column],
        records: Sequence[RunRecord],
        segmentation: Sequence[str],
    ) -> None:
        self.variants = {variant.name: variant for variant in variants}
        self.columns = list(columns)
        self.segmentation = [column for column in columns if column.task in segmentation]
        self._segmentation_tasks = list(segmentation)
        self.runs: dict[str, dict[int, RunRecord]] = {}
        for record in records:
            if record.failure is None:
                self.runs.setdefault(record.row, {})[record.seed] = record
        self.records = list(records)
        self.failures = {(record.row, record.seed): record.failure for record in records if record.failure}
        baseline = set(self.runs.get(BASELINE, {}))
        self.present = [name for name in self.variants if name != BASELINE and baseline & set(self.runs.get(name, {}))]

    def seeds(self, *names: str) -> list[int]:
        """The seeds that all of some variants, and the baseline, have.

        Raises:
            NotTestableError: there is none.
        """
        common = set(self.runs.get(BASELINE, {}))
        for name in names:
            common &= set(self.runs.get(name, {}))
        if not common:
            raise NotTestableError(
                f"no finished run of {', '.join(name for name in names if name not in self.present)}"
            )
        return sorted(common)

    def single_seeds(self) -> list["Outcomes"]:
        """The same for each seed alone."""
        variants = list(self.variants.values())
        return [
            Outcomes(variants, self.columns, [r for r in self.records if r.seed == seed], self._segmentation_tasks)
            for seed in sorted({record.seed for record in self.records})
        ]

    def value(self, name: str, column: Column) -> Spread:
        """A metric."""
        return spread([self.runs[name][seed].measures[column.task][column.metric] for seed in self.seeds(name)])

    def change(self, name: str, column: Column, reference: str = BASELINE) -> Spread:
        """Relative change of a metric against a reference with the same seed, positive where better."""
        return spread(
            [
                relative_change(self.runs[name][seed].measures, self.runs[reference][seed].measures, column)
                for seed in self.seeds(name, reference)
            ]
        )

    def mean_change(self, name: str, reference: str = BASELINE) -> Spread:
        """Delta_MTL against a reference row: the mean over tasks of the mean change of their metrics."""
        tasks = dict.fromkeys(column.task for column in self.columns)
        changes = {column: self.change(name, column, reference).values for column in self.columns}
        per_task = [np.mean([changes[c] for c in self.columns if c.task == task], axis=0) for task in tasks]
        return spread(np.mean(per_task, axis=0).tolist())

    def indicator(self, name: str, level: str, measure: str) -> Spread:
        """An indicator's value at the end of training: the mean of its last 50 samples.

        Args:
            name: the variant.
            level: ``"parameter"``, ``"feature"`` or ``"own"``: the variant's; FD is defined on features (Eq. 8), so
                its own level is always that.
            measure: one of INDICATORS.
        """
        if level == "own":
            level = "feature" if measure == "fd" else self.variants[name].level
        key = f"{level}_{measure}"
        return spread([final_value([s[key] for s in self.runs[name][seed].similarity]) for seed in self.seeds(name)])

    def relative_length(self, name: str) -> Spread:
        """How long the combined gradient is against the tasks' summed gradients at the same place: a run's median."""
        runs = [self.runs[name][seed].similarity for seed in self.seeds(name)]
        pairs = [[(sample["combined_norm"], sample["parameter_norm_sum"]) for sample in run] for run in runs]
        ratios = [[norm / total for norm, total in run if total > 0] for run in pairs]
        return spread([float(np.median(values)) if values else math.nan for values in ratios])

    def similarity(self, column: Column, level: str, measure: str) -> float:
        """How alike the variants' rankings by an indicator and by a metric are (0.5 .. 1), the baseline left out.

        Raises:
            NotTestableError: fewer than three variants.
        """
        final = {name: self.indicator(name, level, measure).mean for name in self.present}
        scores = {name: self.value(name, column).mean for name in self.present}
        kept = [name for name in final if math.isfinite(final[name]) and math.isfinite(scores[name])]
        if len(kept) < 3:
            raise NotTestableError(f"{len(kept)} variants finished, a ranking needs three")
        return ranking_similarity({n: final[n] for n in kept}, {n: scores[n] for n in kept})

    def winners(self) -> list[str]:
        """The variants that are better than the baseline in every metric."""
        return [name for name in self.present if all(self.change(name, column).mean > 0 for column in self.columns)]

    def three_best(self, column: Column) -> list[str]:
        """The three best variants in a metric, more where values are equal."""
        sign = 1 if column.higher_is_better else -1
        scores = {name: sign * self.value(name, column).mean for name in self.present}
        third = min(sorted(scores.values(), reverse=True)[:3])
        return [name for name, score in scores.items() if score >= third]

    def top_three(self) -> dict[str, int]:
        """Variant -> in how many metrics it is among the three best."""
        best = [self.three_best(column) for column in self.columns]
        return {name: sum(name in names for names in best) for name in self.present}


def chance_level(count: int) -> float:
    """What 95% of pairs of unrelated rankings of `count` items stay below.

    Ranking similarity is (1 + |tau|) / 2 of Kendall's tau, which for unrelated rankings is close to normal with
    variance 2 (2n + 5) / (9 n (n - 1)).
    """
    return 0.5 + 0.5 * 1.96 * math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))


def level_correlations(records: Mapping[int, RunRecord]) -> dict[str, list[float]]:
    """Correlation over training of what parameter- and feature-level gradients say, one value per pair or task and run.

    Returns:
        ``cosine``: of the two levels' cosines of each pair of tasks; ``norm``: of the logarithms of the norms of each
        task's gradient.
    """
    found: dict[str, list[float]] = {"cosine": [], "norm": []}
    for record in records.values():
        for key in record.similarity[0]:
            level, _, rest = key.partition("_")
            kind = rest.partition("/")[0]
            if level != "parameter" or kind not in found:
                continue
            pair = np.array([[sample[key], sample[f"feature_{rest}"]] for sample in record.similarity])
            if kind == "norm":
                pair = np.log(np.maximum(pair, np.finfo(float).tiny))
            if len(pair) > 2 and np.isfinite(pair).all() and (pair.std(0) > 0).all():
                found[kind].append(float(np.corrcoef(pair.T)[0, 1]))
    return found
