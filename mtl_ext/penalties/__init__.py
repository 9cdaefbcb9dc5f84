"""Penalties: what adds to a task's gradient before the gradients are compared and combined."""

from mtl_ext.penalties.dgr import DGR, DGRTerm
from mtl_ext.penalty import Penalty

__all__ = ["DGR", "DGRTerm", "Penalty"]
