"""Figures of the robust study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl_ext.metrics import moving_average
from mtl_ext.studies.robust.outcomes import INDICATORS, Outcomes
from mtl_ext.studies.robust.protocol import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

NAMES = {"gds": "GDS", "gms": "GMS", "fd": "FD (lower = more disentangled)"}
BETTER, NEUTRAL, WORSE = "#1f63b5", "#8a8f96", "#c33b22"
# Share of the run that curves are smoothed over.
WINDOW = 0.1
# Mean changes beyond this have the strongest colour.
STRONGEST = 0.05


def overview_figure(outcomes: Outcomes) -> "Figure":
    """The mean change of every variant, best first: the mean over seeds and each seed."""
    from matplotlib.figure import Figure

    changes = {name: outcomes.mean_change(name) for name in outcomes.present}
    order = sorted(changes, key=lambda name: changes[name].mean)
    figure = Figure(figsize=(11, 0.9 + 0.25 * len(order)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="black", linewidth=1)
    for y, name in enumerate(order):
        seeds = [100 * value for value in changes[name].values]
        colour = _colour(changes[name].mean)
        axis.plot([min(seeds), max(seeds)], [y, y], color=colour, linewidth=1.5, alpha=0.6)
        axis.scatter(seeds, [y] * len(seeds), s=12, color=colour, alpha=0.6)
        face = "white" if outcomes.variants[name].level == "feature" else colour
        axis.scatter(100 * changes[name].mean, y, s=60, color=face, edgecolor=colour, linewidth=1.8, zorder=3)
    axis.set_yticks(range(len(order)), order)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel("mean relative change against the baseline, % (right: better)")
    _plain(axis)
    axis.grid(axis="x", alpha=0.25)
    axis.tick_params(axis="y", length=0)
    return figure


def curves_figure(outcomes: Outcomes, measure: str) -> "Figure":
    """An indicator minus the baseline's at the same step, smoothed, a panel per level; colour: how the variant did."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots(1, 2, squeeze=False)[0]
    for axis, level in zip(axes, ("parameter", "feature"), strict=True):
        names = [name for name in outcomes.present if outcomes.variants[name].level == level]
        key = f"{'feature' if measure == 'fd' else level}_{measure}"
        curves = {name: _difference(outcomes, name, key) for name in names}
        _draw_curves(axis, curves, {name: outcomes.mean_change(name).mean for name in names})
        axis.set_title(f"{NAMES[measure]}, methods on {level}-level gradients", fontsize=10, loc="left")
        axis.set_xlabel("training step")
    axes[0].set_ylabel("difference from the baseline")
    _colour_bar(figure, axes)
    return figure


def ranks_figure(outcomes: Outcomes) -> "Figure":
    """Each variant's place by an indicator against its place by the mean change: does one tell the other?"""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, squeeze=False)[0]
    changes = {name: outcomes.mean_change(name).mean for name in outcomes.present}
    places = _places(changes)
    for axis, measure in zip(axes, INDICATORS, strict=True):
        ends = _places({name: outcomes.indicator(name, "own", measure).mean for name in outcomes.present})
        for name in outcomes.present:
            colour = _colour(changes[name])
            face = "white" if outcomes.variants[name].level == "feature" else colour
            x, y = ends[name], places[name]
            axis.scatter(x, y, s=38, color=face, edgecolor=colour, linewidth=1.5, zorder=3)
            right = x > len(ends) * 0.8
            offset, side = (-6, "right") if right else (6, "left")
            axis.annotate(
                name, (x, y), xytext=(offset, 0), textcoords="offset points", fontsize=7, va="center", ha=side
            )
        axis.set_xlabel("largest first")
        axis.set_title(f"place by {NAMES[measure]}", fontsize=10, loc="left")
        axis.margins(0.06)
        axis.grid(alpha=0.2)
        _plain(axis)
    axes[0].set_ylabel("place by mean change, best first")
    axes[0].invert_yaxis()
    return figure


def correlation_figure(correlations: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Per variant, how parameter- and feature-level quantities move together over training: median and quartiles."""
    from matplotlib.figure import Figure

    names = list(correlations)
    figure = Figure(figsize=(11, 1.3 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, squeeze=False)[0]
    titles = {"cosine": "cosines of pairs of tasks", "norm": "norms of the tasks' gradients (log)"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for y, name in enumerate(reversed(names)):
            values = correlations[name][kind]
            if not values:
                continue
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            axis.plot([low, high], [y, y], color=BETTER, linewidth=2, alpha=0.5)
            axis.scatter(middle, y, s=34, color=BETTER, zorder=3)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_xlim(-1.02, 1.02)
        axis.set_yticks(range(len(names)), list(reversed(names)))
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("correlation of the two levels over training")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", alpha=0.25)
        _plain(axis)
    return figure


def _difference(outcomes: Outcomes, name: str, key: str) -> tuple[list[float], list[float]]:
    """Steps, and the smoothed mean over seeds of the difference from the baseline's curve of the same seed.

    Only where the whole window fits: towards the ends it would shrink, and the curve be rough.
    """
    differences, steps = [], []
    for seed in outcomes.seeds(name):
        ours, base = (outcomes.runs[row][seed].similarity for row in (name, BASELINE))
        steps = [sample["step"] for sample in ours]
        differences.append([a[key] - b[key] for a, b in zip(ours, base, strict=True)])
    smooth = moving_average(np.mean(differences, axis=0).tolist(), WINDOW)
    half = int(WINDOW * len(smooth)) // 2
    return steps[half : len(steps) - half], smooth[half : len(smooth) - half]


def _draw_curves(
    axis: "Axes", curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], changes: Mapping[str, float]
) -> None:
    """Lines with their names at their ends."""
    for name, (steps, values) in curves.items():
        axis.plot(steps, values, color=_colour(changes[name]), linewidth=1.5)
    _plain(axis)
    axis.grid(alpha=0.2)
    if not curves:
        return
    last = max(steps[-1] for steps, _ in curves.values())
    axis.plot([0, last], [0, 0], color="black", linewidth=1, linestyle="--")
    axis.set_xticks([tick for tick in axis.get_xticks() if 0 <= tick <= last])
    axis.set_xlim(0, last * 1.32)
    low, high = axis.get_ylim()
    gap = (high - low) * 0.042
    order = sorted(curves, key=lambda name: curves[name][1][-1])
    heights = _spaced([curves[name][1][-1] for name in order], gap)
    for name, height in zip(order, heights, strict=True):
        steps, values = curves[name]
        colour = _colour(changes[name])
        axis.plot([steps[-1], last * 1.035], [values[-1], height], color=colour, linewidth=0.6, alpha=0.7)
        axis.text(last * 1.045, height, name, color=colour, fontsize=8, va="center")


def _spaced(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved apart to at least a gap: those too close form a group, spread around its mean."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _spread(groups[-2], gap)[-1] + gap > _spread(groups[-1], gap)[0]:
            last = groups.pop()
            groups[-1] += last
    return [height for group in groups for height in _spread(group, gap)]


def _spread(group: Sequence[float], gap: float) -> list[float]:
    first = sum(group) / len(group) - gap * (len(group) - 1) / 2
    return [first + gap * place for place in range(len(group))]


def _places(values: Mapping[str, float]) -> dict[str, int]:
    """Name -> place, 1 for the largest value."""
    order = sorted(values, key=lambda name: -values[name])
    return {name: place for place, name in enumerate(order, 1)}


def _map() -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("change", [WORSE, NEUTRAL, BETTER])


def _colour(change: float) -> tuple[float, float, float, float]:
    """Red for worse than the baseline, grey for alike, blue for better."""
    share = 0.5 if change != change else 0.5 + 0.5 * max(-1.0, min(1.0, change / STRONGEST))
    return _map()(share)


def _colour_bar(figure: "Figure", axes: "np.ndarray") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(-100 * STRONGEST, 100 * STRONGEST), _map())
    bar = figure.colorbar(mappable, ax=list(axes), location="bottom", shrink=0.35, aspect=40, extend="both")
    bar.set_label("colour: the variant's mean change on the test split, %", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _plain(axis: "Axes") -> None:
    axis.spines[["top", "right"]].set_visible(False)
