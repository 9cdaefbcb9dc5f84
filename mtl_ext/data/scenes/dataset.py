"""The rendered scenes as a data set in memory: seven dense tasks on one image."""

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mtl_ext.data.cache import cached_arrays
from mtl_ext.data.extra_tasks import pseudo_tasks
from mtl_ext.data.processes import available_cpus, map_in_processes
from mtl_ext.data.scenes.foreign import (
    FOREIGN_LOOK,
    FOREIGN_SEED,
    FOREIGN_SIZE,
    foreign_labels,
    train_foreign_network,
)
from mtl_ext.data.scenes.render import VERSION, SceneOptions, render_scene
from mtl_ext.data.scenes.scene import CLASSES, Scene
from mtl_ext.data.scenes.tasks import TASKS
from mtl_ext.data.task import Batch, MemorySplit, MultiTaskData

# Where each split begins in the series of scenes: a larger split holds the smaller one, and none holds another's.
FIRST = {"train": 0, "test": 10**9, "val": 2 * 10**9}
# An object counts as occluded from this share on (UOAIS).
OCCLUDED = 0.05
# Pixels from which on several processes are worth starting.
LARGE = 300 * 96 * 128


class SceneSplit(MemorySplit):
    """Scenes in memory as bytes and halves; batches are float32 and, for classes, int64."""

    def batch(self, index: Tensor) -> Batch:
        """The samples of an index [B] int64."""
        targets = {name: target[index] for name, target in self.targets.items()}
        converted = {name: target.long() if target.dim() == 3 else target.float() for name, target in targets.items()}
        return Batch(self.inputs[index].float() / 255.0, converted)


def scenes(
    train_size: int = 1000,
    test_size: int = 200,
    val_size: int = 0,
    height: int = 96,
    width: int = 128,
    seed: int = 0,
    objects: int = SceneOptions.objects,
    piles: int = SceneOptions.piles,
    texture: float = SceneOptions.texture,
    tilt: float = SceneOptions.tilt,
    pseudo_labels: bool = False,
    workers: int | None = None,
) -> MultiTaskData:
    """Indoor scenes with seven dense tasks whose labels are exact and complete.

    What is rendered once is kept in :func:`mtl_ext.files.cache_folder`, a file per split. Splits share no scene, and a
    split's first scenes do not depend on its size.

    Args:
        train_size: number of training scenes.
        test_size: number of test scenes.
        val_size: number of validation scenes; 0 makes no such split.
        height: pixels, at least 8.
        width: pixels, at least 8.
        seed: of all splits.
        objects: see :class:`~mtl_ext.data.scenes.SceneOptions`.
        piles: see :class:`~mtl_ext.data.scenes.SceneOptions`.
        texture: see :class:`~mtl_ext.data.scenes.SceneOptions`.
        tilt: see :class:`~mtl_ext.data.scenes.SceneOptions`.
        pseudo_labels: whether to add ``pseudo_segmentation``, ``pseudo_class`` and ``pseudo_tokens`` to the training
            scenes: the noisy labels of a small network that has learned on scenes of another look (without texture,
            with other cameras). It is trained once, in seconds.
        workers: processes that render; None means one per CPU where there is much to render. Scripts that start
            processes need ``if __name__ == "__main__":``.

    Returns:
        Inputs [B, 3, H, W] float32 in [0, 1]. Targets: ``semantics`` [B, H, W] int64 (index into CLASSES), ``parts``
        [B, H, W] int64 (0 none, 1 body, 2 top), ``depth`` [B, 1, H, W] float32 (metres, known everywhere, rounded to
        half precision), ``normals`` [B, 3, H, W] float32 (unit vectors in camera coordinates, rounded likewise), and,
        as 0 or 1 in [B, 1, H, W] float32, ``edges``, ``saliency`` and ``occlusion`` (the visible pixels of objects of
        which at least 5 % are hidden).

    Raises:
        ValueError: an argument out of range.
        RuntimeError: a rendering process ended before its work was done.
    """
    for name, size, least in (("train_size", train_size, 1), ("test_size", test_size, 1), ("val_size", val_size, 0)):
        if size < least:
            raise ValueError(f"{name} is {size}, expected at least {least}")
    options = SceneOptions(objects, piles, texture, tilt)

    def split(name: str, size: int) -> SceneSplit:
        return SeriesPart(FIRST[name], size, seed, height, width, options).load(name, workers)

    val = split("val", val_size) if val_size else None
    data = MultiTaskData(TASKS, split("train", train_size), split("test", test_size), val)
    return with_foreign_labels(data, SeriesPart(0, train_size, seed, height, width, options)) if pseudo_labels else data


def with_foreign_labels(data: MultiTaskData, part: "SeriesPart") -> MultiTaskData:
    """The data set with the pseudo labels of a network that has learned on scenes of another look.

    Args:
        data: scenes.
        part: what its training split is made of.
    """
    train = data.train
    assert isinstance(train, SceneSplit)

    def label() -> dict[str, np.ndarray]:
        look = SceneOptions(**FOREIGN_LOOK)  # type: ignore[arg-type]
        foreign = replace(part, size=FOREIGN_SIZE, seed=part.seed + FOREIGN_SEED, options=look)
        scenes = foreign.load("foreign", None).batch(torch.arange(FOREIGN_SIZE))
        assert isinstance(scenes.inputs, Tensor)
        network = train_foreign_network(scenes.inputs, scenes.targets["semantics"])
        found = foreign_labels(network, train.inputs.float() / 255)
        return {name: target.numpy() for name, target in found.items()}

    labels = cached_arrays(f"foreign-{part.digest}", label)
    targets = {name: torch.from_numpy(array) for name, array in labels.items()}
    tasks = pseudo_tasks(len(CLASSES), len(CLASSES))
    return replace(data, train=replace(train, targets={**train.targets, **targets}), tasks=data.tasks + tasks)


@dataclass(frozen=True)
class SeriesPart:
    """Some scenes in a row: all that decides their bits."""

    first: int
    size: int
    seed: int
    height: int
    width: int
    options: SceneOptions

    @property
    def digest(self) -> str:
        """A name for it in the cache."""
        description = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(description.encode()).hexdigest()[:20]

    def load(self, name: str, workers: int | None) -> SceneSplit:
        """The scenes from the cache, or rendered and put there."""
        arrays = cached_arrays(f"scenes-{self.digest}", partial(self.render, name, workers), self.check)
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return SceneSplit(tensors.pop("rgb"), tensors)

    def render(self, name: str, workers: int | None) -> dict[str, np.ndarray]:
        """Renders the scenes, in processes where that pays, and stacks their arrays."""
        if workers is None:
            workers = available_cpus() if self.size * self.height * self.width >= LARGE else 1
        job = partial(_arrays_of, self)
        indices = range(self.first, self.first + self.size)
        rendered = list(_with_bar(map_in_processes(job, indices, workers), f"rendering {name} scenes", self.size))
        return {key: np.stack([arrays[key] for arrays in rendered]) for key in rendered[0]}

    def check(self, arrays: dict[str, np.ndarray]) -> None:
        """Looks whether arrays from a file are those of this part.

        Raises:
            KeyError: one is missing.
            ValueError: the number or the size of the images is not that of this part.
        """
        for task in TASKS:
            arrays[task.name]
        if arrays["rgb"].shape != (self.size, 3, self.height, self.width):
            raise ValueError(f"rgb has shape {arrays['rgb'].shape}")


def _arrays_of(part: SeriesPart, index: int) -> dict[str, np.ndarray]:
    """One scene's input and targets: values in [C, H, W], classes in [H, W]."""
    scene: Scene = render_scene(part.seed, index, part.height, part.width, part.options)
    occluded = np.isin(scene.instances, 1 + np.flatnonzero(scene.occlusion >= OCCLUDED))
    return {
        "rgb": np.rint(scene.rgb * 255).astype(np.uint8).transpose(2, 0, 1),
        "semantics": scene.semantics.astype(np.uint8),
        "parts": scene.parts.astype(np.uint8),
        "depth": scene.depth[None].astype(np.float16),
        "normals": scene.normals.astype(np.float16).transpose(2, 0, 1),
        "edges": scene.edges[None].astype(np.uint8),
        "saliency": scene.saliency[None].astype(np.uint8),
        "occlusion": occluded[None].astype(np.uint8),
    }


def _with_bar(results: Iterable[dict[str, np.ndarray]], label: str, total: int) -> Iterable[dict[str, np.ndarray]]:
    """The same results, with a progress bar on a terminal where rich is installed."""
    if not sys.stderr.isatty():
        return results
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return results
    return track(results, label, total, console=Console(stderr=True), transient=True)
