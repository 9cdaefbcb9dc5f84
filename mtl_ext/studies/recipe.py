"""Recipes: one YAML file per study and data set, with everything that a paper leaves open."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mtl_ext.trainers import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How a study, or one of its experiments, is run.

    Attributes:
        name: what the report calls it.
        notes: what the report says about the recipe's choices: first what it can show and cannot, for its head.
        seeds: runs per row.
        train: fields of :class:`mtl_ext.trainers.TrainConfig` that all rows share.
        method_options: method -> its options, where they are not the defaults.
        groups: names of groups -> tasks in it, for a study's questions.
        options: what a study asks for besides; its package says which there are.
        timing_rounds: rounds of the comparison of step times; 0: none.
        experiments: experiment -> the fields that differ there, see `experiment`; empty for a study of only one.
    """

    name: str
    notes: tuple[str, ...]
    seeds: int
    train: dict[str, Any]
    method_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    timing_rounds: int = 15
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what cannot be run.

        Raises:
            ValueError: naming the field.
        """
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}, expected at least 1")
        known = {entry.name for entry in fields(TrainConfig)} - {"method", "method_options", "level", "seed", "tasks"}
        unknown = sorted(set(self.train) - known)
        if unknown:
            raise ValueError(f"recipe {self.name!r}: train has {unknown}, expected only {', '.join(sorted(known))}")
        for name in self.experiments:
            self.experiment(name)

    def experiment(self, name: str) -> "Recipe":
        """The recipe of one experiment: this one with the fields that differ there, mappings entry by entry.

        Raises:
            ValueError: the experiment has a field that there is not.
        """
        own = self.experiments[name]
        known = [entry.name for entry in fields(self) if entry.name not in ("name", "notes", "experiments")]
        for key in own:
            if key not in known:
                raise ValueError(f"experiment {name!r} has no field {key!r}; it has {', '.join(known)}")
        merged: dict[str, Any] = {
            key: {**getattr(self, key), **value} if isinstance(value, dict) else value for key, value in own.items()
        }
        return replace(self, name=name, experiments={}, **merged)

    def config(self, method: str, level: str = "parameter", **changes: Any) -> TrainConfig:
        """One row's configuration; the seed is the study's business.

        Args:
            method: name of the method.
            level: of its gradients.
            changes: fields that differ from `train`.
        """
        fixed: dict[str, Any] = {"method": method, "level": level}
        return TrainConfig(**fixed, method_options=self.method_options.get(method, {}), **{**self.train, **changes})


def recipe_names(study: str) -> list[str]:
    """The recipes of a study, without its name and the file's ending."""
    files = resources.files("mtl_ext.studies") / "recipes"
    prefix = f"{study}_"
    return sorted(
        entry.name.removeprefix(prefix).removesuffix(".yaml")
        for entry in files.iterdir()
        if entry.name.startswith(prefix)
    )


def load_recipe(study: str, name: str) -> Recipe:
    """A recipe that comes with the package.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in recipe_names(study):
        raise ValueError(f"study {study} has no recipe {name!r}, it has {', '.join(recipe_names(study))}")
    text = (resources.files("mtl_ext.studies") / "recipes" / f"{study}_{name}.yaml").read_text()
    return make_recipe(yaml.safe_load(text))


def read_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file of the user's.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no recipe.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, expected a recipe's fields")
    return make_recipe(content)


def make_recipe(content: Mapping[str, Any]) -> Recipe:
    """A recipe from its plain dicts and lists.

    Raises:
        ValueError: a field that there is not, or one that is missing.
    """
    known = [entry.name for entry in fields(Recipe)]
    for key in content:
        if key not in known:
            raise ValueError(f"a recipe has no field {key!r}; it has {', '.join(known)}")
    for key in ("name", "notes", "seeds", "train"):
        if key not in content:
            raise ValueError(f"the recipe has no {key}")
    return Recipe(**{**content, "notes": tuple(content["notes"])})
