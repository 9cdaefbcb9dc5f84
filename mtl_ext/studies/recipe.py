"""Recipes: one YAML file per experiment, with everything that a study leaves open."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mtl_ext.trainers import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How a study is run on one data set.

    Attributes:
        name: what the report calls it.
        notes: what the report says about the recipe's choices: first what it can show and cannot, for its head.
        seeds: runs per row.
        train: fields of :class:`mtl_ext.trainers.TrainConfig` that all rows share.
        method_options: method -> its options, where they are not the defaults.
        groups: names of groups -> tasks in it, for a study's questions.
        timing_rounds: rounds of the comparison of step times.
    """

    name: str
    notes: tuple[str, ...]
    seeds: int
    train: dict[str, Any]
    method_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    timing_rounds: int = 15

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

    def config(self, method: str, level: str) -> TrainConfig:
        """One row's configuration; the seed is the study's business."""
        options = self.method_options.get(method, {})
        return TrainConfig(method=method, method_options=options, level=level, **self.train)  # type: ignore[arg-type]


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
