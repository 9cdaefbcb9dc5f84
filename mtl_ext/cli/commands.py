"""The parser of the command line, and the way from its result to a command."""

import argparse
import io
import sys
from dataclasses import fields
from pathlib import Path
from typing import Literal

import jsonargparse
from rich.console import Console

from mtl_ext.cli import fail
from mtl_ext.cli.demo import demo
from mtl_ext.cli.doctor import doctor
from mtl_ext.cli.make_data import make
from mtl_ext.cli.methods import methods
from mtl_ext.cli.pareto import DEFAULT_METHODS, pareto
from mtl_ext.cli.train import train
from mtl_ext.data.generators import GENERATORS
from mtl_ext.data.make_data import plan_data
from mtl_ext.data.processes import available_cpus
from mtl_ext.pareto import THEORY
from mtl_ext.trainers import TrainConfig

OVERVIEW = """\
Multi-task learning optimisation: try the methods on real data, train one, see what is built.

examples:
  mtl-ext demo                                      compare all methods on two-digit images, a minute or two
  mtl-ext train --method PCGrad --level feature     one run, written to runs/
  mtl-ext make-data scenes --layout nyuv2 --out DIR  a synthetic data set in a published layout
  mtl-ext pareto                                    where methods end on two losses with a known Pareto front
  mtl-ext methods                                   what there is to compare
  mtl-ext doctor                                    which kernels run on this machine
"""

DEMO = """\
Trains one network per task, then one network for all tasks with each method, on images of two MNIST digits: two
classifications, a segmentation and a regression. Prints a table and writes results.json, results.csv and results.png.

examples:
  mtl-ext demo
  mtl-ext demo --seed 1 --out demo_seed1
"""

TRAIN = """\
Trains one configuration, from a YAML file, from flags, or from a file with flags on top. The run's folder holds
config.yaml (the whole configuration), results.json, model.pt, epochs.csv and, where tensorboard is installed, its log.
Ctrl-C ends a run after the step; it goes on bit for bit with --resume, which also works after a crash.

examples:
  mtl-ext train --method UW --epochs 8 --seed 1
  mtl-ext train --method PCGrad --level feature --method_options.reduction mean
  mtl-ext train --tasks '[left]' --data_options.train_size 1000 --out runs/single_left
  mtl-ext train --config runs/UW-seed1/config.yaml --out runs/again       (the same numbers again)
  mtl-ext train --out runs/again --resume                                 (goes on where it stopped)
"""

MAKE_DATA = """\
Generates a data set and writes it in the very files of a published one, labels exact, so that loaders and pipelines
run without a download. Sizes not given are the published ones. Interrupted, the same command goes on where it was;
the files do not depend on the number of workers.

{layouts}

examples:
  mtl-ext make-data scenes --layout nyuv2 --out data/nyuv2
  mtl-ext make-data faces --layout celeba --out data/faces --train 2000 --val 200 --test 500
  mtl-ext make-data scenes --layout nyuv2 --out data/small --train 80 --test 20 --height 96 --width 128 --seed 1
"""

PARETO = """\
Minimises two losses of two parameters, whose Pareto front is known, from five starts with each method (the problem of
the CAGrad and Nash-MTL papers), and compares the ends and the steps with what theory says of the method: that it ends
at a Pareto-stationary point, or at the minimum of the sum of the losses, that no step conflicts with a gradient, ...
Prints a table and writes pareto.json and pareto.png, the trajectories. It takes about a minute.

With more than the default steps, which are then smaller, some methods stay in a valley above the front, where the
losses are not smooth and no theory holds; their status is "missed".

examples:
  mtl-ext pareto
  mtl-ext pareto --methods '[MGDA,NashMTL]' --steps 3000 --out pareto_long
  mtl-ext pareto --methods all --check              (exit status 1 where a descent disagrees with theory)
"""

METHODS = """\
Lists the methods: where each acts, what a step costs in backward passes, and what it does.

example:
  mtl-ext methods
"""

DOCTOR = """\
Prints versions, which operator has a kernel on which device, instruction sets, CUDA architectures and threads, with
hints where something is missing.

example:
  mtl-ext doctor
"""


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Types and defaults in the help of arguments, descriptions as they are written."""


def build_parser() -> jsonargparse.ArgumentParser:
    """The parser of all commands."""
    parser = _parser("mtl-ext {demo,train,make-data,pareto,methods,doctor} [options]", OVERVIEW, prog="mtl-ext")
    commands = parser.add_subcommands(required=True, metavar="command", title="commands", description=None)

    command = _parser("mtl-ext demo [options]", DEMO)
    command.add_argument("--out", type=Path, default=Path("demo_results"), help="folder of the results")
    command.add_argument("--epochs", type=int, default=4, help="passes over the training images per run")
    command.add_argument("--seed", type=int, default=0, help="of the initial parameters and the order of the images")
    command.add_argument("--quick", action="store_true", help="a few seconds on a few images, to see that it works")
    commands.add_subcommand("demo", command, help="compare all methods on real data")

    command = _parser("mtl-ext train [--config FILE] [options]", TRAIN)
    command.add_argument("--config", action="config", help="YAML file with any of the options below")
    command.add_class_arguments(TrainConfig, None)
    command.add_argument("--out", type=Path | None, help="folder of the run (default: runs/METHOD[-LEVEL]-seedSEED)")
    command.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out, from its own config.yaml")
    commands.add_subcommand("train", command, help="train one configuration")

    layouts = "\n".join(f"layouts of {name}: {', '.join(entry.layouts)}" for name, entry in GENERATORS.items())
    command = _parser("mtl-ext make-data GENERATOR --layout LAYOUT --out DIR", MAKE_DATA.format(layouts=layouts))
    command.add_argument("generator", choices=list(GENERATORS), help="what to generate")
    command.add_argument("--layout", type=str, required=True, help="the published data set whose files to write")
    command.add_argument("--out", type=Path, required=True, help="folder of the data set")
    command.add_argument("--train", type=int | None, help="training samples")
    command.add_argument("--val", type=int | None, help="validation samples, where the layout has a third split")
    command.add_argument("--test", type=int | None, help="test samples: those of the layout's last split")
    command.add_argument("--height", type=int | None, help="of the images, in pixels")
    command.add_argument("--width", type=int | None, help="of the images, in pixels")
    command.add_argument("--seed", type=int, default=0, help="of all samples")
    command.add_argument("--workers", type=int, default=available_cpus(), help="processes that generate and write")
    command.add_argument("--overwrite", action="store_true", help="replace a data set that the folder holds")
    commands.add_subcommand("make-data", command, help="generate a data set in a published layout")
    command = _parser("mtl-ext pareto [options]", PARETO)
    command.add_argument(
        "--methods",
        type=list[str] | Literal["all"],
        default=list(DEFAULT_METHODS),
        help="their names in brackets, or all: those whose theory is checked",
    )
    command.add_argument("--steps", type=int, default=1000, help="of each descent, at least 200")
    command.add_argument("--seed", type=int, default=0, help="of random methods")
    command.add_argument("--scale", type=float, default=0.1, help="of the first loss; 0.1 in Nash-MTL, 1 in CAGrad")
    command.add_argument("--out", type=Path, default=Path("pareto_results"), help="folder of the results")
    command.add_argument("--check", action="store_true", help="exit status 1 where a descent disagrees with theory")
    commands.add_subcommand("pareto", command, help="compare where methods end with theory")

    commands.add_subcommand("methods", _parser("mtl-ext methods", METHODS), help="list the methods")
    commands.add_subcommand("doctor", _parser("mtl-ext doctor", DOCTOR), help="show what is built and what runs here")
    return parser


def run_command(parser: jsonargparse.ArgumentParser, arguments: list[str]) -> int:
    """Parses the arguments and runs their command; returns the exit status."""
    try:
        parsed = parser.parse_args(arguments)
        if parsed.subcommand == "train" and parsed.train.resume:
            parsed = parser.parse_args(_with_config_of_folder(arguments, parsed.train.out))
    except argparse.ArgumentError as error:
        return fail(f"{error} (see mtl-ext --help)", 2)
    # A terminal without UTF-8 shows question marks instead of ending the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console()
    options = parsed[parsed.subcommand]
    if parsed.subcommand == "demo":
        demo(console, options.out, options.epochs, options.seed, options.quick)
    elif parsed.subcommand == "train":
        config = TrainConfig(**{field.name: options[field.name] for field in fields(TrainConfig)})
        train(console, config, options.out, options.overwrite, options.resume)
    elif parsed.subcommand == "make-data":
        names = ("generator", "layout", "train", "val", "test", "height", "width", "seed")
        plan = plan_data(**{name: options[name] for name in names})
        make(console, plan, options.out, options.workers, options.overwrite)
    elif parsed.subcommand == "pareto":
        chosen = list(THEORY) if options.methods == "all" else options.methods
        agrees = pareto(console, options.out, chosen, options.steps, options.seed, options.scale)
        return 1 if options.check and not agrees else 0
    elif parsed.subcommand == "methods":
        methods(console)
    else:
        doctor(console)
    return 0


def _with_config_of_folder(arguments: list[str], folder: Path | None) -> list[str]:
    """The arguments of a resumed run: its own configuration, and on top what else was given, which must agree."""
    if folder is None:
        raise argparse.ArgumentError(None, "--resume needs --out, the folder of the run to go on with")
    config = folder / "config.yaml"
    if not config.exists():
        raise argparse.ArgumentError(None, f"there is no run to resume in {folder}: {config.name} is missing")
    position = arguments.index("train") + 1
    return [*arguments[:position], "--config", str(config), *arguments[position:]]


def _parser(usage: str, description: str, prog: str | None = None) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog=prog, usage=usage, description=description, formatter_class=HelpFormatter, exit_on_error=False
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
