"""PTA: several decoders per task."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ext.methods.base import check_range
from mtl_ext.models.heads import fresh_copy


class PTA(nn.Module):
    """Pseudo-task augmentation (Meyerson & Miikkulainen 2018): M decoders of one task, trained together.

    Takes the place of a task's head. Its forward pass is that of the first decoder, the head itself: that one predicts;
    the task's loss is the mean over all. In one's own loop::

        model.heads[task] = PTA(model.head(task))  # before the optimizer is built
        z = model.features(x)
        losses = {task: model.head(task).loss(z, lambda out: loss_of[task](out, y[task])) for task in model.tasks}

    The decoders differ by their initialisation alone, as in the paper's variant of independent ones.

    Args:
        head: the first decoder.
        decoders: M, at least 1.
        seed: of the others' parameters, drawn on the CPU. None draws from torch's global generator.

    Raises:
        TypeError: a layer of the head has no ``reset_parameters``.
        ValueError: ``decoders`` is below 1.
    """

    def __init__(self, head: nn.Module, *, decoders: int = 3, seed: int | None = None) -> None:
        super().__init__()
        check_range("decoders", decoders, 1)
        device = next((param.device for param in head.parameters()), torch.device("cpu"))
        source = deepcopy(head).cpu()
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the devices, too
            others = [fresh_copy(source).to(device) for _ in range(decoders - 1)]
        self.decoders = nn.ModuleList([head, *others])

    def forward(self, z: Any) -> Tensor:
        """The prediction: the first decoder's output for what heads read."""
        out: Tensor = self.decoders[0](z)
        return out

    def outputs(self, z: Any) -> list[Tensor]:
        """Every decoder's output for what heads read."""
        return [decoder(z) for decoder in self.decoders]

    def loss(self, z: Any, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of the decoders' losses.

        Args:
            z: what heads read.
            loss: output -> scalar, with the target in it.
        """
        return torch.stack([loss(out) for out in self.outputs(z)]).mean()


def decoder_outputs(head: nn.Module, z: Any) -> list[Tensor]:
    """What a task's loss is the mean over: the outputs of a PTA's decoders, or a plain head's one output."""
    return head.outputs(z) if isinstance(head, PTA) else [head(z)]
