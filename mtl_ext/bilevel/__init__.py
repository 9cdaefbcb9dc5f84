"""Looking one step ahead: where the optimizer would go, what that does to other losses, and how weights change it."""

from mtl_ext.bilevel.hypergradient import Hypergradient, chain_rule, hypergradient, hyperjacobian, weighted_gradient
from mtl_ext.bilevel.stateless import LossFn, losses_at, trainable_parameters
from mtl_ext.bilevel.task_products import task_products
from mtl_ext.bilevel.virtual_step import VirtualStep

__all__ = [
    "Hypergradient",
    "LossFn",
    "VirtualStep",
    "chain_rule",
    "hypergradient",
    "hyperjacobian",
    "losses_at",
    "task_products",
    "trainable_parameters",
    "weighted_gradient",
]
