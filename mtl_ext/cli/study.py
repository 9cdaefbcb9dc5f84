"""`mtl-ext study` and `mtl-ext report`: a paper's protocol, and one page on what came out."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console

from mtl_ext.cli.command import Command
from mtl_ext.cli.report import progress_bar
from mtl_ext.data import DATASETS
from mtl_ext.data.processes import available_cpus
from mtl_ext.studies import STUDIES, Recipe, load_recipe, read_recipe, recipe_names, report_folder

# Presets on data of their own; "full" is the recipe of the data set.
PRESETS = ("tiny", "quick", "full")


def choose_recipe(
    study: str,
    preset: str,
    data: str | None,
    root: Path | None,
    file: Path | None,
    seeds: int | None,
    device: str | None,
    normalise: bool = False,
) -> Recipe:
    """The recipe that the options describe.

    Args:
        study: the study's name.
        preset: one of PRESETS.
        data: the data set of the full preset; None otherwise.
        root: the data set's folder, for data that the user has to provide.
        file: a recipe of the user's, in place of preset and data.
        seeds: runs per row, in all experiments; None: the recipe's.
        device: where to train; None: the recipe's.
        normalise: bring every combined gradient to the length of the baseline's.

    Raises:
        ValueError: options that do not go together.
    """
    if file is not None:
        recipe = read_recipe(file)
    elif preset == "full":
        if data is None:
            raise ValueError(f"--preset full needs --data, one of {', '.join(available_data(study))}")
        recipe = load_recipe(study, data)
    elif data is not None:
        raise ValueError(f"the preset {preset} has data of its own, --data {data} needs --preset full")
    else:
        recipe = load_recipe(study, preset)
    changes: dict[str, Any] = {}
    if root is not None:
        if not _needs_root(recipe.train):
            raise ValueError(f"--root {root} was given, but the data are made here: leave it out")
        changes["data_options"] = {**recipe.train.get("data_options", {}), "root": str(root)}
    if device is not None:
        changes["device"] = device
    if normalise:
        changes["normalise"] = True
    recipe = replace(recipe, train={**recipe.train, **changes})
    if seeds is not None:
        experiments = {
            name: {key: value for key, value in own.items() if key != "seeds"}
            for name, own in recipe.experiments.items()
        }
        recipe = replace(recipe, seeds=seeds, experiments=experiments)
    for part in [recipe.experiment(name) for name in recipe.experiments] or [recipe]:
        if _needs_root(part.train) and "root" not in part.train.get("data_options", {}):
            raise ValueError(f"the data {part.train['data']} need --root, the folder of your copy of the data set")
    return recipe


def _needs_root(train: Mapping[str, Any]) -> bool:
    """Whether a recipe's data set is read from a folder of the user's."""
    maker = DATASETS.get(train.get("data", ""))
    return maker is not None and "root" in inspect.signature(maker).parameters


def run_study(
    console: Console, name: str, recipe: Recipe, out: Path, workers: int, methods: list[str] | None = None
) -> None:
    """Carries out what is missing of a study and writes its report.

    Args:
        console: where progress and the result are shown.
        name: of the study.
        recipe: how it is run.
        out: the study's folder.
        workers: processes.
        methods: the paper's names of the methods that take part; None: all.

    Raises:
        ValueError: the folder holds results of another configuration, or the recipe describes no run.
    """
    study = STUDIES[name](recipe, methods)
    with progress_bar(console) as progress:
        bar = progress.add_task(f"{name}: {len(study.runs)} runs", total=len(study.runs))
        try:
            study.run(out, workers, lambda count: progress.advance(bar, count))
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("interrupted, nothing is lost: the same command goes on") from interrupt
    report(console, out)


def report(console: Console, out: Path) -> None:
    """Writes the report of a study's folder from what is there."""
    path = report_folder(out)
    console.print(f"report written to {path}: open it in a browser", markup=False, highlight=False)


def available_data(study: str) -> list[str]:
    """The data sets with a full recipe."""
    return [name for name in recipe_names(study) if name not in PRESETS]


def _study_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("study", choices=list(STUDIES), help="which paper")
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="how much to run")
    every = list(dict.fromkeys(data for study in STUDIES for data in available_data(study)))
    parser.add_argument("--data", choices=every, help="data set of the full preset")
    parser.add_argument("--root", type=Path | None, help="folder of your copy of the data set")
    parser.add_argument("--recipe", type=Path | None, help="your own YAML recipe, in place of preset and data")
    parser.add_argument("--out", type=Path | None, help="folder of the study (default: studies/STUDY-PRESET...)")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="runs at a time")
    parser.add_argument("--seeds", type=int | None, help="runs per method (default: the recipe's)")
    parser.add_argument("--methods", type=str, nargs="+", help="the paper's names of the methods to keep")
    parser.add_argument(
        "--normalise", action="store_true", help="control: bring every combined gradient to the baseline's length"
    )
    parser.add_argument("--device", type=str | None, help="where to train, for example cuda (default: the recipe's)")


def _run_study(console: Console, options: Any) -> None:
    name, preset, data = options.study, options.preset, options.data
    recipe = choose_recipe(
        name, preset, data, options.root, options.recipe, options.seeds, options.device, options.normalise
    )
    parts = [name, preset, *([data] if preset == "full" else []), *(["normalised"] if options.normalise else [])]
    run_study(console, name, recipe, options.out or Path("studies", "-".join(parts)), options.workers, options.methods)


def _description() -> str:
    studies = "\n\n".join(
        f"{name}\n  {study.summary}\n  data of the full preset: {', '.join(available_data(name))}"
        for name, study in STUDIES.items()
    )
    examples = "\n".join(f"  {line}" for study in STUDIES.values() for line in study.examples)
    return f"""\
Runs a paper's protocol: every method with several seeds, then one HTML page with its tables, curves, and each claim of
the paper as seen, not seen or not testable here. Interrupted, the same command goes on where it was.

{studies}

examples:
{examples}
"""


STUDY = Command(
    "study",
    "STUDY [options]",
    "run a paper's protocol and report on its claims",
    _description(),
    _run_study,
    _study_arguments,
)

REPORT = Command(
    "report",
    "FOLDER",
    "write a study's report anew",
    """\
Writes a study's report.html anew from the runs that its folder holds, finished or not.

example:
  mtl-ext report studies/robust-quick
""",
    lambda console, options: report(console, options.folder),
    lambda parser: parser.add_argument("folder", type=Path, help="folder of a study"),
)
