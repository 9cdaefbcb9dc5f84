"""Figures of results. matplotlib is imported where it is used: the package works without it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart by colour-blind readers too. A method keeps its colour at every level.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
# Changes beyond this are drawn in the strongest colour; the numbers are printed on the cells.
STRONGEST = 0.3


def comparison_figure(
    changes: Mapping[str, Mapping[str, float]],
    step_times: Mapping[str, float],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    single: Mapping[str, Sequence[float]],
    metrics: Mapping[str, str],
) -> "Figure":
    """Methods against single-task training: a map of changes, the cost of a step, and training curves.

    Args:
        changes: label -> task -> relative change against single-task training, positive where better. A label is a
            method's name, followed by a level in brackets where it has one.
        step_times: label -> time of a training step relative to equal weighting.
        curves: label -> task -> metric after each epoch.
        single: task -> metric after each epoch of the single-task network.
        metrics: task -> name of its metric.
    """
    from matplotlib.figure import Figure

    colours = _colours(list(changes))
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1.0), hspace=0.04, squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(2.4, 1.0), squeeze=False)[0]
    _draw_changes(left, changes)
    _draw_step_times(right, step_times, colours)
    axes = bottom.subplots(1, len(single), squeeze=False)[0]
    for axis, (task, values) in zip(axes, single.items(), strict=True):
        _draw_curves(axis, {label: curves[label][task] for label in curves}, values, colours)
        axis.set_title(f"{task}: {metrics[task]} on the test split", fontsize=10, loc="left")
    handles, labels = axes[0].get_legend_handles_labels()
    bottom.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _colours(labels: Sequence[str]) -> dict[str, str]:
    methods = list(dict.fromkeys(_method(label) for label in labels))
    return {label: COLOURS[methods.index(_method(label)) % len(COLOURS)] for label in labels}


def _method(label: str) -> str:
    return label.partition(" (")[0]


def _is_feature_level(label: str) -> bool:
    return label.endswith("(feature)")


def _draw_changes(axis: "Axes", changes: Mapping[str, Mapping[str, float]]) -> None:
    """A cell per method and task, blue where better and red where worse, with Delta_MTL as the last column."""
    tasks = list(next(iter(changes.values())))
    rows = [[*row.values(), sum(row.values()) / len(row)] for row in changes.values()]
    axis.imshow(rows, cmap="RdBu", vmin=-STRONGEST, vmax=STRONGEST, aspect="auto")
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            colour = "white" if abs(value) > 0.7 * STRONGEST else "black"
            weight = "bold" if x == len(tasks) else "normal"
            axis.text(x, y, f"{100 * value:+.1f}", ha="center", va="center", color=colour, weight=weight, fontsize=10)
    axis.axvline(len(tasks) - 0.5, color="white", linewidth=6)
    axis.set_xticks(range(len(tasks) + 1), [*tasks, r"$\Delta_{MTL}$"])
    axis.set_yticks(range(len(rows)), list(changes))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title("Change against single-task training, % (blue: better)", fontsize=11, loc="left")


def _draw_step_times(axis: "Axes", step_times: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """A bar per method, beside its row of the map; hatched at feature level."""
    rows = range(len(step_times))
    for y, (label, value) in zip(rows, step_times.items(), strict=True):
        hatch = "///" if _is_feature_level(label) else None
        axis.barh(y, value, height=0.6, color=colours[label], edgecolor="white", hatch=hatch)
        axis.text(value, y, f" {value:.2f}", va="center", fontsize=10)
    axis.set_yticks(rows, [""] * len(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.margins(x=0.15)
    axis.set_title("Time of a training step, relative to EW", fontsize=11, loc="left")
    axis.tick_params(length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _draw_curves(
    axis: "Axes", curves: Mapping[str, Sequence[float]], single: Sequence[float], colours: Mapping[str, str]
) -> None:
    """One task's metric after each epoch."""
    epochs = range(1, len(single) + 1)
    axis.plot(epochs, single, color="black", linestyle="--", linewidth=1.8, label="single task", zorder=3)
    for label, values in curves.items():
        style = ":" if _is_feature_level(label) else "-"
        axis.plot(epochs, values, color=colours[label], linestyle=style, linewidth=1.8, label=label)
    axis.set_xticks(list(epochs))
    axis.set_xlabel("epoch")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
