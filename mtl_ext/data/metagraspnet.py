"""MetaGraspNet: piles of objects in bins, with visible and whole outlines, occlusion and depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mtl_ext.data.dense_tasks import segmentation_task, value_task
from mtl_ext.data.fields import Field, Sample, mirror, resize
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.reading import Layout, numbers, read_image, read_npz, same_size
from mtl_ext.data.scenes.labels import boxes_around
from mtl_ext.data.task import MultiTaskData
from mtl_ext.methods.base import check_choice, check_range

LAYOUT = Layout(
    "MetaGraspNet",
    """\
ROOT/dataset_{sim,real}/scene{n}/{view}_rgb.png      colors
ROOT/dataset_{sim,real}/scene{n}/{view}.npz          depth [H, W] cm, may hold NaN; instances_objects [H, W], 0 or the
                                                     object's number 1 .. n; and in dataset_sim
                                                     seg_masks_single or occlusion_objects [n, H, W], whole outlines
ROOT/dataset_real/scene{n}/{view}_amodal.npz         amodal_bitmaps_full_size_instances [n, 2, H, W], visible and whole
ROOT/dataset_{sim,real}/{train,test}.txt             optional: scenes of each part, one a line""",
)
# UOAIS-Net calls an object occluded from this hidden share of its outline on.
OCCLUDED = 0.05
CM = 0.01
FIELDS = {
    "foreground": Field(fill=-1),
    "occluded": Field(fill=-1),
    "depth": Field(fill=0),
    "visible": Field(fill=0),
    "amodal": Field(fill=0),
}


def metagraspnet(
    root: str,
    part: str = "sim",
    size: tuple[int, int] | None = None,
    max_objects: int = 64,
    test_share: float = 0.1,
    seed: int = 0,
    augment: bool = True,
    workers: int = 0,
) -> MultiTaskData:
    """MetaGraspNet (V2) from a folder that holds dataset_sim or dataset_real.

    The tasks are the dense ones. For a detector in the way of UOAIS-Net, whose losses take several outputs at once,
    batches also hold the objects, padded to `max_objects`: ``boxes`` [max_objects, 4] float32 (x0, y0, x1, y1 around
    the whole outline, ends excluded), ``visible`` and ``amodal`` [max_objects, H, W] uint8, ``occlusion``
    [max_objects] float32 (hidden share of the outline; -1 where there is no object). An object whose number no pixel
    shows is there, with occlusion 1.

    There is no published division into training and test scenes: the lists train.txt and test.txt are used where they
    lie beside the scenes, else whole scenes are drawn for the test by `seed`. Training samples are mirrored with
    probability 0.5. Categories, grasps and poses (HDF5) are not read; boxes come from the outlines.

    Args:
        root: the folder with dataset_sim/ or dataset_real/.
        part: ``"sim"`` or ``"real"``.
        size: height and width of what the network gets; none keeps the files' own.
        max_objects: room for objects in a sample.
        test_share: share of the scenes that test, where there are no lists.
        seed: of that division.
        augment: whether training samples are mirrored.
        workers: threads that load ahead.

    Returns:
        Inputs [3, H, W] float32 in [0, 1]; targets ``foreground`` [H, W] int64 (1 on objects), ``occluded`` [H, W]
        int64 (whether at least 5% of the object seen there are hidden; -1 on the background), ``depth`` [1, H, W]
        metres (0: no label), and the objects.

    Raises:
        FileNotFoundError: a folder, a list or a file of the layout is missing.
        ImportError: Pillow is not installed.
        ValueError: an option out of range, or (while loading) a broken file, which the message names.
    """
    check_choice("part", part, ("sim", "real"))
    check_range("test_share", test_share, 0.0, 1.0, open_low=True, open_high=True)
    base = LAYOUT.folder(Path(root) / f"dataset_{part}")
    tasks = (
        segmentation_task("foreground", 2),
        segmentation_task("occluded", 2),
        value_task("depth", 0.0, "exact"),
    )
    change = mirror_or_not if augment else None
    prepare = Objects(None if size is None else (size[0], size[1]), max_objects)

    def split(name: str, scenes: Sequence[str]) -> FolderSplit:
        ids = [view for scene in scenes for view in views(LAYOUT.folder(base / scene), part)]
        return FolderSplit(name, ids, partial(read_sample, base, part, max_objects), FIELDS, change, prepare, workers)

    train, test = scene_lists(base, test_share, seed)
    return MultiTaskData(tasks, split("train", train), split("test", test))


def scene_lists(base: Path, test_share: float, seed: int) -> tuple[list[str], list[str]]:
    """The names of the training and of the test scenes.

    Raises:
        FileNotFoundError: there are fewer than two scenes, or only one of the two lists.
    """
    lists = [base / f"{name}.txt" for name in ("train", "test")]
    if any(path.exists() for path in lists):
        train, test = (LAYOUT.listed(path) for path in lists)
        return train, test
    scenes = sorted((path.name for path in base.glob("scene*") if path.is_dir()), key=lambda name: (len(name), name))
    if len(scenes) < 2:
        raise LAYOUT.missing(f"{base} holds {len(scenes)} folders scene{{n}}, expected at least 2")
    order = torch.randperm(len(scenes), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(1, round(test_share * len(scenes))), len(scenes) - 1)
    chosen = set(order[:count])
    return (
        [name for number, name in enumerate(scenes) if number not in chosen],
        [name for number, name in enumerate(scenes) if number in chosen],
    )


def views(scene: Path, part: str) -> list[str]:
    """The views of a scene that have labels, as scene/view.

    Raises:
        FileNotFoundError: there is none.
    """
    suffix = ".npz" if part == "sim" else "_amodal.npz"
    found = [name for name in (path.name.removesuffix(suffix) for path in scene.glob(f"*{suffix}")) if name.isdigit()]
    if not found:
        raise LAYOUT.missing(f"{scene} holds no file {{view}}{suffix}")
    return [f"{scene.name}/{view}" for view in sorted(found, key=int)]


def read_sample(base: Path, part: str, max_objects: int, name: str) -> Sample:
    """One view in its own size, with all its objects."""
    path = base / f"{name}.npz"
    image = read_image(base / f"{name}_rgb.png") / 255.0
    if part == "sim":
        depth_array, ids, masks = read_npz(
            path, "depth", "instances_objects", ("occlusion_objects", "seg_masks_single")
        )
        amodal = numbers(path, masks, (None, None, None)) > 0
        seen = numbers(path, ids, (None, None))
        visible = seen == torch.arange(1, len(amodal) + 1)[:, None, None]
        if int(seen.max()) > len(amodal):
            raise ValueError(f"{path}: instances_objects holds {seen.max():g}, but there are {len(amodal)} outlines")
    else:
        (depth_array,) = read_npz(path, "depth")
        amodal_path = base / f"{name}_amodal.npz"
        (masks,) = read_npz(amodal_path, "amodal_bitmaps_full_size_instances")
        visible, amodal = (numbers(amodal_path, masks, (None, 2, None, None)) > 0).unbind(1)
    if len(amodal) > max_objects:
        raise ValueError(f"{path} holds {len(amodal)} objects, more than max_objects = {max_objects}")
    # An outline holds what is seen of it, whether the file draws it whole or only where it is hidden.
    amodal = amodal | visible
    depth = numbers(path, depth_array, (None, None), finite=False)
    occlusion = hidden_share(visible, amodal)
    targets = {
        "foreground": visible.any(dim=0).long(),
        "occluded": occluded_pixels(visible, occlusion),
        "depth": torch.where(depth.isfinite() & (depth > 0), CM * depth, 0.0)[None],
        "visible": visible.to(torch.uint8),
        "amodal": amodal.to(torch.uint8),
        "occlusion": occlusion,
    }
    same_size(image, {field: targets[field] for field in FIELDS}, str(path))
    return image, targets


def hidden_share(visible: Tensor, amodal: Tensor) -> Tensor:
    """The share [n] of each outline [n, H, W] that is not seen; 1 for an empty one."""
    area = amodal.sum(dim=(1, 2))
    return 1.0 - visible.sum(dim=(1, 2)) / area.clamp(min=1)


def occluded_pixels(visible: Tensor, occlusion: Tensor) -> Tensor:
    """Whether the object seen in each pixel [H, W] is occluded, int64; -1 where there is no object."""
    occluded = (visible & (occlusion >= OCCLUDED)[:, None, None]).any(dim=0)
    return torch.where(visible.any(dim=0), occluded.long(), -1)


def mirror_or_not(sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
    """The sample, mirrored with probability 0.5."""
    return mirror(sample, fields) if bool(torch.rand((), generator=generator) < 0.5) else sample


@dataclass(frozen=True)
class Objects:
    """Resizes a view, finds the objects' boxes and pads them to one number.

    Attributes:
        size: height and width; none keeps them.
        max_objects: the number.
    """

    size: tuple[int, int] | None
    max_objects: int

    def __call__(self, sample: Sample, fields: Mapping[str, Field]) -> Sample:
        """The sample as batches hold it."""
        image, targets = sample
        if self.size is not None:
            image = resize(image, self.size, "bilinear")
            targets = targets | {name: resize(targets[name], self.size) for name in fields}
        room = self.max_objects - len(targets["occlusion"])
        boxes = torch.from_numpy(boxes_around(targets["amodal"].numpy())).float()
        return image, targets | {
            "visible": torch.cat((targets["visible"], targets["visible"].new_zeros(room, *image.shape[-2:]))),
            "amodal": torch.cat((targets["amodal"], targets["amodal"].new_zeros(room, *image.shape[-2:]))),
            "occlusion": torch.cat((targets["occlusion"], torch.full((room,), -1.0))),
            "boxes": torch.cat((boxes, torch.zeros(room, 4))),
        }
