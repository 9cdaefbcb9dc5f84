"""From a generator to a folder in the layout of a published data set."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mtl_ext
from mtl_ext.data.generators import GENERATORS, Extent
from mtl_ext.data.processes import check_workers
from mtl_ext.files import write_text
from mtl_ext.methods.base import check_choice

# Left in the finished folder: what made it. Its presence allows the folder to be replaced.
DESCRIPTION = "make-data.json"


@dataclass(frozen=True)
class DataPlan:
    """All that decides the bits of a generated data set.

    Attributes:
        generator: a name in GENERATORS.
        layout: the name of one of its layouts.
        extent: samples of each split, in the layout's order, and the size of the images.
        seed: at least 0.
    """

    generator: str
    layout: str
    extent: Extent
    seed: int

    def describe(self) -> str:
        """The plan and the versions that it is carried out with, as JSON."""
        description = {
            "generator": self.generator,
            "layout": self.layout,
            **self.extent._asdict(),
            "seed": self.seed,
            "version": GENERATORS[self.generator].version,
            "mtl_ext": mtl_ext.__version__,
        }
        return json.dumps(description, indent=2) + "\n"


def plan_data(
    generator: str,
    layout: str,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
) -> DataPlan:
    """A plan with the published numbers where none are given.

    Args:
        generator: a name in GENERATORS.
        layout: the name of one of its layouts.
        train: samples of the layout's first split, or of the only one.
        val: samples of the split between the first and the last, where the layout has one.
        test: samples of the layout's last split, whatever its name ("val" in NYUv2's layout).
        height: pixels, at least 8, where the layout leaves it open.
        width: pixels, at least 8, where the layout leaves it open.
        seed: at least 0.

    Raises:
        ValueError: an unknown name, a number out of range, or one that the layout does not leave open.
    """
    check_choice("generator", generator, tuple(GENERATORS))
    layouts = GENERATORS[generator].layouts
    check_choice("layout", layout, tuple(layouts))
    published = layouts[layout]
    names = list(published.splits)
    roles = {1: ("train",), 2: ("train", "test"), 3: ("train", "val", "test")}[len(names)]
    sizes = dict(published.splits)
    for role, count in (("train", train), ("val", val), ("test", test)):
        if count is None:
            continue
        if role not in roles:
            raise ValueError(f"{role} is {count}, but layout {layout!r} has only {' and '.join(names)}: leave it out")
        if count < 1:
            raise ValueError(f"{role} is {count}, expected at least 1")
        sizes[names[roles.index(role)]] = count
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected at least 0")
    size = _image_size(layout, published.size, height, width)
    return DataPlan(generator, layout, Extent(sizes, size), seed)


def _image_size(
    layout: str, published: tuple[int, int] | None, height: int | None, width: int | None
) -> tuple[int, int] | None:
    """The size of the images: what is given, else the published one.

    Raises:
        ValueError: see :func:`plan_data`.
    """
    for name, value in (("height", height), ("width", width)):
        if value is not None and published is None:
            raise ValueError(f"{name} is {value}, but images of layout {layout!r} have one size only: leave it out")
        if value is not None and value < 8:
            raise ValueError(f"{name} is {value}, expected at least 8")
    return published and (published[0] if height is None else height, published[1] if width is None else width)


def make_data(
    plan: DataPlan,
    out: Path,
    workers: int = 1,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Generates a data set. The folder is complete when it appears.

    Samples are written to a folder beside it, ``.NAME.partial``. Interrupted, a call with the same plan goes on from
    there, or writes the same files again; one with another plan starts anew.

    Args:
        plan: what to make.
        out: the folder; it may exist if it is empty.
        workers: processes that generate and write; the files do not depend on it.
        overwrite: replace a folder that this function has made.
        advance: called with the number of samples that are newly done.

    Raises:
        FileExistsError: the folder holds something, and `overwrite` is not set or it was not made here.
        RuntimeError: a process ended before its work was done.
        ValueError: fewer than one worker.
    """
    check_workers(workers)
    out = out.resolve()
    _check_free(out, overwrite)
    unfinished, description = out.with_name(f".{out.name}.partial"), plan.describe()
    path = unfinished / DESCRIPTION
    if not (path.is_file() and path.read_bytes() == description.encode()):
        shutil.rmtree(unfinished, ignore_errors=True)
        write_text(path, description)
    GENERATORS[plan.generator].generate(unfinished, plan.layout, plan.extent, plan.seed, workers, advance)
    _check_free(out, overwrite)
    _replace(out, unfinished)


def _check_free(out: Path, overwrite: bool) -> None:
    """Refuses a folder whose content is somebody's.

    Raises:
        FileExistsError: see :func:`make_data`.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / DESCRIPTION).is_file():
        raise FileExistsError(f"{out} was not made by make-data, so it is never replaced: choose another folder")
    if not overwrite:
        raise FileExistsError(f"{out} holds a data set: choose another folder, or --overwrite to replace it")


def _replace(out: Path, finished: Path) -> None:
    """Puts the finished folder in its place, and removes what was there."""
    if not out.exists():
        os.rename(finished, out)
        return
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(out, old)
    os.rename(finished, out)
    shutil.rmtree(old)
