"""What the paper runs: its methods with and without DGR, what it compares with, how it varies dummies and tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any

from mtl_ext.studies.choice import Choice
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.study import Experiment
from mtl_ext.trainers import TrainConfig

VANILLA = "Vanilla"
# The paper's names -> ours, in the order of its tables.
METHODS = {
    VANILLA: "EW",
    "DWA": "DWA",
    "Uncertainty": "UW",
    "Auto-λ": "AutoLambda",
    "PCGrad": "PCGrad",
    "CAGrad": "CAGrad",
    "IMTL": "IMTL",
    "Nash-MTL": "NashMTL",
}
# Figure 2: what is added to which methods.
COMPARED = (VANILLA, "Auto-λ", "CAGrad", "Nash-MTL")
ADDED = ("SAM", "PTA", "DGR")
# Dummies per task in all tables but 4(a).
DUMMIES = 3


def added(method: str, what: str = "DGR") -> str:
    """The row of a method with DGR, SAM or PTA."""
    return f"{method} + {what}"


def single(task: str) -> str:
    """The row of a task trained alone."""
    return f"Single {task}"


def subset_row(tasks: Sequence[str], dummies: int, every: Sequence[str]) -> str:
    """Table 4(a): the row of some tasks, trained together with so many dummies each; 0: without DGR.

    Rows that the tables of methods have already keep their names.
    """
    if dummies == 0 and len(tasks) == 1:
        return single(tasks[0])
    if len(tasks) == len(every) > 1 and dummies in (0, DUMMIES):
        return added(VANILLA) if dummies else VANILLA
    name = f"d = {dummies}" if dummies else VANILLA
    return f"{name} ({', '.join(tasks)})"


def subsets(tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """All choices of at least one task, the smallest first."""
    return [chosen for size in range(1, len(tasks) + 1) for chosen in combinations(tasks, size)]


@dataclass(frozen=True)
class Part:
    """One experiment: a data set and an architecture. Its fields, but for the first two, are the recipe's `options`.

    Attributes:
        name: the experiment's.
        recipe: the experiment's.
        title: what the report calls it.
        tasks: that are trained, in order.
        published: the paper's table of methods, as its data file calls it.
        dummies_row: the row of the paper's Table 4(a) without the number of tasks, such as NYUv2.
        same_data: whether the data are the paper's.
        metrics: TASK/METRIC that count, in the order of the paper's columns; empty: all.
        methods: the paper's names of those that run, with and without DGR.
        added: what else is added to the methods of Figure 2, out of SAM and PTA.
        dummies: numbers of dummies per task for every choice of tasks (Table 4a); none for no such rows.
        representation: whether representations are measured (Figure 3).
        grid: strengths of DGR (the paper's lambda) that held-out data choose from, with Vanilla.
        tried: seeds of that choice.
        holdout: share of the training split that it holds out; 0: the data have a validation split.
        chosen_in: the experiment whose chosen strength is taken; None: this one's.
        single_in: the experiment whose single-task rows Delta_MTL refers to; None: this one's.
        sam_rho: length of SAM's ascent.
        decoders: of PTA, per task.
        train_of: the paper's name of a method, or a single-task row -> fields of the configuration that differ.
    """

    name: str
    recipe: Recipe
    title: str
    tasks: tuple[str, ...]
    published: str | None = None
    dummies_row: str | None = None
    same_data: bool = False
    metrics: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)
    added: tuple[str, ...] = ()
    dummies: tuple[int, ...] = ()
    representation: bool = False
    grid: tuple[float, ...] = ()
    tried: int = 2
    holdout: float = 0.2
    chosen_in: str | None = None
    single_in: str | None = None
    sam_rho: float = 0.05
    decoders: int = DUMMIES
    train_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def choice_name(self) -> str:
        """The choice that gives the strength of DGR."""
        return f"strength in {self.chosen_in or self.name}"

    @property
    def choice(self) -> Choice | None:
        """The strength of DGR by held-out data; None where another experiment chooses it."""
        if self.chosen_in is not None:
            return None
        rows = {VANILLA: self._config(VANILLA, holdout=self.holdout)}
        rows |= {f"λ = {value:g}": self._with_dgr(VANILLA, value, holdout=self.holdout) for value in self.grid}
        return Choice(rows, {f"λ = {value:g}": value for value in self.grid}, self.tried, self.metrics)

    def experiment(self, strength: float) -> Experiment:
        """Its rows, with DGR of some strength."""
        rows: dict[str, TrainConfig] = {}
        if self.single_in is None:
            rows |= {single(task): self._config(single(task), tasks=(task,)) for task in self.tasks}
        if len(self.tasks) > 1:
            for method in self.methods:
                rows[method] = self._config(method)
                rows[added(method)] = self._with_dgr(method, strength)
        for method in [method for method in COMPARED if method in self.methods and self.added]:
            changes: dict[str, dict[str, Any]] = {"SAM": {"sam_rho": self.sam_rho}, "PTA": {"decoders": self.decoders}}
            rows |= {added(method, what): self._config(method, **changes[what]) for what in self.added}
        if self.dummies:
            for tasks in subsets(self.tasks):
                rows.setdefault(subset_row(tasks, 0, self.tasks), self._config(VANILLA, tasks=tasks))
                for count in self.dummies:
                    config = self._with_dgr(VANILLA, strength, count, tasks=tasks)
                    rows.setdefault(subset_row(tasks, count, self.tasks), config)
        reference = VANILLA if VANILLA in rows else single(self.tasks[0])
        return Experiment(rows, self.recipe.seeds, reference, self.recipe.timing_rounds, self.metrics)

    def _config(self, method: str, **changes: Any) -> TrainConfig:
        settings = {
            "method": METHODS.get(method, "EW"),
            "tasks": self.tasks,
            **self.train_of.get(method, {}),
            **changes,
        }
        return self.recipe.config(**settings)

    def _with_dgr(self, method: str, strength: float, dummies: int = DUMMIES, **changes: Any) -> TrainConfig:
        given = self.recipe.train.get("penalty_options", {})
        options = {**given, "strength": strength, "dummies": dummies}
        return self._config(method, penalty="DGR", penalty_options=options, **changes)


def make_parts(recipe: Recipe, methods: Sequence[str] | None = None) -> dict[str, Part]:
    """The experiments of a recipe.

    Args:
        recipe: the study's.
        methods: the paper's names of the methods to keep, beside Vanilla; None: all.

    Raises:
        ValueError: a recipe that does not fit the study, or a method that the paper does not have.
    """
    for name in methods or []:
        if name not in METHODS:
            raise ValueError(f"methods has {name!r}, expected names out of {', '.join(METHODS)}")
    parts = {name: _part(name, recipe.experiment(name), methods) for name in recipe.experiments}
    if not parts:
        raise ValueError(f"recipe {recipe.name!r} has no experiments: the study dgr runs one or more")
    for part in parts.values():
        for option in ("chosen_in", "single_in"):
            other = getattr(part, option)
            if other is not None and (other not in parts or getattr(parts[other], option) is not None):
                raise ValueError(f"experiment {part.name!r}: {option} is {other!r}, expected one that has its own")
    return parts


def _part(name: str, recipe: Recipe, methods: Sequence[str] | None) -> Part:
    known = [entry.name for entry in fields(Part)][2:]
    for key in recipe.options:
        if key not in known:
            raise ValueError(f"experiment {name!r} has no option {key!r}; it has {', '.join(known)}")
    for key in ("title", "tasks"):
        if key not in recipe.options:
            raise ValueError(f"experiment {name!r} has no option {key!r}")
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in recipe.options.items()
    }
    part = Part(name, recipe, **given)
    for method in part.methods:
        if method not in METHODS:
            raise ValueError(f"experiment {name!r}: methods has {method!r}, expected names out of {', '.join(METHODS)}")
    if any(what not in ADDED[:2] for what in part.added):
        raise ValueError(f"experiment {name!r}: added is {part.added}, expected some of {', '.join(ADDED[:2])}")
    if part.chosen_in is None and not (part.grid and all(isinstance(v, (int, float)) and v > 0 for v in part.grid)):
        raise ValueError(f"experiment {name!r}: grid is {part.grid}, expected strengths above 0 (1.0e-3, with a point)")
    if methods is not None:
        kept = tuple(method for method in part.methods if method == VANILLA or method in methods)
        given["methods"] = kept
    return Part(name, recipe, **given)
