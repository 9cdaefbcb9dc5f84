"""Task relationships as matrices, source by target."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl_ext.relationships.agreement import Agreement
from mtl_ext.relationships.values import Measure, tasks_of
from mtl_ext.task_names import self_auxiliary_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


def relationships_figure(measures: Sequence[Measure], agreements: Mapping[str, Agreement] | None = None) -> "Figure":
    """A matrix per measure (SAAL, Figure 3): blue where the source helps the target, red where it harms.

    Each matrix has colours of its own, the strongest for what is furthest from neutral; the values are on the cells.

    Args:
        measures: at least one, all of the same tasks.
        agreements: measure's name -> how it agrees with the enumeration, written below its title.
    """
    from matplotlib.figure import Figure

    agreements = agreements or {}
    columns = min(COLUMNS, len(measures))
    rows = -(-len(measures) // columns)
    side = 1.9 + 0.62 * len(tasks_of(measures[0].values))
    figure = Figure(figsize=(1.12 * side * columns, side * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, measure in zip(axes.flat, measures, strict=False):
        _draw(axis, measure, agreements.get(measure.name))
    for axis in axes.flat[len(measures) :]:
        axis.set_visible(False)
    figure.supxlabel("blue: the source helps the target; red: it harms it; each matrix has its own scale", fontsize=9)
    return figure


def _draw(axis: "Axes", measure: Measure, agreement: Agreement | None) -> None:
    tasks = tasks_of(measure.values)
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for y, source in enumerate(tasks):
        for x, target in enumerate(tasks):
            matrix[y, x] = measure.help.get(self_auxiliary_name(source, target), np.nan)
    strongest = np.nanmax(np.abs(matrix), initial=0.0) or 1.0
    axis.set_facecolor("#e8eaed")  # of a task and itself, and of what was not measured
    axis.imshow(matrix, cmap="RdBu", vmin=-strongest, vmax=strongest)
    for y, source in enumerate(tasks):
        for x, target in enumerate(tasks):
            value = measure.values.get(self_auxiliary_name(source, target))
            if value is not None:
                colour = "white" if abs(matrix[y, x]) > 0.6 * strongest else "black"
                text = measure.style.format(value)
                axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=9 if len(tasks) < 6 else 7)
    edges = np.arange(len(tasks) + 1) - 0.5
    axis.hlines(edges, edges[0], edges[-1], color="white", linewidth=2)
    axis.vlines(edges, edges[0], edges[-1], color="white", linewidth=2)
    axis.set_xticks(range(len(tasks)), tasks, rotation=30 if len(tasks) > 3 else 0, fontsize=9)
    axis.set_yticks(range(len(tasks)), tasks, fontsize=9)
    axis.set_xlabel("target", fontsize=9)
    axis.set_ylabel("source", fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    title = measure.name
    if agreement is not None:
        told = len(agreement.targets)
        count = f"{told} of {told + len(agreement.left_out)}" if agreement.left_out else f"{told}"
        title += f"\nrank correlation {agreement.mean:+.2f}, mean of {count} targets"
    axis.set_title(title, fontsize=10, loc="left")
