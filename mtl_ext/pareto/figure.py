"""The figure of the descents. matplotlib is imported where it is used: the package works without it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from mtl_ext.pareto.descent import Descent
from mtl_ext.pareto.theory import Outcome
from mtl_ext.pareto.toy import Front, Toy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

COLUMNS = 4
EXTENT = 11.0
FRONT_COLOUR = "#009E73"
# Fill of the last point by status; the rest of the figure says when, not whether.
END_COLOURS = {"reached": "white", "no claim": "lightgrey"}
FAILED_COLOUR = "#D55E00"
TIME = "plasma_r"


def trajectory_figure(
    toy: Toy, front: Front, runs: Mapping[str, Sequence[tuple[Descent, Outcome]]], steps: int
) -> "Figure":
    """A panel per method: contours of the mean loss, the Pareto front, and a trajectory from each start.

    Args:
        toy: the losses.
        front: their Pareto front.
        runs: method -> its descents and what was found.
        steps: of every descent.
    """
    from matplotlib.figure import Figure

    rows = -(-len(runs) // COLUMNS)
    columns = min(len(runs), COLUMNS)
    figure = Figure(figsize=(2.7 * columns + 1.1, 2.85 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    lines = None
    for index, (axis, (name, found)) in enumerate(zip(panels, runs.items(), strict=False)):
        _draw_losses(axis, toy)
        axis.plot(*front.parameters.T.numpy(), color=FRONT_COLOUR, linewidth=5, solid_capstyle="round", zorder=2)
        for descent, outcome in found:
            lines = _draw_descent(axis, descent, outcome)
        judged = [outcome.status for _, outcome in found if outcome.status != "no claim"]
        note = f"  {judged.count('reached')} of {len(judged)}" if judged else ""
        axis.set_title(name + note, fontsize=10.5, loc="left")
        axis.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal", xticks=(-7, 0, 7), yticks=(-8, 0, 8))
        axis.tick_params(length=2, labelsize=8, labelbottom=index + COLUMNS >= len(runs))
    for axis in panels[len(runs) :]:
        axis.set_visible(False)
    figure.supxlabel("first parameter", fontsize=9.5)
    figure.supylabel("second parameter", fontsize=9.5)
    if lines is not None:
        bar = figure.colorbar(
            lines, ax=panels, shrink=0.6, aspect=35, pad=0.015, ticks=(0, steps // 10, steps // 2, steps)
        )
        bar.set_label("step", fontsize=9.5, labelpad=0)
        bar.ax.tick_params(labelsize=8)
    _draw_legend(figure)
    return figure


def _draw_losses(axis: "Axes", toy: Toy) -> None:
    """Contours of the mean loss, in grey."""
    ticks = torch.linspace(-EXTENT, EXTENT, 221, dtype=torch.float64)
    x, y = torch.meshgrid(ticks, ticks, indexing="xy")
    mean = toy.losses(torch.stack([x, y], -1)).mean(-1)
    axis.contourf(x.numpy(), y.numpy(), mean.numpy(), levels=18, cmap="Greys_r", alpha=0.5, zorder=0)
    axis.contour(
        x.numpy(), y.numpy(), mean.numpy(), levels=18, colors="white", linewidths=0.5, linestyles="solid", zorder=1
    )


def _draw_descent(axis: "Axes", descent: Descent, outcome: Outcome) -> "LineCollection":
    """One trajectory, coloured by the step, with marks where it starts and ends."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import PowerNorm

    points = descent.path.numpy()
    segments = list(torch.stack([descent.path[:-1], descent.path[1:]], 1).numpy())
    # Most of the way is covered early: the root of the step gives it more of the colours.
    norm = PowerNorm(0.5, 0, len(segments))
    lines = LineCollection(segments, cmap=TIME, norm=norm, linewidths=1.8, capstyle="round", zorder=3)
    lines.set_array(torch.arange(len(segments)).numpy())
    axis.add_collection(lines)
    axis.plot(*points[0], "o", color="black", markersize=4, zorder=4)
    colour = END_COLOURS.get(outcome.status, FAILED_COLOUR)
    axis.plot(*points[-1], "*", color=colour, markeredgecolor="black", markeredgewidth=0.7, markersize=10, zorder=5)
    return lines


def _draw_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    star = partial(
        Line2D, [], [], marker="*", markersize=10, markeredgecolor="black", markeredgewidth=0.7, linestyle=""
    )
    handles = [
        Line2D([], [], color="black", marker="o", markersize=4, linestyle="", label="start"),
        star(color="white", label="end, where theory says"),
        star(color=FAILED_COLOUR, label="end, elsewhere"),
        Line2D([], [], color=FRONT_COLOUR, linewidth=5, solid_capstyle="round", label="Pareto front"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9.5)
