"""Losses of dense tasks, as the field defines them: means over what has a label.

Where nothing has a label, a loss is 0 and its gradient 0: a batch of unlabelled images neither stops a run nor turns
it into NaN. Dense values are marked invalid by the value `invalid` in all channels; as in the published code, pixels
whose channels sum to that are masked, so that the rare unit vector whose components cancel is lost with the invalid 0.
"""

import torch
from torch import Tensor
from torch.nn import functional


def valid_pixels(target: Tensor, invalid: float = 0.0, by_norm: bool = False) -> Tensor:
    """Which pixels of dense values have a label.

    Args:
        target: [B, C, H, W].
        invalid: the value of all channels where there is no label.
        by_norm: whether a pixel is invalid only where all its channels have that value, instead of where they sum to
            C times it, as in the published code.

    Returns:
        [B, 1, H, W] bool.
    """
    if by_norm:
        return (target != invalid).any(dim=1, keepdim=True)
    return target.sum(dim=1, keepdim=True) != invalid * target.shape[1]


def pixel_cross_entropy(output: Tensor, target: Tensor, ignore: int = -1) -> Tensor:
    """Cross entropy, mean over the pixels with a label.

    Args:
        output: logits [B, C, H, W].
        target: classes [B, H, W] int64, `ignore` where there is no label.
        ignore: the mark of pixels without a label: -1 in NYUv2 and Cityscapes, 255 in PASCAL.
    """
    total = functional.cross_entropy(output, target, ignore_index=ignore, reduction="sum")
    return _mean(total, target != ignore)


def masked_l1(
    output: Tensor, target: Tensor, invalid: float = 0.0, per_channel: bool = False, by_norm: bool = False
) -> Tensor:
    """Absolute error summed over channels, mean over valid pixels: the loss of depth and disparity.

    Args:
        output: [B, C, H, W].
        target: [B, C, H, W].
        invalid: the mark of pixels without a label: 0 for depth, -1 for Cityscapes' disparity, 255 in PASCAL.
        per_channel: whether to divide by the number of channels as well, as ASTMT does.
        by_norm: see :func:`valid_pixels`.
    """
    valid = valid_pixels(target, invalid, by_norm)
    error = torch.where(valid, (output - target).abs(), 0.0).sum()
    return _mean(error / target.shape[1] if per_channel else error, valid)


def normals_l1(
    output: Tensor, target: Tensor, invalid: float = 0.0, per_channel: bool = False, by_norm: bool = False
) -> Tensor:
    """Absolute error of surface normals, as auto-lambda has it (with `per_channel`, and 255 for invalid, ASTMT).

    Args:
        output: [B, 3, H, W], made unit vectors here (the published networks do it in their last layer).
        target: unit vectors [B, 3, H, W].
        invalid: see :func:`masked_l1`.
        per_channel: see :func:`masked_l1`.
        by_norm: see :func:`valid_pixels`.
    """
    return masked_l1(functional.normalize(output, dim=1), target, invalid, per_channel, by_norm)


def normals_cosine(output: Tensor, target: Tensor, by_norm: bool = False) -> Tensor:
    """``1 - cos`` between surface normals, mean over valid pixels (MTAN, LibMTL).

    As published, the valid pixels' inner products are divided by their number; targets that interpolation has
    shortened count as they are.

    Args:
        output: [B, 3, H, W], made unit vectors here (the published networks do it in their last layer).
        target: unit vectors [B, 3, H, W], 0 where there is no label.
        by_norm: see :func:`valid_pixels`.
    """
    valid = valid_pixels(target, by_norm=by_norm)
    cosine = (functional.normalize(output, dim=1) * target).sum(dim=1, keepdim=True)
    return _mean(torch.where(valid, 1 - cosine, 0.0).sum(), valid)


def balanced_bce(output: Tensor, target: Tensor, positive: float | None = 0.95, ignore: float = 255.0) -> Tensor:
    """Binary cross entropy with weights for the two classes, mean over pixels with a label: edges and saliency.

    Args:
        output: logits [B, 1, H, W].
        target: [B, 1, H, W], 1 or 0, or `ignore`.
        positive: weight of the pixels of class 1, from 0 to 1; the others weigh 1 minus that. None is the batch's
            share of class 0 (Xie & Tu 2015, Eq. 2), which ASTMT uses for saliency; it uses 0.95 for edges.
        ignore: the mark of pixels without a label.
    """
    valid = target != ignore
    ones = (target >= 0.5) & valid
    weight = 1 - ones.sum() / valid.sum().clamp(min=1) if positive is None else torch.tensor(positive)
    weights = torch.where(ones, weight.to(output), 1 - weight.to(output)) * valid
    return _mean(functional.binary_cross_entropy_with_logits(output, ones.to(output), weights, reduction="sum"), valid)


def soft_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy with soft labels, mean over the batch.

    Args:
        output: logits [B, C].
        target: probabilities [B, C].
    """
    return -(target * output.log_softmax(dim=1)).sum(dim=1).mean()


def token_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy with a few scored classes per cell (token labelling, Jiang et al. 2021), mean over scored cells.

    Args:
        output: logits [B, C, H, W], interpolated bilinearly to the cells where they lie on another grid.
        target: [B, 2 n, h, w]: the numbers of n classes, then their n scores; a cell whose scores are all 0 has no
            label.
    """
    if output.shape[-2:] != target.shape[-2:]:
        output = functional.interpolate(output, size=target.shape[-2:], mode="bilinear", align_corners=False)
    classes, scores = target.chunk(2, dim=1)
    losses = -(scores * output.log_softmax(dim=1).gather(1, classes.long())).sum(dim=1)
    return _mean(losses.sum(), (scores > 0).any(dim=1))


def _mean(total: Tensor, valid: Tensor) -> Tensor:
    """A sum over valid entries divided by their number; 0, with a graph, where there is none."""
    return total / valid.sum().clamp(min=1)
