"""Predictions on fixed test images, and the images on which impartial training does worst."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data import MultiTaskData, Task
from mtl_ext.files import write_atomically
from mtl_ext.models import Architecture
from mtl_ext.studies.ial.protocol import OURS, row_name
from mtl_ext.studies.runs import StudyRun
from mtl_ext.trainers.build import build_data, build_model, choose_tasks

FILE = "panels.npz"
# The paper's columns between image and truth.
SHOWN = ("OL-AUX", "Auto-λ", OURS)
WORST = 3
# In pictures of classes: no label.
NO_CLASS = 255

# (experiment or "worst", task, column) -> pictures [n, H, W] or [n, H, W, 3].
Panels = Mapping[tuple[str, str, str], np.ndarray]


def draw_panels(
    out: Path, runs: Sequence[StudyRun], primary: Sequence[str], ids: Sequence[int], failing: tuple[str, str] | None
) -> None:
    """Writes what the networks of seed 0 predict into the study's folder, where that has not been done.

    Args:
        out: the study's folder.
        runs: those of the experiments ``plain`` and ``noisy``, all carried out.
        primary: the tasks that are primary in turn.
        ids: places of the test images, in ascending order.
        failing: primary and auxiliary task for the images on which impartial training does worst; None: none.
    """
    if (out / FILE).exists():
        return
    found: dict[str, np.ndarray] = {}
    by_name = {(run.experiment, run.row): run for run in runs if run.config.seed == 0}
    for experiment in dict.fromkeys(run.experiment for run in runs):
        for task in primary:
            rows = {name: by_name.get((experiment, row_name(name, task))) for name in SHOWN}
            present = {name: run for name, run in rows.items() if run is not None and _model(out, run).exists()}
            found |= {
                _key(experiment, task, name): array for name, array in _predictions(out, present, task, ids).items()
            }
    run = by_name.get(("plain", row_name(OURS, failing[0]))) if failing else None
    if failing and run is not None and _model(out, run).exists():
        found |= _failures(out, run, failing)
    write_atomically(out / FILE, lambda file: np.savez_compressed(file, allow_pickle=False, **found))


def read_panels(out: Path) -> Panels:
    """What `draw_panels` has written; empty where it has not."""
    path = out / FILE
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {_parts(name): arrays[name] for name in arrays.files}


def _predictions(out: Path, runs: Mapping[str, StudyRun], name: str, ids: Sequence[int]) -> dict[str, np.ndarray]:
    """Column -> pictures of a task."""
    columns: dict[str, np.ndarray] = {}
    for row, run in runs.items():
        model, data, task = _trained(out, run, name)
        samples = [sample for sample in _samples(data, max(ids)) if sample[0] in ids]
        columns[row] = np.stack([_outcome(model, task, image, target) for _, image, target in _of(samples, name)])
        if "truth" not in columns:
            columns["image"] = np.stack([_photograph(image) for _, image, _ in _of(samples, name)])
            columns["truth"] = np.stack([_truth(target) for _, _, target in _of(samples, name)])
    return columns


def _failures(out: Path, run: StudyRun, tasks: tuple[str, str]) -> dict[str, np.ndarray]:
    """The test images with the largest loss of the first task, and what the network says of both tasks."""
    model, data, first = _trained(out, run, tasks[0])
    second = next(task for task in choose_tasks(run.config, data) if task.name == tasks[1])
    losses = []
    for place, image, targets in _samples(data, len(data.test) - 1):
        with torch.no_grad():
            losses.append((float(first.loss(model(image)[first.name], targets[first.name])), place))
    worst = {place for _, place in sorted(losses)[-WORST:]}
    found = []
    for place, image, targets in _samples(data, max(worst)):
        if place in worst:
            entry = {_key("worst", first.name, "image"): _photograph(image)}
            for task in (first, second):
                target = targets[task.name]
                entry[_key("worst", task.name, OURS)] = _outcome(model, task, image, target)
                entry[_key("worst", task.name, "truth")] = _truth(target)
            found.append(entry)
    return {name: np.stack([entry[name] for entry in found]) for name in found[0]}


def _trained(out: Path, run: StudyRun, name: str) -> tuple[Architecture, MultiTaskData, Task]:
    """A run's network, its data and one of its tasks."""
    data = build_data(run.config)
    tasks = choose_tasks(run.config, data)
    model = build_model(run.config, tasks).cpu()
    model.load_state_dict(torch.load(_model(out, run), weights_only=True, map_location="cpu"))
    return model.eval(), data, next(task for task in tasks if task.name == name)


def _samples(data: MultiTaskData, last: int) -> Iterator[tuple[int, Tensor, Mapping[str, Tensor]]]:
    """The test samples up to a place: place, image [1, C, H, W] and targets [1, ...]."""
    for place, batch in enumerate(data.test.batches(1)):
        if place > last:
            return
        assert isinstance(batch.inputs, Tensor)
        yield place, batch.inputs, batch.targets


def _of(samples: Sequence[tuple[int, Tensor, Mapping[str, Tensor]]], name: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    return ((place, image, targets[name]) for place, image, targets in samples)


@torch.no_grad()
def _outcome(model: Architecture, task: Task, image: Tensor, target: Tensor) -> np.ndarray:
    """A prediction as a picture: classes [H, W] uint8, values [H, W] or directions [H, W, 3] float16."""
    output = model(image)[task.name]
    if target.dim() == 3:
        classes: np.ndarray = output[0].argmax(dim=0).numpy().astype(np.uint8)
        return classes
    if target.shape[1] > 1:
        return _picture(functional.normalize(output, dim=1))
    marks = torch.isin(target, torch.tensor([0.0, 1.0, float(NO_CLASS)]))
    return _picture(output.sigmoid() if bool(marks.all()) else output)


def _truth(target: Tensor) -> np.ndarray:
    """A target as a picture, as in `_outcome`."""
    if target.dim() == 3:
        return torch.where(target[0] < 0, NO_CLASS, target[0]).numpy().astype(np.uint8)
    return _picture(target)


def _picture(values: Tensor) -> np.ndarray:
    array: np.ndarray = values[0].permute(1, 2, 0).numpy().astype(np.float16)
    return array[..., 0] if array.shape[-1] == 1 else array


def _photograph(image: Tensor) -> np.ndarray:
    """An input [1, 3, H, W], whatever its normalisation, as [H, W, 3] in [0, 1]."""
    low, high = image.amin(), image.amax()
    return _picture((image - low) / (high - low).clamp(min=1e-6))


def _model(out: Path, run: StudyRun) -> Path:
    return out / run.folder / "model.pt"


def _key(experiment: str, task: str, column: str) -> str:
    return f"{experiment}|{task}|{column}"


def _parts(name: str) -> tuple[str, str, str]:
    experiment, task, column = name.split("|")
    return experiment, task, column
