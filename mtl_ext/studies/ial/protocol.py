"""Which rows the paper has: methods, ablations, and the tasks that are primary in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtl_ext.studies.choice import Choice
from mtl_ext.studies.recipe import Recipe
from mtl_ext.trainers import TrainConfig

SINGLE, UNIFORM, OURS = "Single task", "Uniform", "IAL"
# The paper's names -> ours. Setting Normal: one run for all tasks.
NORMAL = {
    UNIFORM: "EW",
    "UW": "UW",
    "GradNorm": "GradNorm",
    "DWA": "DWA",
    "MGDA": "MGDA",
    "PCGrad": "PCGrad",
    "RLW-Normal": "RLW",
    "IMTL-L": "IMTLL",
    "IMTL-G": "IMTLG",
    "IMTL": "IMTL",
    "Auto-λ (MTL)": "AutoLambda",
    "Miraliev et al.": "TaskObjectiveWeights",
    "ATW": "ATW",
    "PUW": "PUW",
}
# Setting Auxiliary: one run for each primary task.
AUXILIARY = {"GCS": "GCS", "OL-AUX": "OLAUX", "Auto-λ": "AutoLambda", OURS: "IAL"}
# What PUW is scored on.
PUW_HOLDOUT = 0.1
PSEUDO_SEGMENTATION, PSEUDO_CLASS, PSEUDO_TOKENS = "pseudo_segmentation", "pseudo_class", "pseudo_tokens"
PSEUDO = (PSEUDO_SEGMENTATION, PSEUDO_CLASS, PSEUDO_TOKENS)
# Weight of auxiliary tasks where it is fixed.
FIXED = 0.1
# Table VIII and Table XI, all tasks primary in turn: row -> options of IAL; a grid's weight joins the second kind.
ENCODER: dict[str, dict[str, Any]] = {
    "Grad.(Fix)": {"indicator": FIXED},
    "Uncer.": {"match_norms": False},
    "RTS": {"indicator": "training_speed"},
    "EGN": {"indicator": "gradient_norm"},
    "Cos.": {"indicator": "cosine"},
}
GRID_SEARCH, GRADIENT_GRID = "GS", "Grad.(GS)"
# Table IX, one task primary: row -> what weighs the decoders in place of uncertainty.
DECODERS: dict[str, str] = {"w. Uniform": "EW", "w. GradNorm": "GradNorm", "w. DWA": "DWA", "w. RLW-Normal": "RLW"}
IMPARTIAL, DECODER_FIXED, DECODER_GRID = "Auto-λ (impartial)", "w. Fixed", "w. Grid Search"
EXPERIMENTS = ("plain", "noisy", "ablations", "domains")


def row_name(method: str, primary: str) -> str:
    """The run of a method with a primary task; of the single-task row, of the only task."""
    return f"{method} [{primary}]"


def with_tokens(method: str) -> str:
    """The row of a method whose noisy tasks include token labels."""
    return f"{method} + tokens"


def fixed_head(method: str) -> str:
    """The row of a method that meets a broken auxiliary task."""
    return f"{method} (Fix)"


class Protocol:
    """The rows of the experiments that a recipe has.

    The recipe's options, of all experiments or of one:

    - ``about``, ``same_data``: which of the paper's data the recipe's stand for, and whether they are the paper's;
      ``paper``: its tables that stand beside an experiment.
    - ``tasks``: trained (none: all of the data set); ``primary``: primary in turn (none: ``tasks``).
    - ``normal``, ``auxiliary``: the paper's names of the methods (none: all); ``tokens``: those that are also run with
      token labels; ``single_epochs``: of single-task rows.
    - ``ablated``: the primary task of Table IX, Figs. 12 and 13; ``broken``: the auxiliary task of these figures, whose
      head is frozen.
    - ``grid``: auxiliary weights to choose from; ``auto_lambda_initial``: initial weights of Auto-λ to choose from;
      ``holdout``: share of the training samples that choices are made on.
    - ``panels``: places of the test images that are shown.

    Args:
        recipe: how the study is run.
        methods: the paper's names of the methods to keep; None: all.

    Raises:
        ValueError: a name that the paper does not have, or an experiment that there is not.
    """

    def __init__(self, recipe: Recipe, methods: Sequence[str] | None = None) -> None:
        known = [*NORMAL, *AUXILIARY]
        for name in methods or []:
            if name not in known:
                raise ValueError(f"methods has {name!r}, expected names out of {', '.join(known)}")
        for name in recipe.experiments:
            if name not in EXPERIMENTS:
                raise ValueError(
                    f"recipe {recipe.name!r} has the experiment {name!r}, expected {', '.join(EXPERIMENTS)}"
                )
        self.recipe = recipe
        self.methods = methods
        self.recipes = {name: recipe.experiment(name) for name in recipe.experiments}
        if methods is not None and OURS not in methods:
            self.recipes.pop("ablations", None)

    def option(self, experiment: str, name: str, default: Any = ()) -> Any:
        """An option of an experiment's recipe."""
        return self.recipes[experiment].options.get(name, default)

    def tasks(self, experiment: str) -> tuple[str, ...]:
        """The tasks that are trained, without noisy ones."""
        return tuple(self.option(experiment, "tasks"))

    def primary(self, experiment: str) -> tuple[str, ...]:
        """The tasks that are primary in turn."""
        return tuple(self.option(experiment, "primary") or self.tasks(experiment))

    def kept(self, experiment: str, kind: str, names: Mapping[str, str]) -> list[str]:
        """The methods of a setting that an experiment has."""
        wanted = self.option(experiment, kind) or list(names)
        for name in wanted:
            if name not in names:
                raise ValueError(f"the recipe's option {kind} has {name!r}, expected names out of {', '.join(names)}")
        return [n for n in names if n in wanted and (self.methods is None or n in self.methods or n == UNIFORM)]

    def rows(self, experiment: str, chosen: Mapping[str, Any]) -> dict[str, TrainConfig]:
        """Row -> configuration."""
        if experiment == "ablations":
            return self._ablations(chosen)
        make = self._maker(experiment, chosen)
        if experiment == "noisy":
            return self._noisy(make)
        rows = {}
        for task in self.primary(experiment):
            single = self._config(experiment, "EW", tasks=(task,))
            epochs = self.option(experiment, "single_epochs", single.epochs)
            rows[row_name(SINGLE, task)] = replace(single, epochs=epochs)
        return {**rows, **self._both_settings(experiment, make)}

    def _both_settings(
        self,
        experiment: str,
        make: Callable[..., TrainConfig],
        rename: Callable[[str], str] = str,
        only: Sequence[str] = (),
    ) -> dict[str, TrainConfig]:
        """The rows of both settings, or only some of them."""
        normal, auxiliary = (
            [name for name in self.kept(experiment, kind, names) if not only or name in only]
            for kind, names in (("normal", NORMAL), ("auxiliary", AUXILIARY))
        )
        rows = {rename(name): make(name) for name in normal}
        for name in auxiliary:
            rows |= {row_name(rename(name), primary): make(name, primary) for primary in self.primary(experiment)}
        return rows

    def _noisy(self, make: Callable[..., TrainConfig]) -> dict[str, TrainConfig]:
        tasks = self.tasks("noisy")
        data_options = {**self.recipes["noisy"].train.get("data_options", {}), "pseudo_labels": True}

        def noisy(noise: Sequence[str]) -> Callable[..., TrainConfig]:
            return lambda *args: replace(make(*args), tasks=(*tasks, *noise), data_options=data_options)

        rows = self._both_settings("noisy", noisy((PSEUDO_SEGMENTATION, PSEUDO_CLASS)))
        tokens = self.option("noisy", "tokens")
        return rows | (self._both_settings("noisy", noisy(PSEUDO), with_tokens, tokens) if tokens else {})

    def _ablations(self, chosen: Mapping[str, Any]) -> dict[str, TrainConfig]:
        """Tables VIII to XI; the rows that they share with Table I are those of the experiment ``plain``."""
        experiment = "ablations"
        make = self._maker(experiment, chosen)
        ablated, broken = self.option(experiment, "ablated"), self.option(experiment, "broken")
        rows: dict[str, TrainConfig] = {}
        for primary in self.primary(experiment):
            rows[row_name(GRID_SEARCH, primary)] = self._weighted(primary, chosen[choice_name(GRID_SEARCH, primary)])
            weight = chosen[choice_name(GRADIENT_GRID, primary)]
            rows[row_name(GRADIENT_GRID, primary)] = self._ours(primary, indicator=weight)
            for name, options in ENCODER.items():
                rows[row_name(name, primary)] = self._ours(primary, **options)
        for name, method in DECODERS.items():
            rows[row_name(name, ablated)] = self._ours(ablated, method=method)
        rows[row_name(DECODER_FIXED, ablated)] = self._decoders(ablated, FIXED)
        rows[row_name(DECODER_GRID, ablated)] = self._decoders(ablated, chosen[choice_name(DECODER_GRID, ablated)])
        options = make("Auto-λ", ablated).method_options
        inner = {name: value for name, value in options.items() if name not in ("primary", "reduction", "nonfinite")}
        rows[row_name(IMPARTIAL, ablated)] = self._ours(ablated, indicator="auto_lambda", indicator_options=inner)
        rows[fixed_head("UW")] = replace(make("UW"), frozen_heads=(broken,))
        for name in ("Auto-λ", OURS):
            for primary in self.primary(experiment):
                row = row_name(fixed_head(name), primary)
                rows[row] = replace(make(name, primary), frozen_heads=(broken,))
        return rows

    def choices(self) -> dict[str, Choice]:
        """What held-out data are to choose: grids, for each primary task, and where Auto-λ starts."""
        found: dict[str, Choice] = {}
        for experiment in self.recipes:
            found |= self._initial(experiment)
        if "ablations" not in self.recipes:
            return found
        for primary in self.primary("ablations"):
            found |= self._grid(GRID_SEARCH, primary, self._weighted)
            found |= self._grid(GRADIENT_GRID, primary, lambda task, weight: self._ours(task, indicator=weight))
        return found | self._grid(DECODER_GRID, self.option("ablations", "ablated"), self._decoders)

    def _initial(self, experiment: str) -> dict[str, Choice]:
        values = self.option(experiment, "auto_lambda_initial")
        if not values or experiment not in ("plain", "domains"):
            return {}
        configs = {}
        for value in values:
            config = self._config(experiment, "AutoLambda", holdout=self._holdout(experiment))
            configs[f"{value}"] = replace(config, method_options={**config.method_options, "initial": value})
        return {initial_name(experiment): Choice(configs, {f"{value}": value for value in values}, 1)}

    def _grid(self, name: str, primary: str, make: Callable[[str, float], TrainConfig]) -> dict[str, Choice]:
        holdout, weights = self._holdout("ablations"), self.option("ablations", "grid", (FIXED,))
        rows = {f"{weight}": replace(make(primary, weight), holdout=holdout) for weight in weights}
        return {choice_name(name, primary): Choice(rows, {f"{w}": w for w in weights}, 1, (primary,))}

    def _holdout(self, experiment: str) -> float:
        share: float = self.option(experiment, "holdout", 0.1)
        return share

    def _maker(self, experiment: str, chosen: Mapping[str, Any]) -> Callable[..., TrainConfig]:
        """(method, primary task or none) -> configuration of the paper's method."""
        initial = chosen.get(initial_name("domains" if experiment == "domains" else "plain"))

        def make(name: str, primary: str | None = None) -> TrainConfig:
            method = {**NORMAL, **AUXILIARY}[name]
            config = self._config(experiment, method, level="feature" if name == OURS else "parameter")
            if name == "PUW":
                config = _scored_every_epoch(config)
            options: dict[str, Any] = {} if primary is None else {"primary": primary}
            if method == "AutoLambda" and initial is not None:
                options["initial"] = initial
            return replace(config, method_options={**config.method_options, **options})

        return make

    def _config(self, experiment: str, method: str, **changes: Any) -> TrainConfig:
        return self.recipes[experiment].config(method, **{"tasks": self.tasks(experiment), **changes})

    def _ours(self, primary: str, **options: Any) -> TrainConfig:
        """IAL with a primary task and other options."""
        config = self._config("ablations", "IAL", level="feature")
        return replace(config, method_options={**config.method_options, "primary": primary, **options})

    def _weighted(self, primary: str, weight: float) -> TrainConfig:
        """One set of weights for everything: 1 for the primary task."""
        return replace(self._config("ablations", "FixedWeights"), method_options=self._weights(primary, weight))

    def _decoders(self, primary: str, weight: float) -> TrainConfig:
        """IAL whose decoders have fixed weights."""
        return self._ours(primary, method={"name": "FixedWeights", **self._weights(primary, weight)})

    def _weights(self, primary: str, weight: float) -> dict[str, list[float]]:
        return {"weights": [1.0 if task == primary else weight for task in self.tasks("ablations")]}


def _scored_every_epoch(config: TrainConfig) -> TrainConfig:
    """With validation data, and measures of them after every epoch, as PUW wants them."""
    return replace(
        config, holdout=config.holdout or PUW_HOLDOUT, eval_every=1, early_stop=config.early_stop * config.eval_every
    )


def choice_name(name: str, primary: str) -> str:
    """The choice of a grid's weight for a primary task."""
    return f"{name} {primary}"


def initial_name(experiment: str) -> str:
    """The choice of where Auto-λ starts."""
    return f"Auto-λ initial {experiment}"
