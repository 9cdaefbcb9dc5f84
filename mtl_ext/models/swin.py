"""Swin Transformer (Liu et al. 2021), an encoder of attention in shifted windows, and hard sharing over one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_ext.data import Task
from mtl_ext.methods.base import check_range
from mtl_ext.models.architecture import HardSharing
from mtl_ext.models.deeplab import RATES, deeplab_heads
from mtl_ext.models.heads import sides_multiple
from mtl_ext.models.options import check_counts
from mtl_ext.models.weights import load_weights

# Units of a block's hidden layer, as a multiple of its channels.
EXPANSION = 4
# Deviation of the normal distribution that linear layers and position biases are drawn from.
DEVIATION = 0.02


def swin_split(
    tasks: Sequence[Task],
    width: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    patch: int = 4,
    drop_path: float = 0.2,
    in_channels: int = 3,
    weights: str | Path | None = None,
    hidden: int = 512,
    head_width: int = 256,
    rates: Sequence[int] = RATES,
    dropout: float = 0.5,
) -> HardSharing:
    """One Swin Transformer for all tasks, with a classifier or a DeepLabV3 head for each; by default Swin-T.

    Small inputs want small windows and patches: for 32 x 32 pixels two stages with ``patch=2`` and ``window=4``, say.

    Args:
        tasks: K tasks; one gives the single-task network.
        width: see `Swin`, as the next seven.
        depths: blocks of every stage.
        num_heads: attention heads of every stage.
        window: side of the windows.
        patch: side of the patches.
        drop_path: of the last block.
        in_channels: channels of the inputs.
        weights: file to begin from.
        hidden: units of the hidden layer in the heads of class and value tasks; 0: one linear layer.
        head_width: channels of the dense heads.
        rates: dilations of the dense heads, in pixels of the features; smaller for small inputs.
        dropout: of the dense heads.

    Returns:
        The network; with dense tasks the sides of its inputs are multiples of the encoder's stride, 32 by default.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, the weights do not fit, or a task's kind is unknown.
    """
    encoder = Swin(width, depths, num_heads, window, patch, drop_path, in_channels, weights)
    check_counts(head_width=head_width)
    heads = deeplab_heads(tasks, encoder, head_width, hidden, rates, dropout)
    return HardSharing(encoder, heads, sides_multiple(tasks, encoder.strides[-1]))


class Swin(nn.Module):
    """Inputs [B, in_channels, H, W] -> the last stage's normalised output [B, channels[-1], H / stride, W / stride].

    The defaults are those of Swin-T. Parameters have the names of torchvision's swin_t, whose state dicts fit. Sides
    that are no multiples of a patch, of a window or of 2 are padded with zeros at the end, as in the paper's detection
    code: tokens see their window's padding, too, and sides divided by a stride are rounded up.

    Args:
        width: channels of the first stage; every stage has twice as many as the one before.
        depths: blocks of every stage; every other one shifts its windows.
        num_heads: attention heads of every stage, divisors of its channels.
        window: side of the windows, in tokens.
        patch: side of the patches that become the first stage's tokens, in pixels.
        drop_path: how likely the last block's branches are dropped, for each sample of a training batch; it rises
            evenly from 0 at the first block. 0.2 in Swin-T.
        in_channels: channels of the inputs.
        weights: file of a state dict in torchvision's format to begin from.

    Attributes:
        channels: of the stages.
        strides: input pixels per token of the stages.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, or the weights do not fit.
    """

    def __init__(
        self,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        patch: int = 4,
        drop_path: float = 0.2,
        in_channels: int = 3,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        check_counts(width=width, window=window, patch=patch, in_channels=in_channels)
        check_counts(**{f"depths[{stage}]": depth for stage, depth in enumerate(depths)})
        check_counts(**{f"num_heads[{stage}]": count for stage, count in enumerate(num_heads)})
        check_range("drop_path", drop_path, 0.0, 1.0, open_high=True)
        if not depths or len(depths) != len(num_heads):
            raise ValueError(
                f"depths is {tuple(depths)} and num_heads {tuple(num_heads)}, expected one number per stage in both"
            )
        self.channels = tuple(width * 2**stage for stage in range(len(depths)))
        self.strides = tuple(patch * 2**stage for stage in range(len(depths)))
        for channels, count in zip(self.channels, num_heads, strict=True):
            if channels % count:
                raise ValueError(f"num_heads holds {count} for a stage of {channels} channels, expected a divisor")
        rates = [drop_path * block / max(sum(depths) - 1, 1) for block in range(sum(depths))]
        # torchvision's order: the patches' embedding, then stages with a merging before all but the first.
        embedding = nn.Sequential(PatchEmbedding(in_channels, width, patch), ChannelsLast(), nn.LayerNorm(width))
        layers: list[nn.Module] = [embedding]
        for stage, (channels, depth, count) in enumerate(zip(self.channels, depths, num_heads, strict=True)):
            if stage:
                layers.append(PatchMerging(self.channels[stage - 1]))
            first = sum(depths[:stage])
            blocks = [
                SwinBlock(channels, count, window, window // 2 * (index % 2), rates[first + index])
                for index in range(depth)
            ]
            layers.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(self.channels[-1])
        self._draw()
        if weights is not None:
            load_weights(self, weights, "head.", computed=("relative_position_index",))

    def forward(self, inputs: Tensor) -> Tensor:
        """The last stage's output."""
        out: Tensor = self.norm(self.features(inputs)).permute(0, 3, 1, 2)
        return out

    def _draw(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=DEVIATION)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class PatchEmbedding(nn.Conv2d):
    """Inputs [B, in_channels, H, W] -> a vector per patch, [B, width, H / patch, W / patch], rounded up."""

    def __init__(self, in_channels: int, width: int, patch: int) -> None:
        super().__init__(in_channels, width, patch, stride=patch)

    def forward(self, inputs: Tensor) -> Tensor:
        """The vectors."""
        height, width = inputs.shape[-2:]
        patch = self.kernel_size[0]
        return super().forward(functional.pad(inputs, (0, -width % patch, 0, -height % patch)))


class ChannelsLast(nn.Module):
    """[B, C, H, W] -> [B, H, W, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values."""
        return x.permute(0, 2, 3, 1)


class PatchMerging(nn.Module):
    """Four neighbouring tokens become one of twice the channels: [B, H, W, C] -> [B, H / 2, W / 2, 2 C], rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The merged tokens."""
        x = pad_end(x, 2)
        batch, height, width, channels = x.shape
        quads = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # The published order: down the first column of the four, then down the second.
        out: Tensor = self.reduction(self.norm(quads.permute(0, 1, 3, 4, 2, 5).flatten(3)))
        return out


class SwinBlock(nn.Module):
    """Attention in windows and two fully connected layers, each normalised before it and beside a shortcut.

    Args:
        channels: of the tokens.
        heads: of the attention, a divisor of the channels.
        window: side of the windows.
        shift: how far the windows are moved down and right.
        drop_path: how likely either branch is dropped.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        between = EXPANSION * channels
        # The third layer keeps the place of torchvision's dropout, which Swin does not use.
        self.mlp = nn.Sequential(nn.Linear(channels, between), nn.GELU(), nn.Identity(), nn.Linear(between, channels))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = x + self._dropped(self.attn(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        """The branch, or 0, for every sample (stochastic depth, Huang et al. 2016); of the same mean."""
        if not (self.training and self.drop_path):
            return branch
        return branch * functional.dropout(branch.new_ones(len(branch), 1, 1, 1), self.drop_path)


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of each window, with a learnt bias for every relative position.

    Shifted windows are cut from the tokens after these have been moved up and left, round the edge; tokens that come
    to lie in one window although they are not neighbours do not see each other. Attention is written out, not torch's
    fused one, which has no derivatives of its derivatives: forward-mode passes and double backward work.

    Args:
        channels: of the tokens.
        heads: of the attention, a divisor of the channels.
        window: side of the windows, in tokens. A side of the input that one window spans is not shifted.
        shift: how far the windows are moved down and right, below the window's side.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shift = shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=DEVIATION)
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        height, width = x.shape[1:3]
        x = pad_end(x, self.window)
        sides = x.shape[1:3]
        shifts = [self.shift if side > self.window else 0 for side in sides]
        apart = None
        if any(shifts):
            x = x.roll([-shift for shift in shifts], (1, 2))
            apart = not_neighbours(sides, shifts, self.window, x.device)
        x = from_windows(self._attend(to_windows(x, self.window), apart), sides, self.window)
        if any(shifts):
            x = x.roll(shifts, (1, 2))
        return x[:, :height, :width]

    def _attend(self, x: Tensor, apart: Tensor | None) -> Tensor:
        """Tokens [B, windows, T, C], and which of a window's pairs to leave out, [windows, T, T]."""
        # [3, B, windows, heads, T, channels of a head]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind()
        tokens = x.shape[2]
        bias = self.relative_position_bias_table[self.relative_position_index].view(tokens, tokens, self.heads)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias.permute(2, 0, 1)
        if apart is not None:
            # The published code adds -100, which all but excludes the pair.
            scores = scores.masked_fill(apart[:, None], float("-inf"))
        out: Tensor = self.proj((scores.softmax(-1) @ v).transpose(2, 3).flatten(-2))
        return out


def pad_end(x: Tensor, multiple: int) -> Tensor:
    """[B, H, W, C] with zeros at the end of both sides, up to multiples of a number."""
    height, width = x.shape[1:3]
    return functional.pad(x, (0, 0, 0, -width % multiple, 0, -height % multiple))


def to_windows(x: Tensor, window: int) -> Tensor:
    """[B, H, W, C] -> [B, windows, window², C], windows and tokens row by row; the window divides H and W."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window**2, channels)


def from_windows(windows: Tensor, sides: Sequence[int], window: int) -> Tensor:
    """What `to_windows` took: [B, windows, window², C] -> [B, H, W, C], for the sides H and W."""
    batch, channels = windows.shape[0], windows.shape[-1]
    height, width = sides
    x = windows.reshape(batch, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


def not_neighbours(sides: Sequence[int], shifts: Sequence[int], window: int, device: torch.device) -> Tensor:
    """Which pairs of a window's tokens came together round an edge, [windows, window², window²] bool.

    Args:
        sides: height and width, in tokens.
        shifts: how far the tokens were moved up and left.
        window: side of the windows.
        device: of the result.
    """
    around = [torch.arange(side, device=device) >= side - shift for side, shift in zip(sides, shifts, strict=True)]
    region = 2 * around[0][:, None] + around[1]
    regions = to_windows(region[None, :, :, None], window)[0, :, :, 0]
    return regions[:, :, None] != regions[:, None, :]


def relative_positions(window: int) -> Tensor:
    """The row of the bias for every pair of a window's tokens, by the first one's offset from the second, [window⁴]."""
    side = torch.arange(window)
    rows, columns = side.repeat_interleave(window), side.repeat(window)
    down, right = (place[:, None] - place + window - 1 for place in (rows, columns))
    return (down * (2 * window - 1) + right).flatten()
