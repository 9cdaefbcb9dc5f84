"""Pseudo labels beside the files of another data set."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_ext.data.layouts.files import write_npz
from mtl_ext.data.layouts.writer import LayoutWriter
from mtl_ext.data.scenes import CLASSES, Scene

IGNORE = 255
# Of the 80 classes of COCO, for each of mtl_ext.data.scenes.CLASSES: walls, floors and ceilings have none; sports ball,
# suitcase, bottle, cup.
COCO_IDS = np.array([IGNORE, IGNORE, IGNORE, 32, 28, 39, 41])
# Of the 1000 classes of ImageNet: wall clock, doormat, dome, tennis ball, crate, beer bottle, coffee mug.
IMAGENET_IDS = np.array([892, 539, 538, 852, 519, 440, 504])
IMAGENET_CLASSES = 1000
TOKENS = 5
STRIDE = 32
# The share of cells whose prediction is another scene class, and what the five best of a thousand classes leave over.
WRONG = 0.2
REST = 0.1


class PseudoLabelWriter:
    """Writes another layout's files, and pseudo/{split}/{id}.npz as :func:`with_pseudo_labels` reads them.

    The labels are what a network of another domain might say: known things only, wrong in a fifth of the cells of the
    C5 grid (of 32 x 32 pixels), with probabilities that no one would mistake for certainty.
    """

    def __init__(self, layout: LayoutWriter) -> None:
        self.layout = layout
        self.size = layout.size
        self.splits = layout.splits

    def sample_id(self, split: str, index: int) -> str:
        """The other layout's id."""
        return self.layout.sample_id(split, index)

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        self.layout.write(scene, root, split, index)
        rng = np.random.default_rng([list(self.splits).index(split), index])
        shares = cell_shares(scene.semantics)
        wrong = rng.random(shares.shape[:2]) < WRONG
        shares[wrong] = rng.permuted(shares[wrong], axis=-1)
        height, width = scene.semantics.shape
        mistaken = np.repeat(np.repeat(wrong, STRIDE, 0), STRIDE, 1)[:height, :width]
        seg = np.where(mistaken, rng.integers(80), COCO_IDS[scene.semantics])
        best = np.argsort(-shares, axis=-1, kind="stable")[..., :TOKENS]
        scores = np.take_along_axis(shares, best, axis=-1)
        classes = np.full(IMAGENET_CLASSES, REST / IMAGENET_CLASSES)
        classes[IMAGENET_IDS] += (1.0 - REST) * shares.mean(axis=(0, 1))
        write_npz(
            root / "pseudo" / split / f"{self.sample_id(split, index)}.npz",
            seg=seg.astype(np.uint8),
            cls=classes.astype(np.float16),
            tokens=IMAGENET_IDS[best].astype(np.int16),
            token_scores=((1.0 - REST) * scores).astype(np.float16),
        )

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Finishes the other layout."""
        self.layout.finish(root, sizes)


def cell_shares(semantics: np.ndarray) -> np.ndarray:
    """The share [h, w, C] of each scene class among the pixels [H, W] of each cell of the C5 grid."""
    height, width = semantics.shape
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    one_hot = np.zeros((rows * STRIDE, columns * STRIDE, len(CLASSES)))
    one_hot[:height, :width] = np.eye(len(CLASSES))[semantics]
    counts = one_hot.reshape(rows, STRIDE, columns, STRIDE, -1).sum(axis=(1, 3))
    shares: np.ndarray = counts / counts.sum(axis=-1, keepdims=True)
    return shares
