"""Fully connected networks for inputs without a grid: flat vectors, and sets of rows such as a molecule's atoms."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing
from mtl_ext.models.heads import HeadStyle, classifier, make_heads
from mtl_ext.models.options import check_counts


def mlp(
    tasks: Sequence[Task],
    in_features: int,
    width: int = 64,
    depth: int = 2,
    rows: bool = False,
    hidden: int = 32,
) -> HardSharing:
    """Hard parameter sharing over fully connected layers.

    Args:
        tasks: K tasks of kind "classes" or "values".
        in_features: numbers per input, or per row.
        width: units of the shared layers.
        depth: number of shared layers; with rows, before and again after their sum.
        rows: inputs are sets of rows [B, rows, in_features], see `RowSum`, instead of vectors [B, in_features].
        hidden: units of the heads' hidden layer; 0: one linear layer.

    Raises:
        ValueError: an option has no such value, or a task is of another kind.
    """
    check_counts(in_features=in_features, width=width, depth=depth)
    encoder = _layers(in_features, width, depth)
    if rows:
        encoder = nn.Sequential(RowSum(encoder), *_layers(width, width, depth))
    style = HeadStyle(vector=partial(classifier, hidden=hidden, pool=False))
    return HardSharing(encoder, make_heads(tasks, width, style))


class RowSum(nn.Module):
    """Rows [B, rows, in_features], in any order -> [B, width]: the sum of what a network makes of each (DeepSets).

    Rows of zeros are padding and left out.

    Args:
        network: [..., in_features] -> [..., width].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> Tensor:
        """The sums."""
        present = (rows != 0).any(dim=-1, keepdim=True)
        out: Tensor = (self.network(rows) * present).sum(dim=1)
        return out


def _layers(inputs: int, width: int, depth: int) -> nn.Sequential:
    """Linear layers with rectifiers."""
    layers: list[nn.Module] = []
    for count in [inputs, *[width] * (depth - 1)]:
        layers += [nn.Linear(count, width), nn.ReLU()]
    return nn.Sequential(*layers)
