"""What a command of the command line consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonargparse
from rich.console import Console


@dataclass(frozen=True)
class Command:
    """One command; each stands at the end of the module that carries it out.

    Attributes:
        name: as it is typed.
        usage: what follows the name.
        summary: one line for the list of commands.
        description: what `--help` teaches, with examples.
        run: (console, parsed options) -> exit status, None being 0.
        arguments: adds the command's own arguments to its parser.
    """

    name: str
    usage: str
    summary: str
    description: str
    run: Callable[[Console, Any], int | None]
    arguments: Callable[[jsonargparse.ArgumentParser], object] = lambda parser: None
