"""Figures of the IAL study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl_ext.plots import COLOURS
from mtl_ext.studies.ial.outcomes import Outcomes
from mtl_ext.studies.ial.panels import NO_CLASS, SHOWN, Panels
from mtl_ext.studies.ial.protocol import AUXILIARY, OURS, PSEUDO, fixed_head, row_name
from mtl_ext.studies.ial.training import encoder_weight, mean_curve
from mtl_ext.studies.spread import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Settings and IAL in colours that colour-blind readers tell apart.
NORMAL_COLOUR, AUXILIARY_COLOUR, OUR_COLOUR = "#6a737d", COLOURS[0], COLOURS[3]


def overview_figure(deltas: Mapping[str, Spread]) -> "Figure":
    """Delta_MTL of every row, best first: the mean over seeds and each seed."""
    from matplotlib.figure import Figure

    order = sorted(deltas, key=lambda name: deltas[name].mean)
    figure = Figure(figsize=(10, 1.1 + 0.27 * len(order)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="black", linewidth=1)
    for y, name in enumerate(order):
        seeds = [100 * value for value in deltas[name].values]
        axis.plot([min(seeds), max(seeds)], [y, y], color=_colour(name), linewidth=1.5, alpha=0.5)
        axis.scatter(seeds, [y] * len(seeds), s=12, color=_colour(name), alpha=0.6)
        axis.scatter(100 * deltas[name].mean, y, s=58, color=_colour(name), zorder=3)
    axis.set_yticks(range(len(order)), order)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel("mean change against single tasks, % (right: better)")
    for colour, label in ((NORMAL_COLOUR, "Normal"), (AUXILIARY_COLOUR, "Auxiliary"), (OUR_COLOUR, "IAL")):
        axis.scatter([], [], s=50, color=colour, label=label)
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.25)
    _plain(axis)
    return figure


def noise_figure(values: Mapping[str, Mapping[str, Spread]]) -> "Figure":
    """Delta_MTL of rows without noisy tasks, with them, and with token labels too.

    Args:
        values: row -> kind -> Delta_MTL; the kinds are drawn in their order.
    """
    from matplotlib.figure import Figure

    order = sorted(values, key=lambda name: next(iter(values[name].values())).mean)
    figure = Figure(figsize=(10, 1.3 + 0.34 * len(order)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="black", linewidth=1)
    kinds = list(dict.fromkeys(kind for row in values.values() for kind in row))
    for y, name in enumerate(order):
        means = [100 * value.mean for value in values[name].values()]
        axis.plot([min(means), max(means)], [y, y], color="#b5bcc4", linewidth=2, zorder=1)
    for kind, marker, colour in zip(kinds, "osD", (NORMAL_COLOUR, COLOURS[3], COLOURS[1]), strict=False):
        for y, name in enumerate(order):
            if kind in values[name]:
                value = values[name][kind]
                width = 0.0 if value.deviation != value.deviation else 100 * value.deviation
                axis.errorbar(100 * value.mean, y, xerr=width, color=colour, marker=marker, markersize=7, linewidth=1)
        axis.plot([], [], marker=marker, linestyle="", color=colour, label=kind)
    axis.set_yticks(range(len(order)), order)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel("mean change against single tasks, % (right: better); lines: deviation over seeds")
    axis.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.55 / len(order)), ncols=3)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.25)
    _plain(axis)
    return figure


def training_figure(outcomes: Outcomes, name: str = OURS) -> "Figure":
    """Fig. 14: decoder weights, encoder weights and gradient norms over training, a column per primary task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.1 * len(outcomes.primary) + 0.8, 8.6), layout="constrained")
    grid = figure.subplots(3, len(outcomes.primary), squeeze=False, sharex=True, sharey="row")
    for column, primary in enumerate(outcomes.primary):
        row = row_name(name, primary)
        tasks = [key.removeprefix("sigma/") for key in outcomes.log(row, min(outcomes.runs[row])) if "sigma/" in key]
        for task in tasks:
            line = {"color": _task_colour(outcomes, task), "linewidth": 2.4 if task == primary else 1.4}
            steps, sigma = mean_curve(outcomes, row, f"sigma/{task}")
            weights = np.ones_like(sigma) if task == primary else encoder_weight(sigma)
            grid[0, column].plot(steps, 1 / (2 * sigma**2), label=task, **line)
            grid[1, column].plot(steps, weights, label=task, **line)
            grid[2, column].plot(*mean_curve(outcomes, row, f"norm/{task}"), label=task, **line)
        grid[0, column].set_title(f"{primary} primary", fontsize=10, loc="left")
        grid[2, column].set_xlabel("training step")
    for axis, label in zip(
        grid[:, 0],
        (r"decoder weight $1 / 2\sigma^2$", r"encoder weight $f(\sigma)$", "norm of ∇L at the features"),
        strict=True,
    ):
        axis.set_ylabel(label)
    grid[1, 0].set_ylim(-0.03, 1.05)
    for axis in grid.flat:
        axis.grid(alpha=0.2)
        _plain(axis)
    for axis in grid[2]:
        axis.set_yscale("log")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def broken_figure(outcomes: Outcomes, ablated: str, broken: str) -> "Figure":
    """Fig. 13: sigma of the broken and of the primary task, and the broken one's weight, with and without its head."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, squeeze=False)[0]
    titles = (
        rf"$\sigma$ of {broken} (auxiliary)",
        rf"$\sigma$ of {ablated} (primary)",
        rf"encoder weight $f(\sigma)$ of {broken}",
    )
    for name, colour in ((OURS, COLOURS[0]), (fixed_head(OURS), COLOURS[3])):
        label = "trained head" if name == OURS else "frozen head"
        steps, sigma = mean_curve(outcomes, row_name(name, ablated), f"sigma/{broken}")
        _, own = mean_curve(outcomes, row_name(name, ablated), f"sigma/{ablated}")
        for axis, curve in zip(axes, (sigma, own, encoder_weight(sigma)), strict=True):
            axis.plot(steps, curve, color=colour, linewidth=1.8, label=label)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("training step")
        axis.grid(alpha=0.2)
        _plain(axis)
    axes[0].legend(frameon=False, fontsize=9)
    return figure


def panel_figure(panels: Panels, experiment: str, task: str) -> "Figure":
    """Figs. 3 to 11: image, predictions and truth of a primary task, a row per image."""
    columns = ["image", *[name for name in SHOWN if (experiment, task, name) in panels], "truth"]
    return _pictures([(name, panels[experiment, task, name]) for name in columns])


def worst_figure(panels: Panels, tasks: tuple[str, str]) -> "Figure":
    """Fig. 12: the images on which the first task does worst, with what is said of both."""
    pictures = [("image", panels["worst", tasks[0], "image"])]
    for task in tasks:
        pictures += [
            (f"{task}, {name}", panels["worst", task, column]) for column, name in ((OURS, "IAL"), ("truth", "truth"))
        ]
    return _pictures(pictures)


def _pictures(columns: Sequence[tuple[str, np.ndarray]]) -> "Figure":
    from matplotlib.figure import Figure

    count = len(columns[0][1])
    height, width = columns[0][1].shape[1:3]
    side = 2.3
    figure = Figure(figsize=(side * len(columns), (side * height / width) * count + 0.35), layout="constrained")
    axes = figure.subplots(count, len(columns), squeeze=False)
    for x, (title, pictures) in enumerate(columns):
        limits = _limits(columns, pictures)
        for y in range(count):
            _show(axes[y, x], pictures[y], limits)
        axes[0, x].set_title(title, fontsize=10)
    return figure


def _limits(columns: Sequence[tuple[str, np.ndarray]], like: np.ndarray) -> tuple[float, float]:
    """The range of the last pictures of a kind: the truth's."""
    same = [pictures for _, pictures in columns if pictures.dtype == like.dtype and pictures.ndim == like.ndim]
    values = same[-1].astype(np.float32)
    return float(values.min()), float(np.quantile(values, 0.99))


def _show(axis: "Axes", picture: np.ndarray, limits: tuple[float, float]) -> None:
    axis.set_axis_off()
    if picture.dtype == np.uint8:
        axis.imshow(_coloured(picture), interpolation="nearest")
    elif picture.ndim == 3:
        values = picture.astype(np.float32)
        axis.imshow(np.clip((values + 1) / 2 if values.min() < 0 else values, 0, 1), interpolation="nearest")
    else:
        axis.imshow(picture.astype(np.float32), vmin=limits[0], vmax=limits[1], cmap="viridis", interpolation="nearest")


def _coloured(classes: np.ndarray) -> np.ndarray:
    """Classes [H, W] as colours [H, W, 3]; white where there is none."""
    from matplotlib import colormaps

    table = np.array(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    return np.where((classes == NO_CLASS)[..., None], 1.0, table[classes % len(table)])


def _task_colour(outcomes: Outcomes, task: str) -> str:
    order = [*outcomes.primary, *PSEUDO]
    return COLOURS[order.index(task) % len(COLOURS)] if task in order else "#8a8f96"


def _colour(name: str) -> str:
    if name.startswith(OURS):
        return OUR_COLOUR
    return AUXILIARY_COLOUR if name in AUXILIARY else NORMAL_COLOUR


def _plain(axis: "Axes") -> None:
    axis.spines[["top", "right"]].set_visible(False)
