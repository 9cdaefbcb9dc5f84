"""The parser of the command line, and the way from its result to a command."""

import argparse
import io
import sys
from pathlib import Path

import jsonargparse
from rich.console import Console

from mtl_ext.cli import demo, doctor, fail, make_data, methods, pareto, study, train

COMMANDS = {
    command.name: command
    for command in (
        demo.COMMAND,
        train.COMMAND,
        make_data.COMMAND,
        study.STUDY,
        study.REPORT,
        pareto.COMMAND,
        methods.COMMAND,
        doctor.COMMAND,
    )
}

OVERVIEW = """\
Multi-task learning optimisation: try the methods on real data, train one, see what is built.

examples:
  mtl-ext demo                                      compare all methods on two-digit images, a minute or two
  mtl-ext train --method PCGrad --level feature     one run, written to runs/
  mtl-ext make-data scenes --layout nyuv2 --out DIR  a synthetic data set in a published layout
  mtl-ext pareto                                    where methods end on two losses with a known Pareto front
  mtl-ext study robust --preset quick               a paper's protocol, with a report on its claims
  mtl-ext methods                                   what there is to compare
  mtl-ext doctor                                    which kernels run on this machine
"""


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Types and defaults in the help of arguments, descriptions as they are written."""


def build_parser() -> jsonargparse.ArgumentParser:
    """The parser of all commands."""
    parser = _parser(f"mtl-ext {{{','.join(COMMANDS)}}} [options]", OVERVIEW, prog="mtl-ext")
    commands = parser.add_subcommands(required=True, metavar="command", title="commands", description=None)
    for name, command in COMMANDS.items():
        own = _parser(f"mtl-ext {name} {command.usage}".rstrip(), command.description)
        command.arguments(own)
        commands.add_subcommand(name, own, help=command.summary)
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
    return COMMANDS[parsed.subcommand].run(Console(), parsed[parsed.subcommand]) or 0


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
