"""Penalties: what adds to a task's gradient before the gradients are compared and combined."""

from mtl_ext.penalties.base import Penalty, penalty_cotangents

__all__ = ["Penalty", "penalty_cotangents"]
