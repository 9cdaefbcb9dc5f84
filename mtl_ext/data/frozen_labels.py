"""Pseudo labels: what frozen networks see, as training targets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from mtl_ext.data.extra_tasks import IMAGE_CLASSES, PSEUDO_CLASSES, PSEUDO_IGNORE, TOKEN_CLASSES
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.task import MultiTaskData
from mtl_ext.files import write_atomically

# Segments whose most probable class is less probable are left without a label.
LEAST_SCORE = 0.5

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FrozenNetworks:
    """Trained networks of other data sets, in eval mode, that say what they see on images [B, C, H, W].

    Attributes:
        segmenter: images -> logits [B, S, H, W].
        classifier: images -> logits [B, C].
        dense_classifier: images -> logits [B, C, h, w], the classifier's own for each cell of its last features.
    """

    segmenter: Network
    classifier: Network
    dense_classifier: Network

    @torch.no_grad()
    def labels(self, images: Tensor) -> dict[str, Tensor]:
        """The targets of the tasks in :data:`mtl_ext.data.extra_tasks.PSEUDO_TASKS`, for a batch of images."""
        return {
            "pseudo_segmentation": hard_segments(self.segmenter(images)),
            "pseudo_class": self.classifier(images).float().softmax(dim=1),
            "pseudo_tokens": token_labels(self.dense_classifier(images)),
        }


def hard_segments(logits: Tensor) -> Tensor:
    """The most probable class of each pixel, [B, H, W] int64; 255 where its probability is below 0.5.

    Args:
        logits: [B, S, H, W], of at most 255 classes.
    """
    scores, classes = logits.float().softmax(dim=1).max(dim=1)
    return torch.where(scores >= LEAST_SCORE, classes, PSEUDO_IGNORE)


def token_labels(logits: Tensor) -> Tensor:
    """The five most probable classes of each cell and their probabilities, [B, 10, h, w] float32 (token labelling).

    Args:
        logits: [B, C, h, w], C at least 5.
    """
    scores, classes = logits.float().softmax(dim=1).topk(TOKEN_CLASSES, dim=1)
    return torch.cat((classes.float(), scores), dim=1)


def write_pseudo_labels(
    data: MultiTaskData, root: str | Path, networks: FrozenNetworks, prepare: Callable[[Tensor], Tensor]
) -> None:
    """Writes ROOT/pseudo/train/{id}.npz for every training sample, as ``pseudo_labels=True`` of a data set reads them.

    Args:
        data: a data set whose training split lies in files, without augmentation of its own.
        root: its folder.
        networks: of 80 classes of segments and 1000 of images, as COCO and ImageNet have them.
        prepare: an image [C, H, W] as it lies on disk -> as the networks want it, of the same height and width.

    Raises:
        TypeError: the training split does not lie in files.
        ValueError: networks of other numbers of classes.
    """
    train = data.train
    if not isinstance(train, FolderSplit):
        raise TypeError(f"data.train is a {type(train).__name__}, expected a FolderSplit")
    for name in train.ids:
        image, _ = train.load(name)
        arrays = _file_arrays(networks, prepare(image)[None])
        path = Path(root) / "pseudo" / train.name / f"{name}.npz"
        write_atomically(path, partial(_save, arrays))


def _save(arrays: dict[str, np.ndarray], file: IO[bytes]) -> None:
    np.savez_compressed(file, allow_pickle=False, **arrays)


def _file_arrays(networks: FrozenNetworks, image: Tensor) -> dict[str, np.ndarray]:
    """What the file of one image [1, C, H, W] holds, see :data:`mtl_ext.data.extra_tasks.PSEUDO_LAYOUT`."""
    found = {name: target[0].cpu() for name, target in networks.labels(image).items()}
    segments, classes = found["pseudo_segmentation"], found["pseudo_class"]
    largest = int(torch.where(segments == PSEUDO_IGNORE, 0, segments).max())
    if largest >= PSEUDO_CLASSES or classes.shape != (IMAGE_CLASSES,):
        raise ValueError(
            f"the networks give segments of class {largest} and {list(classes.shape)} classes of images, expected "
            f"segments 0 .. {PSEUDO_CLASSES - 1} and {IMAGE_CLASSES} classes"
        )
    tokens, scores = found["pseudo_tokens"].permute(1, 2, 0).chunk(2, dim=2)
    return {
        "seg": segments.numpy().astype(np.uint8),
        "cls": classes.numpy().astype(np.float16),
        "tokens": tokens.numpy().astype(np.int16),
        "token_scores": scores.numpy().astype(np.float16),
    }
