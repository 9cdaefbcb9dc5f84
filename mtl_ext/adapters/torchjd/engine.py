"""`torchjd.autojac.jac_to_grad` without the matrix: the ``.jac`` tensors' rows go to the operators as they are.

These take the places of the two private functions that TorchJD's `jac_to_grad` hands its checked Jacobians to, so that
its checks, errors, ``retain_jac`` and accumulation remain its own.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence

import torch
import torchjd.aggregation as peer
from torch import Tensor
from torchjd._linalg import compute_gramian
from torchjd.aggregation._aggregator_bases import WeightedAggregator
from torchjd.aggregation._graddrop import _identity
from torchjd.aggregation._mixins import _NonDifferentiable
from torchjd.aggregation._nash_mtl import _NashMTLWeighting
from torchjd.aggregation._weighting_bases import _Composition
from torchjd.autojac import _jac_to_grad
from torchjd.linalg import Matrix

from mtl_ext import ops
from mtl_ext.adapters.torchjd.aggregators import ConFIG, GradDrop, config_weights, passed_gradients
from mtl_ext.adapters.torchjd.problem import common_dtype, gramian_of, has_operators, task_major, weights_dtype
from mtl_ext.adapters.torchjd.weightings import nash_weights

Gradients = tuple[list[Tensor], Tensor | None]
Rule = Callable[[list[Tensor]], Gradients]

# These look at the number of rows, the dtype and the device of their matrix, not at its values.
VALUE_FREE = (peer.ConstantWeighting, peer.MeanWeighting, peer.RandomWeighting, peer.SumWeighting)

_with_matrix: Callable[..., Gradients] = _jac_to_grad._jacobian_based
_with_gramians = _jac_to_grad._gramian_based


def jacobian_based(aggregator: peer.Aggregator, jacobians: deque[Tensor], tensors: Sequence[Tensor]) -> Gradients:
    """Gradients and weights by any aggregator; by way of a matrix where its own code or a hook wants one."""
    rule = rule_without_matrix(aggregator, len(jacobians[0])) if has_operators(jacobians) else None
    if rule is None:
        return _with_matrix(aggregator, jacobians, tensors)
    no_graph = torch.no_grad() if isinstance(aggregator, _NonDifferentiable) else contextlib.nullcontext()
    with no_graph:
        gradients, weights = rule(list(jacobians))
    return [gradient.to(tensor.dtype) for gradient, tensor in zip(gradients, tensors, strict=True)], weights


def gramian_based(aggregator: peer.GramianWeightedAggregator, jacobians: deque[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Gradients and weights by way of the Gram matrix, which the caller knows to be enough."""
    if not has_operators(jacobians):
        return _with_gramians(aggregator, jacobians)
    return weighted(list(jacobians), aggregator.gramian_weighting)


def rule_without_matrix(aggregator: peer.Aggregator, num_tasks: int) -> Rule | None:
    """What an aggregator does to P Jacobians [m, *shape]; None where it must see them as one matrix."""
    if _jac_to_grad._has_forward_hook(aggregator):
        return None
    kind = type(aggregator)
    if isinstance(aggregator, peer.GradDrop) and kind.forward in (peer.GradDrop.forward, GradDrop.forward):
        taken = aggregator.f is _identity and (aggregator.leak is None or len(aggregator.leak) == num_tasks)
        return (lambda jacobians: (passed_gradients(aggregator, jacobians), None)) if taken else None
    if isinstance(aggregator, peer.ConFIG) and kind.forward in (peer.ConFIG.forward, ConFIG.forward):
        return lambda jacobians: (weighted(jacobians, lambda gram: config_weights(aggregator, gram))[0], None)
    if isinstance(aggregator, WeightedAggregator) and kind.forward is WeightedAggregator.forward:
        return weighting_rule(aggregator.weighting)
    return None


def weighting_rule(weighting: peer.Weighting[Matrix]) -> Rule | None:
    """The rule of an aggregator with this weighting of matrices."""
    if _jac_to_grad._has_forward_hook(weighting):
        return None
    if isinstance(weighting, _Composition) and weighting.fn in (compute_gramian, gramian_of):
        return lambda jacobians: weighted(jacobians, weighting.weighting)
    if isinstance(weighting, _NashMTLWeighting):
        with_nash = torch.no_grad()(lambda gram: nash_weights(weighting, gram))
        return lambda jacobians: weighted(jacobians, with_nash)
    if type(weighting) in VALUE_FREE:
        return lambda jacobians: combined(jacobians, weighting(stand_in(jacobians)))
    return None


def weighted(jacobians: list[Tensor], weights_of: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], Tensor]:
    """Gradients and weights, the latter from the Gram matrix of all Jacobians together."""
    gramian = ops.gram(task_major(jacobians), jacobians[0].shape[0]).to(weights_dtype(jacobians))
    return combined(jacobians, weights_of(gramian))


def combined(jacobians: list[Tensor], weights: Tensor) -> tuple[list[Tensor], Tensor]:
    """The gradients ``sum_k weights[k] jac[k]``, and the weights."""
    return ops.combine(task_major(jacobians), weights.to(torch.float64)), weights


def stand_in(jacobians: list[Tensor]) -> Tensor:
    """A matrix with the Jacobians' number of rows, dtype and device, and nothing in it."""
    return jacobians[0].new_empty((jacobians[0].shape[0], 0), dtype=common_dtype(jacobians))
