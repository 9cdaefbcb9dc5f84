"""The command line: `mtl-ext demo | train | study | report | make-data | pareto | methods | doctor`."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; none means those of the process.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        try:
            from mtl_ext.cli.commands import build_parser, run_command
        except ImportError as error:
            if error.name not in ("jsonargparse", "rich", "yaml"):
                raise
            return fail(f'the command line needs {error.name}: pip install "mtl_ext[train]"', 1)
        return run_command(build_parser(), arguments or ["--help"])
    except KeyboardInterrupt as interrupt:
        return fail(str(interrupt) or "interrupted", 130)
    except Exception as error:
        if debug:
            raise
        return fail(f"{error or type(error).__name__} (--debug shows where)", 1)


def fail(text: str, status: int) -> int:
    """Says in one line why a command ends, and returns its exit status."""
    print("mtl-ext: " + " ".join(text.split()), file=sys.stderr)
    return status
