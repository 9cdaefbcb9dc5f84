"""What the adapters share that put this package under another library's names, and give everything back."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Replacement:
    """One attribute of another library's that gets another value.

    Attributes:
        name: what it serves, as the report and ``skip`` call it.
        owner: a class or module of that library.
        attribute: its name there.
        function: what takes its place; of a class, the calls of its ``backward`` are counted.
    """

    name: str
    owner: Any
    attribute: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Report:
    """What `accelerate` has replaced, and how often that was called since.

    Attributes:
        replaced: names, in order: ``"PCGrad"``, ``"jac_to_grad"``, ...
        calls: name -> number of calls.
        left_alone: name -> why it is as the other library has it.
    """

    replaced: tuple[str, ...]
    calls: Counter[str] = field(default_factory=Counter)
    left_alone: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name:24} {self.calls[name]:8} calls" for name in self.replaced]
        return "\n".join([*lines, *(f"{name:24} left alone: {why}" for name, why in self.left_alone.items())])


class Patch:
    """Replacements that are in place, or not.

    Attributes:
        report: of those in place; None while there are none.
    """

    def __init__(self) -> None:
        self.report: Report | None = None
        self._originals: list[tuple[Any, str, Any]] = []

    def apply(self, found: Sequence[Replacement], skip: Iterable[str], left_alone: Mapping[str, str]) -> Report:
        """Puts replacements in place, but for those that are skipped.

        Raises:
            ValueError: ``skip`` names what is not among them.
        """
        unwanted = set(skip)
        names = tuple(dict.fromkeys(each.name for each in found))
        if unwanted - set(names):
            raise ValueError(f"skip has {sorted(unwanted - set(names))}, expected some of {list(names)}")
        left = {**left_alone, **dict.fromkeys(sorted(unwanted), "skipped")}
        self.report = Report(tuple(name for name in names if name not in unwanted), left_alone=left)
        for each in found:
            if each.name not in unwanted:
                original = vars(each.owner)[each.attribute]
                self._originals.append((each.owner, each.attribute, original))
                function = counted(each.name, each.function, self.report.calls)
                static = isinstance(original, staticmethod)
                setattr(each.owner, each.attribute, staticmethod(function) if static else function)
        return self.report

    def undo(self) -> None:
        """Gives everything back."""
        while self._originals:
            setattr(*self._originals.pop())
        self.report = None


def counted(name: str, function: Callable[..., Any], calls: Counter[str]) -> Callable[..., Any]:
    """The function, or the class, with its calls counted."""
    if isinstance(function, type):
        counting = {"backward": counted(name, function.backward, calls), "__doc__": function.__doc__}  # type: ignore[attr-defined]
        return type(function.__name__, (function,), {**counting, "__module__": function.__module__})

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return function(*args, **kwargs)

    return call
