"""Figures of representations. matplotlib is imported where it is used: the package works without it."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from mtl_ext.plots import COLOURS
from mtl_ext.representation.tsne import Embedding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P")
# Classes in the legend, beyond which it names only some.
SHOWN_CLASSES = 12

Accuracies = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""Method -> task -> classifier -> accuracy in percent of every trial."""


def accuracy_figure(accuracies: Accuracies) -> "Figure":
    """How well simple classifiers do on each method's representation: a panel per task, a line per method.

    Large marks are means over the trials, small ones the trials; the bar behind a method's marks is the spread over the
    classifiers, the shorter the less it matters which one is chosen.

    Args:
        accuracies: of the methods, from top to bottom; all with the same tasks and classifiers.
    """
    from matplotlib.figure import Figure

    tasks = list(next(iter(accuracies.values())))
    figure = Figure(figsize=(1.6 + 3.6 * len(tasks), 1.5 + 0.34 * len(accuracies)), layout="constrained")
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axis, task in zip(axes, tasks, strict=True):
        for y, by_task in enumerate(accuracies.values()):
            _draw_classifiers(axis, y, by_task[task])
        axis.set_title(task, fontsize=11, loc="left")
        axis.set_xlabel("accuracy on the test split, %", fontsize=9.5)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", alpha=0.25)
        axis.margins(x=0.08)
    axes[0].set_yticks(range(len(accuracies)), list(accuracies))
    axes[0].set_ylim(len(accuracies) - 0.4, -0.6)
    classifiers = next(iter(accuracies.values()))[tasks[0]]
    handles = [
        axes[0].plot([], [], MARKERS[k % len(MARKERS)], color=COLOURS[k % len(COLOURS)], label=name)[0]
        for k, name in enumerate(classifiers)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=10)
    return figure


def _draw_classifiers(axis: "Axes", y: int, accuracies: Mapping[str, Sequence[float]]) -> None:
    """One method's marks."""
    means = {name: fmean(values) for name, values in accuracies.items()}
    ends = [min(means.values()), max(means.values())]
    axis.plot(ends, [y, y], color="#D5D9DE", linewidth=7, solid_capstyle="round", zorder=1)
    for k, (name, values) in enumerate(accuracies.items()):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        if len(values) > 1:
            axis.scatter(values, [y] * len(values), s=10, color=colour, alpha=0.5, linewidth=0, zorder=2)
        axis.scatter(means[name], y, s=46, color=colour, marker=marker, edgecolor="white", linewidth=0.8, zorder=3)


def tsne_figure(
    embeddings: Mapping[str, Mapping[str, Embedding]],
    *,
    ordered: Collection[str] = (),
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> "Figure":
    """Representations in the plane, coloured by class: a column per method, a row per task (DGR, Fig. 3b).

    Args:
        embeddings: method -> task -> its samples; all with the same tasks.
        ordered: the tasks whose classes have an order, such as ages: from dark to light.
        class_names: task -> names of its classes, in place of their numbers.
    """
    from matplotlib.figure import Figure

    names = class_names or {}
    tasks = list(next(iter(embeddings.values())))
    figure = Figure(figsize=(1.45 + 3.3 * len(embeddings), 0.4 + 3.3 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), len(embeddings), squeeze=False)
    for row, task in zip(grid, tasks, strict=True):
        count = 1 + max(int(by_task[task].labels.max()) for by_task in embeddings.values())
        labels = list(names.get(task, [str(label) for label in range(count)]))
        colours = _class_colours(max(count, len(labels)), task in ordered)
        for axis, by_task in zip(row, embeddings.values(), strict=True):
            _draw_points(axis, by_task[task], colours)
        row[0].set_ylabel(task, fontsize=11)
        _draw_class_legend(row[-1], labels, colours)
    for axis, method in zip(grid[0], embeddings, strict=True):
        axis.set_title(method, fontsize=11, loc="left")
    return figure


def _class_colours(count: int, ordered: bool) -> list[str]:
    """A colour per class; beyond 20 classes without an order, colours repeat."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if ordered:
        # Without the lightest end, which is hard to see on white.
        return [to_hex(colormaps["viridis"](0.93 * k / max(count - 1, 1))) for k in range(count)]
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [to_hex(palette(k % palette.N)) for k in range(count)]


def _draw_points(axis: "Axes", embedding: Embedding, colours: Sequence[str]) -> None:
    """All classes in one layer, so that none hides another by its number."""
    x, y = embedding.points.numpy().T
    of_points = [colours[label] for label in embedding.labels.tolist()]
    axis.scatter(x, y, s=9, c=of_points, alpha=0.75, linewidth=0)
    axis.set(xticks=[], yticks=[])
    axis.set_box_aspect(1)
    axis.spines[:].set_color("#C4C8CE")


def _draw_class_legend(axis: "Axes", labels: Sequence[str], colours: Sequence[str]) -> None:
    """The classes at the right of the last panel; of many, evenly chosen ones."""
    step = -(-len(labels) // SHOWN_CLASSES)
    handles = [
        axis.plot([], [], "o", color=colours[k], markersize=6, label=labels[k])[0] for k in range(0, len(labels), step)
    ]
    axis.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9, handletextpad=0.2
    )
