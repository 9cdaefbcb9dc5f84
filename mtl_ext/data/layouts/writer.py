"""What every writer of a data set's files offers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from mtl_ext.data.scenes import Scene


class LayoutWriter(Protocol):
    """Writes rendered scenes in the files of one published data set.

    Writers have no state: scenes may be written in any order, and from several processes at once. Every file appears
    complete or not at all.

    Attributes:
        size: height and width of the published images.
        splits: number of samples in each published split, by the split's name.
    """

    size: tuple[int, int]
    splits: Mapping[str, int]

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample.

        Args:
            scene: what was rendered, of any size.
            root: the data set's folder; it and the folders below are created.
            split: one of the names in `splits`.
            index: number of the sample in its split, from 0.
        """

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes what needs all samples, such as lists of a split's samples, after the last `write`.

        Args:
            root: the data set's folder.
            sizes: number of samples written in each split; samples 0 .. size - 1 of each must be there.
        """
