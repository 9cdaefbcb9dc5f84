"""ConFIG: the direction with equal cosines to all gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.grad_method import GramMethod, checked_preference, preference_vector


class ConFIG(GramMethod):
    """Conflict-free inverse gradients (Liu et al. 2024, Eq. 2): the direction of equal cosine to every gradient.

    ``u = normalise(pinv(U) p)`` with the unit gradients as rows of U and preferences p; the combined gradient is
    ``(sum_k g_k^T u) u``. From the Gram matrix: with the cosines ``C = U U^T``, the norms n and ``x = pinv(C) p``,
    ``u = sum_k beta_k g_k`` for ``beta = (x / n) / sqrt(x^T C x)``. Eigenvalues of C up to ``K eps`` times the largest
    count as 0 (eps of the gradients' dtype), and so do components of p along the kept eigenvectors up to
    ``K eps ||p||``: with two opposite gradients and equal preferences there is no such direction, and the result is 0.
    A task with a zero gradient is left out. TorchJD inverts U itself: the two agree to 3e-8 for gradients that are
    1e-4 apart (relative), and to 2e-4 for 1e-6.

    Args:
        preference: K relative cosines, each above 0; None: equal.
        reduction: ``"sum"`` as above and in the paper, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    def __init__(
        self,
        *,
        preference: Sequence[float] | None = None,
        reduction: str = "sum",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        self.preference = checked_preference(preference, open_low=True)

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The coefficients of the projections' sum along u."""
        num_tasks = len(gram)
        wanted = preference_vector(self.preference, gram, 1.0)
        gram = gram.where(gram.isfinite().all(), 0.0)  # the weights of others are not used
        norms = gram.diagonal().sqrt()
        inverse = torch.where(norms > 0, 1 / norms, 0.0)
        wanted = torch.where(norms > 0, wanted, 0.0)
        values, vectors = torch.linalg.eigh(inverse[:, None] * gram * inverse)
        cutoff = num_tasks * self.eps
        components = vectors.T @ wanted
        kept = (values > cutoff * values[-1]) & (components.abs() > cutoff * wanted.norm())
        scaled = torch.where(kept, components / values, 0.0)
        length = (scaled * components).sum().sqrt()
        beta = torch.where(length > 0, vectors @ scaled * inverse / length, 0.0)
        return (gram @ beta).sum() * beta
