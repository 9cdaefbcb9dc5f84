"""Penalties: what adds to a task's gradient before the gradients are compared and combined."""

from mtl_ext.penalties.dgr import DGR, DGRTerm
from mtl_ext.penalty import Penalty

# Makers of penalties from (heads, losses, seed=..., options), by the name that configurations have.
PENALTIES = {"DGR": DGR}

__all__ = ["DGR", "PENALTIES", "DGRTerm", "Penalty"]
