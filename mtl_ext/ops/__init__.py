"""The operators. Each file holds one: schema, reference, fake and public function."""

from mtl_ext.ops.aligned import aligned
from mtl_ext.ops.cagrad import cagrad
from mtl_ext.ops.combine import combine, combine_
from mtl_ext.ops.dual_cone import dual_cone
from mtl_ext.ops.fairgrad import fairgrad
from mtl_ext.ops.finite_difference import finite_difference, finite_difference_
from mtl_ext.ops.graddrop import graddrop, graddrop_
from mtl_ext.ops.graddrop_features import graddrop_features
from mtl_ext.ops.gradvac import gradvac
from mtl_ext.ops.gram import gram
from mtl_ext.ops.imtl_g import imtl_g
from mtl_ext.ops.min_norm import min_norm
from mtl_ext.ops.nash import nash
from mtl_ext.ops.pcgrad import pcgrad
from mtl_ext.ops.perturb import perturb, perturb_
from mtl_ext.ops.project_simplex import project_simplex
from mtl_ext.ops.registry import OPERATORS, has_kernel, load_kernels
from mtl_ext.ops.saliency_entropy import saliency_entropy, saliency_entropy_map

__all__ = [
    "OPERATORS",
    "aligned",
    "cagrad",
    "combine",
    "combine_",
    "dual_cone",
    "fairgrad",
    "finite_difference",
    "finite_difference_",
    "graddrop",
    "graddrop_",
    "graddrop_features",
    "gradvac",
    "gram",
    "has_kernel",
    "imtl_g",
    "min_norm",
    "nash",
    "pcgrad",
    "perturb",
    "perturb_",
    "project_simplex",
    "saliency_entropy",
    "saliency_entropy_map",
]

library = load_kernels()
