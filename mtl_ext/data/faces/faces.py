"""The drawn faces in memory, for quick studies."""

import numpy as np
import torch

from mtl_ext.data.cache import cached_arrays
from mtl_ext.data.celeba import ATTRIBUTES, PRESETS, attribute_tasks
from mtl_ext.data.faces.face import VERSION, make_face
from mtl_ext.data.faces.traits import VISIBLE
from mtl_ext.data.images import ImageSplit
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.data.utkface import TASKS as UTKFACE_TASKS
from mtl_ext.data.utkface import utkface_targets
from mtl_ext.methods.base import check_choice

SIZE = 64
# What the faces can be labelled with: sets of attributes, or UTKFace's three tasks.
LABELS = (*PRESETS, "visible", "utkface")


def faces(labels: str = "saal", train_size: int = 2000, test_size: int = 500, seed: int = 0) -> MultiTaskData:
    """Draws faces, or takes them from the cache.

    The images are kept in :func:`mtl_ext.files.cache_folder`, one file for each choice of sizes and seed; all labels
    share it. :mod:`mtl_ext.data.faces.traits` says how the attributes are correlated.

    Args:
        labels: ``"saal"``, ``"tag"`` or ``"all"``: CelebA's attributes, see :data:`mtl_ext.data.celeba.PRESETS`;
            ``"visible"``: the 38 attributes that are drawn (Attractive and High_Cheekbones are not: they can only be
            guessed from the others); ``"utkface"``: age, gender and race as in :mod:`mtl_ext.data.utkface`.
        train_size: number of training images.
        test_size: number of test images.
        seed: of everything.

    Returns:
        Inputs [B, 3, 64, 64] float32 in [0, 1]; targets [B] int64.

    Raises:
        ImportError: the images are not cached, and Pillow is not installed.
        ValueError: an unknown choice of labels, or a size below 1.
    """
    check_choice("labels", labels, LABELS)
    for name, size in (("train_size", train_size), ("test_size", test_size)):
        if size < 1:
            raise ValueError(f"{name} is {size}, expected at least 1")
    count = train_size + test_size
    drawn = cached_arrays(f"faces{VERSION}-{count}-{seed}", lambda: draw_faces(count, seed))
    images = torch.from_numpy(drawn["images"])
    present = torch.from_numpy(drawn["attributes"].astype(np.int64))
    if labels == "utkface":
        tasks: tuple[Task, ...] = UTKFACE_TASKS
        gender = 1 - drawn["attributes"][:, ATTRIBUTES.index("Male")].astype(np.int64)
        targets = utkface_targets(np.stack([drawn["age"], gender, drawn["group"]], axis=1))
    else:
        chosen = VISIBLE if labels == "visible" else PRESETS[labels]
        tasks = attribute_tasks(chosen)
        targets = {name: present[:, ATTRIBUTES.index(name)] for name in chosen}
    train, test = (slice(0, train_size), slice(train_size, None))
    splits = [
        ImageSplit(images[part], {name: value[part] for name, value in targets.items()}) for part in (train, test)
    ]
    return MultiTaskData(tasks, *splits)


def draw_faces(count: int, seed: int) -> dict[str, np.ndarray]:
    """M = `count` faces: images [M, 3, 64, 64] uint8, attributes [M, 40] bool, age and group [M] int64.

    Raises:
        ImportError: Pillow is not installed.
    """
    made = [make_face(seed, index, SIZE, SIZE) for index in range(count)]
    return {
        "images": np.stack([face.pixels.transpose(2, 0, 1) for face in made]),
        "attributes": np.stack([face.attributes for face in made]),
        "age": np.array([face.age for face in made]),
        "group": np.array([face.group for face in made]),
    }
