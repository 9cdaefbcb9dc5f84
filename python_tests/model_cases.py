"""Rows for the tests of networks: every entry of MODELS, tiny, with the inputs that it takes."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from mtl_ext.data import Task
from mtl_ext.models import MODELS

BATCH = 3
CLASSES = Task("kind", "classes", 4, functional.cross_entropy, ())
PIXELS = Task("seg", "pixels", 3, functional.cross_entropy, ())
DEPTH = Task("depth", "pixels", 1, functional.l1_loss, ())
VALUES = Task("mean", "values", 2, functional.mse_loss, ())
MIXED = (CLASSES, PIXELS, VALUES)
FLAT = (CLASSES, VALUES)
# Options that only make a network small.
SHRINKING = ("width", "rates", "num_heads", "head_width")


@dataclass(frozen=True)
class ModelCase:
    """A network and its inputs.

    Attributes:
        model: name in MODELS.
        shape: of one input.
        options: of the network.
        tasks: what it is built for.
        own: every task has inputs of its own.
    """

    model: str
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = MIXED
    own: bool = False

    @property
    def id(self) -> str:
        changed = [f"{name}={value}" for name, value in self.options.items() if name not in SHRINKING]
        return "-".join([self.model, *changed, *(["own"] if self.own else [])])

    def make(self, dtype=torch.float32):
        torch.manual_seed(0)
        return MODELS[self.model](self.tasks, **self.options).to(dtype)

    def inputs(self, dtype=torch.float32):
        draw = partial(torch.randn, BATCH, *self.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        return {task.name: draw() for task in self.tasks} if self.own else draw()


TINY = {"width": 4, "rates": (1, 2, 3)}
TINY_SWIN = {"width": 8, "depths": (2, 2), "num_heads": (1, 2), "head_width": 4, "rates": (1, 2)}
CASES = [
    ModelCase("deeplab", (3, 32, 48), {**TINY, "depth": 18}, (PIXELS, DEPTH)),
    ModelCase("half_shared", (3, 64, 64), TINY),
    ModelCase("half_shared", (3, 32, 32), {**TINY, "shared_blocks": 1, "dilated": True}, own=True),
    ModelCase("half_shared", (3, 64, 64), {**TINY, "shared_blocks": 5}),
    ModelCase("mlp", (7,), {"in_features": 7, "width": 8}, FLAT),
    ModelCase("mlp", (5, 7), {"in_features": 7, "width": 8, "rows": True}, FLAT),
    ModelCase("mtan", (3, 32, 32), {**TINY, "depth": 18}),
    ModelCase("mtan", (3, 64, 64), {**TINY, "dilated": False}),
    ModelCase("resnet_fpn", (3, 64, 64), {"width": 4}),
    ModelCase("resnet_split", (2, 64, 64), {**TINY, "depth": 34, "in_channels": 2}),
    ModelCase("resnet_split", (3, 47, 33), {**TINY, "hidden": 0}, FLAT, own=True),
    ModelCase("small_conv", (1, 12, 12), {"size": 12}),
    ModelCase("small_dense", (3, 24, 16), {"width": 8, "stride": 8}),
    ModelCase("small_dense", (3, 16, 24), {"width": 8}, own=True),
    ModelCase("swin_split", (3, 32, 48), {**TINY_SWIN, "window": 4}),
    ModelCase("swin_split", (2, 29, 21), {**TINY_SWIN, "window": 3, "patch": 2, "in_channels": 2}, FLAT, own=True),
    ModelCase("transfer", (1, 12, 12), {"model": "small_conv", "model_options": {"size": 12}}),
    ModelCase("vgg16", (3, 64, 64), {"width": 4}, FLAT),
    ModelCase("vgg16", (3, 64, 64), {"width": 4, "task_norm": True}, FLAT, own=True),
]
