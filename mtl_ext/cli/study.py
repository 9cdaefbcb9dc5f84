"""`mtl-ext study` and `mtl-ext report`: a paper's protocol, and one page on what came out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console

from mtl_ext.cli.command import Command
from mtl_ext.cli.report import progress_bar
from mtl_ext.data.processes import available_cpus
from mtl_ext.studies import STUDIES, Recipe, load_recipe, read_recipe, recipe_names, report_folder

# Presets on data of their own; "full" is the recipe of the data set.
PRESETS = ("tiny", "quick", "full")


def choose_recipe(
    study: str,
    preset: str,
    data: str,
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
        data: the data set of the full preset.
        root: the data set's folder, for data that the user has to provide.
        file: a recipe of the user's, in place of preset and data.
        seeds: runs per row; None: the recipe's.
        device: where to train; None: the recipe's.
        normalise: bring every combined gradient to the length of the baseline's.

    Raises:
        ValueError: options that do not go together.
    """
    if file is not None:
        recipe = read_recipe(file)
    elif preset == "full":
        recipe = load_recipe(study, data)
    elif data != "scenes":
        raise ValueError(f"the preset {preset} is on rendered scenes, --data {data} needs --preset full")
    else:
        recipe = load_recipe(study, preset)
    train = dict(recipe.train)
    if root is not None:
        if train.get("data") == "scenes":
            raise ValueError(f"--root {root} was given, but the scenes are rendered: leave it out")
        train["data_options"] = {**train.get("data_options", {}), "root": str(root)}
    elif file is None and recipe.train["data"] != "scenes":
        raise ValueError(f"--data {data} needs --root, the folder of your copy of the data set")
    if device is not None:
        train["device"] = device
    if normalise:
        train["normalise"] = True
    return replace(recipe, train=train, seeds=recipe.seeds if seeds is None else seeds)


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
    parser.add_argument("--data", choices=available_data("robust"), default="scenes", help="data of the full preset")
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


STUDY = Command(
    "study",
    "STUDY [options]",
    "run a paper's protocol and report on its claims",
    """\
Runs a paper's protocol: every method with several seeds, then one HTML page with its tables, curves, and each claim of
the paper as seen, not seen or not testable here. Interrupted, the same command goes on where it was.

robust   Mao et al., Robust Analysis of Multi-Task Learning: 26 variants of 15 methods at parameter and feature level

examples:
  mtl-ext study robust --preset quick                                   20 minutes on two cores
  mtl-ext study robust --preset tiny --methods PCGrad MGDA --out studies/try
  mtl-ext study robust --preset full --data nyuv2 --root data/nyuv2 --device cuda --workers 1
""",
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
