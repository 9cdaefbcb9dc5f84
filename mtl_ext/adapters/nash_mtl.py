"""nash-mtl's ``WeightMethod`` and that of its forks (FAMO, FairGrad, SDMGrad, GO4Align) on this package's methods.

A program of that family changes one line::

    -from methods.weight_methods import WeightMethods
    +from mtl_ext.adapters.nash_mtl import WeightMethods

Names (``METHODS``), arguments, defaults and the call stay as they are::

    weight_method = WeightMethods("nashmtl", n_tasks=3, device=device, update_weights_every=1)
    optimizer = Adam([dict(params=model.parameters()), dict(params=weight_method.parameters(), lr=2.5e-2)])
    loss, extra = weight_method.backward(losses=losses, shared_parameters=list(model.shared_parameters()), ...)

Also their habits: most weigh the heads' losses with the shared parameters' weights (not PCGrad, CAGrad, FairGrad,
SDMGrad and GradDrop), sums run over tasks where others take means, ``dwa`` divides by K, and ``max_norm`` clips the
shared parameters' ``.grad``. Results are theirs but for:

- Solvers: ``nashmtl`` (``optim_niter`` is accepted and not needed), ``fairgrad``, ``cagrad``, ``mgda`` and ``imtl`` are
  exact, at any scale of the gradients. ``imtl`` takes the least-squares solution for dependent gradients.
- ``dwa`` keeps weights of 1 until two windows are full; theirs fill the older one with ones.
- ``sdmgrad`` uses three batches; theirs writes all three over one another. Its heads are trained on the first alone.
- ``go4align`` groups exactly, without random centres. Its variants with other clusterings are left out.
- Heads are trained whether or not ``task_specific_parameters`` is passed; ``.grad`` is added to, not overwritten.
- ``weights`` are what the losses' gradients are multiplied by, also for ``uw``, ``scaleinvls`` and ``famo``; the loss
  that is returned is the losses' sum with these weights, detached.
- ``max_norm`` of ``famo`` and ``log_mgda`` is accepted and has no effect, as theirs: it clips before the backward pass.
- NaN or infinity in a loss or gradient raises an error that names the task.

Where defaults differ between the repositories, they are nash-mtl's: ``max_norm`` is 0, no clipping, for ``cagrad`` (1
in the forks). Nothing of them is imported.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ext import methods
from mtl_ext.adapters.seed import program_seed
from mtl_ext.methods import GradMethod, Method
from mtl_ext.methods.base import check_choice, check_num_tasks, task_values
from mtl_ext.methods.loss_method import log_of

Parameters = Iterable[Tensor] | Tensor


class WeightMethod:
    """A method behind nash-mtl's interface.

    Args:
        n_tasks: K.
        device: where the method's state is.
        method: what does the work.
        max_norm: bound on the length of the shared parameters' ``.grad`` after the call; 0: none.
        params: where gradients are taken: ``"shared"``, ``"last"`` or ``"rep"``.
        prepare: applied to the losses first.
        returns_loss: whether `backward` returns a loss; nash-mtl's own PCGrad and CAGrad do not.

    Attributes:
        mtl_ext_method: the method.
    """

    def __init__(
        self,
        n_tasks: int,
        device: torch.device | str,
        method: Method,
        *,
        max_norm: float = 0.0,
        params: str = "shared",
        prepare: Callable[[Tensor], Tensor] | None = None,
        returns_loss: bool = True,
    ) -> None:
        check_choice("params", params, ("shared", "last", "rep"))
        self.n_tasks = n_tasks
        self.device = device
        self.mtl_ext_method = method.to(device)
        self.max_norm = max_norm
        self.params = params
        self.prepare = prepare
        self.returns_loss = returns_loss

    def backward(
        self,
        losses: Tensor,
        shared_parameters: Parameters | None = None,
        task_specific_parameters: Parameters | None = None,
        last_shared_parameters: Parameters | None = None,
        representation: Tensor | Sequence[Tensor] | None = None,
        **_: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Computes the gradients of one step.

        Args:
            losses: [K]; for ``sdmgrad`` [3 K], the losses of three batches, one behind another.
            shared_parameters: a tensor or several.
            task_specific_parameters: not needed.
            last_shared_parameters: those of the last shared layer, for ``params="last"``.
            representation: what the heads read, for ``params="rep"``.

        Returns:
            The weighted loss, or None where nash-mtl returns none; and a dictionary with ``weights`` [K], of methods of
            gradients also ``GTG``, their inner products as an array [K, K], and of FAMO ``logits`` [K].

        Raises:
            ValueError: an argument is missing or has another number of tasks.
            NonFiniteError: a loss or a gradient is NaN or infinite.
        """
        batches = self.mtl_ext_method.batches
        check_num_tasks(len(losses), batches * self.n_tasks)
        prepared = losses if self.prepare is None else self.prepare(losses)
        options: dict[str, Any] = {}
        if isinstance(self.mtl_ext_method, GradMethod):
            options = self._where(shared_parameters, last_shared_parameters, representation)
        if batches > 1:  # the first batch's gradients are combined, which is the last one here
            first, second, third = prepared.chunk(batches)
            weights = self.mtl_ext_method.backward([second, third, first], **options, retain_graph=True)
        else:
            weights = self.mtl_ext_method.backward(prepared, **options)
        if self.max_norm > 0 and isinstance(self.mtl_ext_method, GradMethod):
            nn.utils.clip_grad_norm_(_listed("shared_parameters", shared_parameters), self.max_norm)
        weights = weights.to(losses.dtype)
        extra: dict[str, Any] = {"weights": weights}
        if self.mtl_ext_method.gram is not None:
            extra["GTG"] = self.mtl_ext_method.gram.cpu().numpy()
        if isinstance(self.mtl_ext_method, methods.FAMO):
            extra["logits"] = self.mtl_ext_method.logits.clone()
        loss = (weights * prepared.detach()[: self.n_tasks]).sum()
        return loss if self.returns_loss else None, extra

    def __call__(self, *arguments: Any, **options: Any) -> tuple[Tensor | None, dict[str, Any]]:
        """The same as `backward`."""
        return self.backward(*arguments, **options)

    def _where(self, shared: Parameters | None, last: Parameters | None, representation: Any) -> dict[str, Any]:
        """Where the gradients are taken. Behind "last" the rest of the network counts as heads, which are weighed."""
        if self.params == "rep":
            if representation is None:
                raise ValueError("representation is None, expected the tensor that the heads read: params is 'rep'")
            return {"features": representation}
        if self.params == "last":
            return {"shared": _listed("last_shared_parameters", last)}
        return {"shared": _listed("shared_parameters", shared)}

    def parameters(self) -> list[Tensor]:
        """What is to be trained with the network."""
        return list(self.mtl_ext_method.parameters())

    def update(self, curr_loss: Tensor) -> None:
        """Takes the losses [K] of the same batch after the optimizer's step, for ``famo``."""
        self.mtl_ext_method.look_again(curr_loss)

    def set_min_losses(self, losses: Tensor) -> None:
        """Sets the losses [K] below which ``famo``'s cannot fall."""
        bounds = task_values("losses", losses, self.n_tasks)
        self.mtl_ext_method.get_buffer("lower_bounds").copy_(bounds)


def _listed(name: str, params: Parameters | None) -> list[Tensor]:
    if params is None:
        raise ValueError(f"{name} is None, expected the parameters that the tasks' gradients are compared by")
    return [params] if isinstance(params, Tensor) else list(params)


class LogMGDA(methods.MGDA):
    """MGDA on the gradients of the losses' logarithms; the step's length is FAMO's, as its authors have it."""

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The minimum-norm point, divided by ``sum_k w_k / L_k``; `losses` are the logarithms."""
        values = losses.exp()
        weights = super().task_weights(gram, values)
        return weights / (weights / values).sum()


class WeightedSI(methods.SI):
    """``sum_k w_k log L_k``."""

    weights: Tensor

    def __init__(self, num_tasks: int, weights: Sequence[float] | Tensor | None) -> None:
        super().__init__(num_tasks=num_tasks)
        weights = [1.0] * num_tasks if weights is None else weights
        self.register_buffer("weights", task_values("weights", weights, num_tasks, low=0.0))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum of the logarithms."""
        return self.weights @ log_of(losses)


def logarithms(losses: Tensor) -> Tensor:
    """As FAMO's fork has them."""
    return (losses + 1e-8).log()


def divided(losses: Tensor) -> Tensor:
    """Of which the sum is the mean of the losses."""
    return losses / len(losses)


Maker = Callable[..., WeightMethod]


def _stl(n_tasks: int, device: Any, main_task: int) -> WeightMethod:
    weights = [float(k == main_task) for k in range(n_tasks)]
    return WeightMethod(n_tasks, device, methods.FixedWeights(n_tasks, weights=weights))


def _ls(n_tasks: int, device: Any, task_weights: Sequence[float] | Tensor | None = None) -> WeightMethod:
    weights = [1.0] * n_tasks if task_weights is None else task_weights
    return WeightMethod(n_tasks, device, methods.FixedWeights(n_tasks, weights=weights))


def _mgda(mgda: type[methods.MGDA], prepare: Callable[[Tensor], Tensor] | None, reduction: str) -> Maker:
    """A maker of MGDA; there, ``normalization`` is "norm" where it is "l2" elsewhere."""

    def make(
        n_tasks: int, device: Any, params: str = "shared", normalization: str = "none", max_norm: float = 0.0
    ) -> WeightMethod:
        kind = "l2" if normalization == "norm" else normalization
        method = mgda(normalization=kind, reduction=reduction, weight_heads=True)
        return WeightMethod(n_tasks, device, method, params=params, prepare=prepare)

    return make


def _cagrad(prepare: Callable[[Tensor], Tensor] | None, default_norm: float) -> Maker:
    def make(n_tasks: int, device: Any, c: float = 0.4, max_norm: float = default_norm) -> WeightMethod:
        method = methods.CAGrad(c=c)
        return WeightMethod(n_tasks, device, method, max_norm=max_norm, prepare=prepare, returns_loss=False)

    return make


def _famo(
    n_tasks: int,
    device: Any,
    gamma: float = 1e-5,
    w_lr: float = 0.025,
    task_weights: Any = None,
    max_norm: float = 1.0,
) -> WeightMethod:
    return WeightMethod(n_tasks, device, methods.FAMO(n_tasks, lr=w_lr, weight_decay=gamma))


def _sdmgrad(n_tasks: int, device: Any, lamda: float = 0.6, niter: int = 20, max_norm: float = 1.0) -> WeightMethod:
    method = methods.SDMGrad(n_tasks, lam=lamda, iterations=niter, reduction="sum", weight_heads=False)
    return WeightMethod(n_tasks, device, method, max_norm=max_norm, returns_loss=False)


def _nash(
    n_tasks: int, device: Any, max_norm: float = 1.0, update_weights_every: int = 1, optim_niter: int = 20
) -> WeightMethod:
    method = methods.NashMTL(n_tasks, max_norm=None, update_every=update_weights_every)
    return WeightMethod(n_tasks, device, method, max_norm=max_norm)


def _fairgrad(n_tasks: int, device: Any, alpha: float = 1.0, max_norm: float = 1.0) -> WeightMethod:
    method = methods.FairGrad(alpha=alpha, max_norm=None, weight_heads=False)
    return WeightMethod(n_tasks, device, method, max_norm=max_norm, returns_loss=False)


def _go4align(
    n_tasks: int, device: Any, num_groups: int, task_weights: Any = None, robust_step_size: float = 1e-4
) -> WeightMethod:
    return WeightMethod(n_tasks, device, methods.GO4Align(n_tasks, num_groups=num_groups, eta=robust_step_size))


# Name -> what makes the method from n_tasks, device and its options.
METHODS: dict[str, Maker] = {
    "stl": _stl,
    "ls": _ls,
    "uw": lambda n_tasks, device: WeightMethod(n_tasks, device, methods.UW(n_tasks)),
    "pcgrad": lambda n_tasks, device, reduction="sum": WeightMethod(
        n_tasks, device, methods.PCGrad(reduction=reduction, seed=program_seed()), returns_loss=False
    ),
    "mgda": _mgda(methods.MGDA, None, "sum"),
    "cagrad": _cagrad(None, 0.0),
    "nashmtl": _nash,
    "scaleinvls": lambda n_tasks, device, task_weights=None: WeightMethod(
        n_tasks, device, WeightedSI(n_tasks, task_weights)
    ),
    "rlw": lambda n_tasks, device: WeightMethod(n_tasks, device, methods.RLW(seed=program_seed())),
    "imtl": lambda n_tasks, device: WeightMethod(n_tasks, device, methods.IMTLG(weight_heads=True)),
    "dwa": lambda n_tasks, device, iteration_window=25, temp=2.0: WeightMethod(
        n_tasks, device, methods.DWA(n_tasks, temperature=temp, window=iteration_window), prepare=divided
    ),
    "graddrop": lambda n_tasks, device, max_norm=1.0: WeightMethod(
        n_tasks, device, methods.GradDrop(seed=program_seed()), max_norm=max_norm, returns_loss=False
    ),
    "log_mgda": _mgda(LogMGDA, logarithms, "mean"),
    "log_cagrad": _cagrad(logarithms, 1.0),
    "log_imtl": lambda n_tasks, device: WeightMethod(
        n_tasks, device, methods.IMTLG(weight_heads=True), prepare=logarithms
    ),
    "famo": _famo,
    "fairgrad": _fairgrad,
    "sdmgrad": _sdmgrad,
    "go4align": _go4align,
}


class WeightMethods:
    """A method by its name in nash-mtl or one of its forks.

    Args:
        method: one of `METHODS`.
        n_tasks: K.
        device: where the method's state is.
        kwargs: of the method, as there.

    Attributes:
        method: the `WeightMethod`.

    Raises:
        ValueError: there is no such method, or an option is out of its range.
    """

    def __init__(self, method: str, n_tasks: int, device: torch.device | str, **kwargs: Any) -> None:
        check_choice("method", method, tuple(METHODS))
        self.method = METHODS[method](n_tasks=n_tasks, device=device, **kwargs)

    def backward(self, losses: Tensor, **kwargs: Any) -> tuple[Tensor | None, dict[str, Any]]:
        """See `WeightMethod.backward`."""
        return self.method.backward(losses, **kwargs)

    def parameters(self) -> list[Tensor]:
        """What is to be trained with the network."""
        return self.method.parameters()
