"""Figures of the SAAL study."""

from typing import TYPE_CHECKING

from mtl_ext.studies.saal.outcomes import PartOutcomes
from mtl_ext.studies.saal.protocol import ASYMMETRIC, BLOCKS, BOTTOM, HALF, SAAL, TYPICAL
from mtl_ext.studies.spread import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of plots.COLOURS, which colour-blind readers tell apart.
COLOURS = {TYPICAL: "#5b6470", ASYMMETRIC: "#0072B2"}
OTHERS = "#5b6470"
NAMES = {TYPICAL: "typical (equal weighting)", ASYMMETRIC: "asymmetric (self-auxiliaries as enumerated)"}


def overview_figure(part: PartOutcomes) -> "Figure":
    """Delta_MTL of every method, best at the top: the mean over seeds and each seed."""
    from matplotlib.figure import Figure

    deltas = {name: part.delta(name) for name in part.methods}
    order = sorted(deltas, key=lambda name: deltas[name].mean)
    figure = Figure(figsize=(9.5, 1.0 + 0.3 * len(order)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="black", linewidth=1)
    for y, name in enumerate(order):
        colour = COLOURS[ASYMMETRIC] if name in SAAL else OTHERS
        seeds = [100 * value for value in deltas[name].values]
        axis.plot([min(seeds), max(seeds)], [y, y], color=colour, linewidth=1.5, alpha=0.6)
        axis.scatter(seeds, [y] * len(seeds), s=14, color=colour, alpha=0.6)
        face = "white" if name == BOTTOM else colour
        axis.scatter(100 * deltas[name].mean, y, s=64, color=face, edgecolor=colour, linewidth=1.8, zorder=3)
    axis.set_yticks(range(len(order)), order)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel(r"$\Delta_{MTL}$ against single-task networks, % (right: better)")
    _plain(axis)
    axis.grid(axis="x", alpha=0.25)
    axis.tick_params(axis="y", length=0)
    return figure


def sharing_figure(part: PartOutcomes) -> "Figure":
    """Figure 1: each task's change over the number of shared blocks, and Delta_MTL, in both settings."""
    from matplotlib.figure import Figure

    tasks = list(part.part.tasks)
    panels = len(tasks) + 1
    figure = Figure(figsize=(3.3 * panels, 3.7), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, task in zip(axes, [*tasks, None], strict=True):
        axis.axhline(0, color="black", linewidth=0.8)
        for kind in (TYPICAL, ASYMMETRIC):
            points = part.sharing_points(kind)
            values = {n: part.delta(row) if task is None else part.change(row, task) for n, row in points.items()}
            _draw_curve(axis, values, kind)
        axis.axvline(HALF, color="black", linewidth=0.8, linestyle=":", alpha=0.5)
        axis.set_title(r"$\Delta_{MTL}$" if task is None else task, fontsize=11, loc="left")
        axis.set_xticks(range(BLOCKS + 1))
        axis.set_xlabel("shared blocks")
        axis.grid(axis="y", alpha=0.25)
        _plain(axis)
    axes[0].set_ylabel("change against single tasks, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_curve(axis: "Axes", values: dict[int, Spread], kind: str) -> None:
    blocks = list(values)
    low = [100 * min(value.values) for value in values.values()]
    high = [100 * max(value.values) for value in values.values()]
    axis.fill_between(blocks, low, high, color=COLOURS[kind], alpha=0.15, linewidth=0)
    means = [100 * value.mean for value in values.values()]
    style = "--" if kind == TYPICAL else "-"
    axis.plot(
        blocks, means, color=COLOURS[kind], linestyle=style, marker="o", markersize=5, linewidth=1.8, label=NAMES[kind]
    )


def _plain(axis: "Axes") -> None:
    axis.spines[["top", "right"]].set_visible(False)
