"""What `mtl-ext make-data` can make: one entry per generator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from mtl_ext.data.faces import FACE_LAYOUTS, Face, make_face
from mtl_ext.data.faces.face import VERSION as FACE_VERSION
from mtl_ext.data.glyphs import GLYPH_LAYOUTS, Glyph, make_glyph
from mtl_ext.data.glyphs.glyph import VERSION as GLYPH_VERSION
from mtl_ext.data.layouts import SCENE_LAYOUTS
from mtl_ext.data.molecules import SIZES as MOLECULE_SIZES
from mtl_ext.data.molecules import VERSION as MOLECULE_VERSION
from mtl_ext.data.molecules import write_molecules
from mtl_ext.data.processes import map_in_processes
from mtl_ext.data.scenes import render_scene
from mtl_ext.data.scenes.render import VERSION

# In the folder while samples are being written: those that are complete, "split index" a line.
DONE = "make-data.done"
# Splits take their samples from parts of the series that never meet.
SPLIT_DISTANCE = 10**9

Sample = TypeVar("Sample")
Written = TypeVar("Written", contravariant=True)


class Extent(NamedTuple):
    """How much a published data set holds, or one of its kind is to hold.

    Attributes:
        splits: samples of each split, the training split first and the test split last.
        size: height and width of the images; None where they cannot be chosen.
    """

    splits: Mapping[str, int]
    size: tuple[int, int] | None


class Generator(Protocol):
    """A source of data sets.

    Attributes:
        version: of the samples that a seed gives.
        layouts: what it can write: the published extent by the layout's name.
    """

    @property
    def version(self) -> int:
        """See the class."""

    @property
    def layouts(self) -> Mapping[str, Extent]:
        """See the class."""

    def generate(
        self, root: Path, layout: str, extent: Extent, seed: int, workers: int, advance: Callable[[int], None]
    ) -> None:
        """Writes a data set, the same bits for any number of workers.

        Args:
            root: its folder, which is there. It may hold what an interrupted call with the same arguments has left.
            layout: a name in `layouts`.
            extent: with the splits of the layout, and a size where the layout's has one.
            seed: at least 0.
            workers: processes, at least 1.
            advance: to be called with the number of samples that are newly done.
        """


class Writer(Protocol[Written]):
    """Writes samples of one kind in the files of a data set: what `mtl_ext.data.layouts.LayoutWriter` is for scenes."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the published images."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Number of samples in each published split."""

    def write(self, scene: Written, root: Path, split: str, index: int) -> None:
        """Writes one sample; called in any order, from several processes, perhaps twice for the same sample."""

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes what needs all samples."""


@dataclass(frozen=True)
class SampleGenerator(Generic[Sample]):
    """Samples that are made one by one, so that processes share the work and what is done is not done again.

    Attributes:
        make: (seed, index, height, width) -> sample, the same in every process; importable by name.
        writers: by the layout's name; importable, because processes are sent them.
        version: see `Generator`.
    """

    make: Callable[[int, int, int, int], Sample]
    writers: Mapping[str, Writer[Sample]]
    version: int

    @property
    def layouts(self) -> Mapping[str, Extent]:
        """See `Generator`."""
        return {name: Extent(writer.splits, writer.size) for name, writer in self.writers.items()}

    def generate(
        self, root: Path, layout: str, extent: Extent, seed: int, workers: int, advance: Callable[[int], None]
    ) -> None:
        """See `Generator`."""
        jobs = [(split, index) for split, size in extent.splits.items() for index in range(size)]
        # A line that was cut off names no sample, or is followed by one that is then made twice.
        done = (root / DONE).read_text(errors="replace").split("\n")[:-1] if (root / DONE).exists() else []
        left = [(split, index) for split, index in jobs if f"{split} {index}" not in set(done)]
        advance(len(jobs) - len(left))
        write = partial(_make_sample, self.make, self.writers[layout], root, extent, seed)
        with (root / DONE).open("a") as log:
            for split, index in map_in_processes(write, left, workers):
                log.write(f"{split} {index}\n")
                log.flush()
                advance(1)
        self.writers[layout].finish(root, extent.splits)
        (root / DONE).unlink()


def _make_sample(
    make: Callable[[int, int, int, int], Sample],
    writer: Writer[Sample],
    root: Path,
    extent: Extent,
    seed: int,
    job: tuple[str, int],
) -> tuple[str, int]:
    """Makes and writes one sample, in any process; gives the job back."""
    split, index = job
    height, width = extent.size or writer.size
    first = list(extent.splits).index(split) * SPLIT_DISTANCE
    writer.write(make(seed, first + index, height, width), root, split, index)
    return job


@dataclass(frozen=True)
class FolderGenerator:
    """Data sets that one function writes, in this process.

    Attributes:
        write: (root, layout, sizes, seed, on_sample): `on_sample` is called after every sample.
        sizes: the published number of samples of each split, by the layout's name.
        version: see `Generator`.
    """

    write: Callable[[Path, str, Mapping[str, int], int, Callable[[], object]], None]
    sizes: Mapping[str, Mapping[str, int]]
    version: int

    @property
    def layouts(self) -> Mapping[str, Extent]:
        """See `Generator`."""
        return {name: Extent(splits, None) for name, splits in self.sizes.items()}

    def generate(
        self, root: Path, layout: str, extent: Extent, seed: int, workers: int, advance: Callable[[int], None]
    ) -> None:
        """See `Generator`."""
        self.write(root, layout, extent.splits, seed, lambda: advance(1))


_scenes: SampleGenerator[Any] = SampleGenerator(render_scene, SCENE_LAYOUTS, VERSION)
_faces: SampleGenerator[Face] = SampleGenerator(make_face, FACE_LAYOUTS, FACE_VERSION)
_glyphs: SampleGenerator[Glyph] = SampleGenerator(make_glyph, GLYPH_LAYOUTS, GLYPH_VERSION)

GENERATORS: dict[str, Generator] = {
    "scenes": _scenes,
    "faces": _faces,
    "glyphs": _glyphs,
    "molecules": FolderGenerator(write_molecules, MOLECULE_SIZES, MOLECULE_VERSION),
}
