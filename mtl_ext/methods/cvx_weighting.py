"""Task weights from a convex problem of the user's own, written in cvxpy."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mtl_ext.methods.base import check_choice
from mtl_ext.methods.grad_method import GramMethod


class CvxWeighting(GramMethod):
    """Weights that solve a convex problem in the Gram matrix: a cvxpylayers layer (Agrawal et al. 2019) finds them.

    For trying out a weighting before it has a solver of its own: each step solves on the CPU, in milliseconds and to
    the layer's tolerance. The layer gets the Gram matrix divided by its trace, so that the scale of the gradients does
    not matter, and all tasks, also those whose gradient is zero. `task_weights` is differentiable in the Gram matrix.
    No peer takes a problem of one's own.

    Args:
        layer: a ``CvxpyLayer`` with one parameter [K, K] and one variable, the weights [K]; None: that of
            `minimum_norm_layer`, for the K of the first step (MGDA).
        parameter: what the layer's parameter is. ``"root"``: the symmetric A with ``A A = G``, as cvxpy's rules for
            parameters (DPP) ask for ``w^T G w = sum_squares(A @ w)``; ``"gram"``: G itself.
        reduction: ``"mean"``: the layer's weights as they are (those of `minimum_norm_layer` sum to 1); or ``"sum"``:
            times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Raises:
        ImportError: without a layer, and cvxpylayers is not installed.
    """

    formula_gives = "mean"

    def __init__(
        self,
        layer: nn.Module | None = None,
        *,
        parameter: str = "root",
        reduction: str = "mean",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_choice("parameter", parameter, ("root", "gram"))
        self.parameter = parameter
        if layer is None:
            import_cvxpylayers()
        elif not isinstance(layer, nn.Module):
            raise ValueError(f"layer is {layer!r}, expected a CvxpyLayer")
        # A layer is a problem, no state: in a list it stays out of the state_dict.
        self._layers = [] if layer is None else [layer]

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The layer's solution.

        Raises:
            ValueError: the layer's variable is not of shape [K].
        """
        num_tasks = len(gram)
        if not self._layers:
            self._layers.append(minimum_norm_layer(num_tasks))
        unit = torch.eye(num_tasks, dtype=gram.dtype, device=gram.device)
        gram = torch.where(gram.isfinite().all(), gram, unit)  # solvers raise on NaN; the caller refuses such a step
        gram = gram / gram.trace().clamp_min(torch.finfo(gram.dtype).tiny)
        argument = symmetric_root(gram) if self.parameter == "root" else gram
        weights: Tensor = self._layers[0](argument)[0]
        if weights.shape != (num_tasks,):
            raise ValueError(f"layer's variable has shape {list(weights.shape)}, expected [K] = [{num_tasks}]")
        return weights


def symmetric_root(gram: Tensor) -> Tensor:
    """The symmetric A with ``A A = G`` of a positive semidefinite G [K, K]; negative eigenvalues count as 0."""
    root: Tensor = _SymmetricRoot.apply(gram)  # type: ignore[no-untyped-call]
    return root


class _SymmetricRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram: Tensor) -> Tensor:
        """Takes the roots of the eigenvalues."""
        values, vectors = torch.linalg.eigh(gram)
        roots = values.clamp_min(0.0).sqrt()
        ctx.save_for_backward(roots, vectors)
        root: Tensor = vectors * roots @ vectors.mT
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        """Solves the derivative of ``A A = G``, ``A dA + dA A = dG``, in the eigenvectors; 0 in the null space."""
        roots, vectors = ctx.saved_tensors
        sums = roots[:, None] + roots
        inner = vectors.mT @ cotangent @ vectors / sums.where(sums > 0, torch.inf)
        derivative: Tensor = vectors @ (inner + inner.mT) @ vectors.mT / 2
        return derivative


def minimum_norm_layer(num_tasks: int) -> nn.Module:
    """The layer of MGDA, and the pattern for others: the shortest convex combination of the gradients.

    Args:
        num_tasks: K.

    Returns:
        A ``CvxpyLayer`` whose parameter is the symmetric root of the Gram matrix, solved by Clarabel.

    Raises:
        ImportError: cvxpylayers is not installed.
    """
    cvxpy, layer_class = import_cvxpylayers()
    root, weights = cvxpy.Parameter((num_tasks, num_tasks)), cvxpy.Variable(num_tasks)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(root @ weights)), [weights >= 0, cvxpy.sum(weights) == 1])
    options = {"solve_method": "Clarabel", "tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
    layer: nn.Module = layer_class(problem, parameters=[root], variables=[weights], solver_args=options)
    return layer


def import_cvxpylayers() -> tuple[Any, Any]:
    """The module cvxpy and the class CvxpyLayer, imported when they are wanted.

    Raises:
        ImportError: naming the extra that has them.
    """
    try:
        import cvxpy
        from cvxpylayers.torch import CvxpyLayer
    except ImportError as error:
        raise ImportError("CvxWeighting needs cvxpylayers: pip install 'mtl_ext[cvx]'") from error
    return cvxpy, CvxpyLayer
