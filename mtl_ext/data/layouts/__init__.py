"""Generators of data sets: writers of the very files that the loaders read, from rendered scenes."""

from mtl_ext.data.layouts.astmt import NYUDMTWriter, PascalContextWriter
from mtl_ext.data.layouts.cityscapes import CityscapesPngWriter, CityscapesWriter
from mtl_ext.data.layouts.metagraspnet import MetaGraspNetWriter
from mtl_ext.data.layouts.nyuv2 import NYUv2Writer
from mtl_ext.data.layouts.pseudo_labels import PseudoLabelWriter
from mtl_ext.data.layouts.writer import LayoutWriter

SCENE_LAYOUTS: dict[str, LayoutWriter] = {
    "nyuv2": NYUv2Writer(),
    "cityscapes": CityscapesWriter(),
    "cityscapes_png": CityscapesPngWriter(),
    "pascal_context": PascalContextWriter(),
    "nyud_mt": NYUDMTWriter(),
    "metagraspnet": MetaGraspNetWriter(),
    "nyuv2+pseudo": PseudoLabelWriter(NYUv2Writer()),
    "cityscapes+pseudo": PseudoLabelWriter(CityscapesWriter()),
    "cityscapes_png+pseudo": PseudoLabelWriter(CityscapesPngWriter()),
    "pascal_context+pseudo": PseudoLabelWriter(PascalContextWriter()),
    "nyud_mt+pseudo": PseudoLabelWriter(NYUDMTWriter()),
}

__all__ = ["SCENE_LAYOUTS", "LayoutWriter", "PseudoLabelWriter"]
