"""What `mtl-ext make-data` can make: one entry per generator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mtl_ext.data.layouts import SCENE_LAYOUTS
from mtl_ext.data.scenes import Scene, render_scene
from mtl_ext.data.scenes.render import VERSION

Sample = TypeVar("Sample")
Written = TypeVar("Written", contravariant=True)


class Writer(Protocol[Written]):
    """Writes samples in the files of one published data set.

    :class:`mtl_ext.data.layouts.LayoutWriter` says what each member has to do; rendered scenes are its case.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the published images."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Number of samples in each published split, the training split first and the test split last."""

    def write(self, scene: Written, root: Path, split: str, index: int) -> None:
        """Writes one sample; called in any order, from several processes, perhaps twice for the same sample."""

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes what needs all samples."""


@dataclass(frozen=True)
class Generator(Generic[Sample]):
    """A source of samples, and the layouts that they can be written in.

    Attributes:
        make: (seed, index, height, width) -> sample, the same in every process; importable by name.
        layouts: writers by the layout's name; importable, because processes are sent to write.
        version: of the samples that `make` gives for a seed.
    """

    make: Callable[[int, int, int, int], Sample]
    layouts: Mapping[str, Writer[Sample]]
    version: int


_scenes: Generator[Scene] = Generator(render_scene, SCENE_LAYOUTS, VERSION)

GENERATORS: dict[str, Generator[Any]] = {"scenes": _scenes}
