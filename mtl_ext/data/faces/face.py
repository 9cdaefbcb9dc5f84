"""One drawn face from a seed and a number."""

from typing import NamedTuple

import numpy as np

from mtl_ext.data.celeba import ATTRIBUTES
from mtl_ext.data.faces.drawing import Looks, draw_face
from mtl_ext.data.faces.traits import draw_people

# Of the faces that a seed gives; to be raised with every change of them.
VERSION = 1


class Face(NamedTuple):
    """An image and what is true of it.

    Attributes:
        pixels: [H, W, 3] uint8.
        attributes: [40] bool, in the order of CelebA's file.
        age: years, 1 .. 95.
        group: 0 .. 4, the colour of the skin.
    """

    pixels: np.ndarray
    attributes: np.ndarray
    age: int
    group: int

    @property
    def gender(self) -> int:
        """0 male, 1 female, as in UTKFace."""
        return int(not self.attributes[ATTRIBUTES.index("Male")])


def make_face(seed: int, index: int, height: int, width: int) -> Face:
    """Face number `index` of a seed: the same traits and the same drawing at every size.

    Args:
        seed: at least 0.
        index: at least 0.
        height: of the image in pixels.
        width: of the image in pixels; where it differs from the height, the middle of a square image is kept.

    Raises:
        ImportError: Pillow is not installed.
    """
    rng = np.random.default_rng((seed, index))
    people = draw_people(1, rng)
    attributes, age, group = people.attributes[0], int(people.age[0]), int(people.group[0])
    size = max(height, width)
    traits = dict(zip(ATTRIBUTES, attributes.tolist(), strict=True))
    square = draw_face(traits, age, group, Looks.draw(rng), size)
    top, left = (size - height) // 2, (size - width) // 2
    return Face(square[top : top + height, left : left + width], attributes, age, group)
