"""Generators of data sets: writers of the very files that the loaders read, from rendered scenes."""

from mtl_ext.data.layouts.nyuv2 import NYUv2Writer
from mtl_ext.data.layouts.writer import LayoutWriter

SCENE_LAYOUTS: dict[str, LayoutWriter] = {"nyuv2": NYUv2Writer()}

__all__ = ["SCENE_LAYOUTS", "LayoutWriter"]
