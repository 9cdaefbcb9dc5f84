"""The operators. Each file holds one: schema, reference, fake and public function."""

from mtl_ext.ops.combine import combine, combine_
from mtl_ext.ops.graddrop import graddrop, graddrop_
from mtl_ext.ops.graddrop_features import graddrop_features
from mtl_ext.ops.gram import gram
from mtl_ext.ops.min_norm import min_norm
from mtl_ext.ops.pcgrad import pcgrad
from mtl_ext.ops.registry import OPERATORS, has_kernel, load_kernels

__all__ = [
    "OPERATORS",
    "combine",
    "combine_",
    "graddrop",
    "graddrop_",
    "graddrop_features",
    "gram",
    "has_kernel",
    "min_norm",
    "pcgrad",
]

library = load_kernels()
