"""From a generator to a folder in the layout of a published data set."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mtl_ext
from mtl_ext.data.generators import GENERATORS, Generator, Writer
from mtl_ext.data.processes import check_workers, map_in_processes
from mtl_ext.files import write_text
from mtl_ext.methods.base import check_choice

# Left in the finished folder: what made it. Its presence allows the folder to be replaced.
DESCRIPTION = "make-data.json"
# In the unfinished folder: the samples written so far, "split index" a line.
DONE = "make-data.done"
# Splits take their samples from parts of the generator's series that never meet.
SPLIT_DISTANCE = 10**9


@dataclass(frozen=True)
class DataPlan:
    """All that decides the bits of a generated data set.

    Attributes:
        generator: a name in GENERATORS.
        layout: the name of one of its layouts.
        sizes: samples of each split of the layout, in the layout's order.
        height: pixels.
        width: pixels.
        seed: at least 0.
    """

    generator: str
    layout: str
    sizes: Mapping[str, int]
    height: int
    width: int
    seed: int

    @property
    def source(self) -> Generator[Any]:
        """Its generator."""
        return GENERATORS[self.generator]

    @property
    def writer(self) -> Writer[Any]:
        """Its layout's writer."""
        return self.source.layouts[self.layout]

    def describe(self) -> str:
        """The plan and the versions that it is carried out with, as JSON."""
        versions = {"mtl_ext": mtl_ext.__version__, "version": self.source.version}
        return json.dumps({**asdict(self), **versions}, indent=2) + "\n"


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
    """A plan with the published sizes where none are given.

    Args:
        generator: a name in GENERATORS.
        layout: the name of one of its layouts.
        train: samples of the layout's first split.
        val: samples of the split between the first and the last, where the layout has one.
        test: samples of the layout's last split, whatever its name ("val" in NYUv2's layout).
        height: pixels, at least 8.
        width: pixels, at least 8.
        seed: at least 0.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    check_choice("generator", generator, tuple(GENERATORS))
    layouts = GENERATORS[generator].layouts
    check_choice("layout", layout, tuple(layouts))
    writer = layouts[layout]
    names = list(writer.splits)
    roles = {"train": names[0], "test": names[-1]} | ({"val": names[1]} if len(names) == 3 else {})
    sizes = dict(writer.splits)
    for role, count in (("train", train), ("val", val), ("test", test)):
        if count is None:
            continue
        if role not in roles:
            raise ValueError(f"{role} is {count}, but layout {layout!r} has only {' and '.join(names)}: leave it out")
        if count < 1:
            raise ValueError(f"{role} is {count}, expected at least 1")
        sizes[roles[role]] = count
    height, width = (writer.size[0] if height is None else height), (writer.size[1] if width is None else width)
    for argument, value, least in (("height", height, 8), ("width", width, 8), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{argument} is {value}, expected at least {least}")
    return DataPlan(generator, layout, sizes, height, width, seed)


def make_data(
    plan: DataPlan,
    out: Path,
    workers: int = 1,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Generates a data set. The folder is complete when it appears.

    Samples are written to a folder beside it, ``.NAME.partial``. Interrupted, a call with the same plan goes on from
    there; one with another plan starts anew. The files do not depend on the number of workers.

    Args:
        plan: what to make.
        out: the folder; it may exist if it is empty.
        workers: processes that generate and write.
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
    unfinished = out.with_name(f".{out.name}.partial")
    done = _resume(unfinished, plan.describe())
    jobs = [(split, index) for split, size in plan.sizes.items() for index in range(size)]
    left = [(split, index) for split, index in jobs if f"{split} {index}" not in done]
    advance(len(jobs) - len(left))
    write = partial(_make_sample, plan.source.make, plan.writer, plan, unfinished)
    with (unfinished / DONE).open("a") as log:
        for split, index in map_in_processes(write, left, workers):
            log.write(f"{split} {index}\n")
            log.flush()
            advance(1)
    plan.writer.finish(unfinished, plan.sizes)
    _check_free(out, overwrite)
    _replace(out, unfinished)
    (out / DONE).unlink()


def _make_sample(
    make: Callable[[int, int, int, int], Any], writer: Writer[Any], plan: DataPlan, root: Path, job: tuple[str, int]
) -> tuple[str, int]:
    """Generates and writes one sample, in any process; gives the job back."""
    split, index = job
    start = list(plan.sizes).index(split) * SPLIT_DISTANCE
    writer.write(make(plan.seed, start + index, plan.height, plan.width), root, split, index)
    return job


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


def _resume(unfinished: Path, description: str) -> set[str]:
    """Prepares the folder for unfinished data; returns the samples that it holds already."""
    path = unfinished / DESCRIPTION
    if path.is_file() and path.read_bytes() == description.encode() and (unfinished / DONE).is_file():
        # A line that was cut off names no sample, or is followed by one that is then made twice.
        return set((unfinished / DONE).read_text(errors="replace").split("\n")[:-1])
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_text(path, description)
    return set()


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
