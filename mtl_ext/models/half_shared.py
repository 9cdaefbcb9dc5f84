"""Half-shared networks: the first blocks for all tasks, the others once per task."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from torch import nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import Branched
from mtl_ext.models.deeplab import RATES, deeplab_heads
from mtl_ext.models.heads import sides_multiple
from mtl_ext.models.resnet import ResNet


def half_shared(
    tasks: Sequence[Task],
    shared_blocks: int = 3,
    depth: int = 18,
    width: int = 64,
    dilated: bool = False,
    in_channels: int = 3,
    weights: str | Path | None = None,
    hidden: int = 512,
    rates: Sequence[int] = RATES,
    dropout: float = 0.5,
) -> Branched:
    """A ResNet whose first blocks are shared while each task has its own copy of the rest, and its head.

    Args:
        tasks: K tasks.
        shared_blocks: of the five blocks (1: stem with pooling, 2 to 5: stages), how many are shared. 5 is the
            shared-bottom network. 0 is K single-task networks side by side: nothing is shared, the features are the
            inputs, and only methods that weigh losses apply.
        depth: see `ResNet`, as the next four.
        width: channels of the stem; dense heads have four times as many.
        dilated: keep the resolution of the last two stages.
        in_channels: channels of the inputs.
        weights: file to begin from; every copy begins with it.
        hidden: see `resnet_split`, as the last two.
        rates: dilations of the dense heads.
        dropout: of the dense heads.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, the weights do not fit, or a task's kind is unknown.
    """
    encoder = ResNet(depth, in_channels, width, dilated, weights)
    heads = deeplab_heads(tasks, encoder, 4 * width, hidden, rates, dropout)
    return branch_off(encoder.blocks(), shared_blocks, heads, sides_multiple(tasks, encoder.strides[-1]))


def branch_off(
    blocks: Sequence[nn.Module], shared_blocks: int, heads: Mapping[str, nn.Module], multiple: int = 1
) -> Branched:
    """Shares the first of an encoder's blocks and copies the others, as they are, for every task.

    Args:
        blocks: the encoder, to be run in turn.
        shared_blocks: how many are shared, from 0 to all.
        heads: see `Branched`.
        multiple: see `Branched`.

    Raises:
        ValueError: there are not so many blocks.
    """
    if not isinstance(shared_blocks, int) or not 0 <= shared_blocks <= len(blocks):
        raise ValueError(f"shared_blocks is {shared_blocks}, expected a whole number from 0 to {len(blocks)}")
    branches = {task: deepcopy(nn.Sequential(*blocks[shared_blocks:])) for task in heads}
    return Branched(nn.Sequential(*blocks[:shared_blocks]), branches, heads, multiple)
