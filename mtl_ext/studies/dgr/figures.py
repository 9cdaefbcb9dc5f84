"""Figures of the DGR study."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl_ext.plots import COLOURS
from mtl_ext.studies.dgr.outcomes import PartOutcomes
from mtl_ext.studies.dgr.protocol import COMPARED, added

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BETTER, WORSE = "#1f63b5", "#c33b22"
BASE = "#8a8f96"
DELTA = r"$\Delta_{MTL}$, %"
COLUMNS = 3


def gains_figure(parts: Sequence[PartOutcomes]) -> "Figure":
    """Every method without (grey) and with DGR (blue where better, red where worse), a panel per experiment."""
    from matplotlib.figure import Figure

    # The longest first, so that a row's panels are of about one height.
    shown = sorted((part for part in parts if part.pairs), key=lambda part: -len(part.pairs))
    heights = [1.0 + 0.34 * len(part.pairs) for part in shown[::COLUMNS]]
    figure = Figure(figsize=(12.5, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), COLUMNS, height_ratios=heights, squeeze=False).flatten()
    for axis, part in zip(axes, shown, strict=False):
        _draw_gains(axis, part)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    return figure


def comparators_figure(part: PartOutcomes) -> "Figure":
    """Figure 2: Delta_MTL of the compared methods alone (grey) and with SAM, PTA and DGR; dots are seeds."""
    from matplotlib.figure import Figure

    methods = [method for method in COMPARED if part.has(method)]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axis = figure.subplots()
    colours = {"alone": "#c4c8ce", "SAM": COLOURS[2], "PTA": COLOURS[1], "DGR": COLOURS[0]}
    for k, (what, colour) in enumerate(colours.items()):
        rows = {i: method if what == "alone" else added(method, what) for i, method in enumerate(methods)}
        rows = {i: row for i, row in rows.items() if part.has(row)}
        places = [i + 0.2 * (k - 1.5) for i in rows]
        deltas = [part.delta(row) for row in rows.values()]
        label = what if what == "alone" else f"+ {what}"
        axis.bar(places, [100 * delta.mean for delta in deltas], width=0.17, color=colour, label=label)
        for place, delta in zip(places, deltas, strict=True):
            values = [100 * value for value in delta.values]
            axis.scatter([place] * len(values), values, s=11, color="#333a42", alpha=0.6, linewidth=0, zorder=3)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(methods)), methods)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(DELTA)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    _plain(axis)
    return figure


def dummies_figure(parts: Sequence[PartOutcomes]) -> "Figure":
    """Table 4(a): what DGR adds by number of tasks, a line per number of dummies; small marks are seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axis, part in zip(axes, parts, strict=True):
        sizes = list(range(1, len(part.part.tasks) + 1))
        axis.axhline(0, color="black", linewidth=0.8)
        for k, count in enumerate(part.part.dummies):
            gains = [part.subset_gain(size, count) for size in sizes]
            places = [size + 0.07 * (k - (len(part.part.dummies) - 1) / 2) for size in sizes]
            axis.plot(places, [100 * gain.mean for gain in gains], "o-", color=COLOURS[k], label=f"d = {count}")
            for place, gain in zip(places, gains, strict=True):
                values = [100 * value for value in gain.values]
                axis.scatter([place] * len(values), values, s=10, color=COLOURS[k], alpha=0.5, linewidth=0)
        axis.set_xticks(sizes)
        axis.set_xlabel("number of tasks")
        axis.set_title(part.part.title, fontsize=10.5, loc="left")
        axis.grid(axis="y", alpha=0.25)
        _plain(axis)
    axes[0].set_ylabel("gain over Vanilla, points")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def _draw_gains(axis: "Axes", part: PartOutcomes) -> None:
    """An arrow per method from its base to + DGR, the seeds as dots."""
    for y, method in enumerate(part.pairs):
        base, new = part.delta(method), part.delta(added(method))
        gain = part.gain(added(method), method)
        colour = BETTER if gain.mean > 0 else WORSE
        for delta, tint in ((base, BASE), (new, colour)):
            values = [100 * value for value in delta.values]
            axis.scatter(values, [y] * len(values), s=9, color=tint, alpha=0.45, linewidth=0)
        axis.plot([100 * base.mean, 100 * new.mean], [y, y], color=colour, linewidth=2, alpha=0.7)
        axis.scatter(100 * base.mean, y, s=44, color="white", edgecolor=BASE, linewidth=1.8, zorder=3)
        axis.scatter(100 * new.mean, y, s=44, color=colour, zorder=4)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(part.pairs)), part.pairs)
    axis.set_ylim(len(part.pairs) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_title(part.part.title, fontsize=10.5, loc="left")
    axis.set_xlabel(DELTA, fontsize=9.5)
    axis.grid(axis="x", alpha=0.25)
    _plain(axis)


def _plain(axis: "Axes") -> None:
    axis.spines[["top", "right"]].set_visible(False)
