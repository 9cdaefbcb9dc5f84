"""LibMTL's weightings as mix-ins over this package's methods: one line for each.

Mapped arguments have LibMTL's names and defaults, and LibMTL's choices where those differ from the papers' (CAGrad and
UPGrad take the mean, FairGrad is not bounded, heads are weighed or not as LibMTL does). Results are LibMTL's but for:

- ``rep_grad=True``: EW, UW, DWA, GLS, RLW, STCH, FAMO and ExcessMTL give LibMTL's encoder a zero gradient (ExcessMTL
  also NaN weights); here the weighted gradients reach it, as in all others. PCGrad, GradVac (whole model), CAGrad,
  Nash_MTL, FairGrad and UPGrad work there, too; MoCo, DB_MTL, MoDo and SDMGrad do not.
- Solvers: Nash_MTL and FairGrad are exact (``optim_niter`` is accepted and not needed), MGDA and CAGrad too; UPGrad is
  scale-free (``UPGrad_norm_eps`` is accepted and not needed); Aligned_MTL runs on today's torch.
- GradVac moves its targets at every visited pair, and groups by the modules that own parameters; GradDrop works at
  parameter level as well, and no gradient passes where all are 0.
- GradNorm trains its weights from the first step on, with an Adam of its own and the first batch's losses as reference;
  LibMTL begins after the first epoch.
- MoDo and SDMGrad train the heads on the third batch alone, LibMTL on the mean and on the sum of the three. The third
  batch is also the one whose gradients SDMGrad combines; LibMTL takes the first.
- DWA and STCH take an epoch's mean over batches, where LibMTL's DWA weighs them by their sizes.
- Returned weights are what the tasks' gradients are multiplied by (LibMTL's GLS and STCH return other numbers, PCGrad,
  GradDrop, FAMO and SDMGrad none). NaN or infinity in a loss or gradient raises an error that names the task.
- Random draws come from the method's own generator, seeded with ``torch.initial_seed()``, and are saved with the model,
  as is all state.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mtl_ext import methods
from mtl_ext.adapters.libmtl.representation import RepGradients
from mtl_ext.adapters.seed import program_seed
from mtl_ext.gradients import FeatureGradients
from mtl_ext.methods import GradMethod, Method


class Weighting(nn.Module):
    """What LibMTL's Trainer mixes into its model: ``class MTLmodel(architecture, weighting)``.

    Attributes:
        make_method: makes the method from the model and LibMTL's keyword arguments, with their defaults.
        takes_rep: whether ``rep_grad=True`` is possible.
        mtl_ext_method: the method, a part of the model: its parameters are trained with it, its state is saved with it.
        task_name, task_num, rep_grad, rep, rep_tasks: the architecture's. ``rep`` is the encoder's output, or one per
            task; ``rep_tasks`` are the copies that the heads read.
    """

    make_method: ClassVar[Callable[..., Method]]
    takes_rep: ClassVar[bool] = True
    mtl_ext_method: Method
    task_name: list[str]
    task_num: int
    rep_grad: bool
    rep: Tensor | dict[str, Tensor]
    rep_tasks: dict[str, Tensor]
    get_share_params: Callable[[], Any]

    def init_param(self) -> None:
        """Makes the method; LibMTL calls it once, before the model is moved and the optimizer made.

        Raises:
            ValueError: ``rep_grad=True`` with a weighting that cannot.
        """
        name = self._name()
        if self.rep_grad and not self.takes_rep:
            raise ValueError(f"{name} needs the gradients of the shared parameters: rep_grad is True, expected False")
        self._weight_args: dict[str, Any] = {}
        self._epoch: int | None = None
        self.mtl_ext_method = type(self).make_method(self)

    def backward(self, losses: Tensor, **weight_args: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Computes the gradients of one step.

        Args:
            losses: [T], or [3, T] for MoDo and SDMGrad.
            weight_args: LibMTL's keyword arguments.

        Returns:
            The task weights, [T] float64.

        Raises:
            ValueError: an argument is unknown or out of its range.
            NonFiniteError: a loss or a gradient is NaN or infinite.
        """
        method = self._configured(weight_args)
        self._notice_epoch(method)
        if method.batches > 1:
            batches = [self._named(batch) for batch in losses]
            weights = method.backward(batches, self.get_share_params(), retain_graph=True, allow_unused=True)
        elif not self.rep_grad:
            weights = method.backward(self._named(losses), self.get_share_params(), allow_unused=True)
        else:
            weights = self._backward_through_rep(method, self._named(losses))
        result: np.ndarray[Any, np.dtype[np.float64]] = weights.cpu().numpy()
        return result

    def update_w(self, curr_losses: Tensor) -> None:
        """Takes the losses [T] of the same batch after the optimizer's step; LibMTL calls it for FAMO."""
        self.mtl_ext_method.look_again(curr_losses)

    def _backward_through_rep(self, method: Method, losses: dict[str, Tensor]) -> Tensor:
        """Heads first, then one pass through the encoder."""
        roots = [self.rep if isinstance(self.rep, Tensor) else self.rep[task] for task in self.task_name]
        copies = [self.rep_tasks[task] for task in self.task_name]
        if not isinstance(method, GradMethod):
            weights = method.backward(losses)
            pairs = [(root, copy.grad) for root, copy in zip(roots, copies, strict=True) if copy.grad is not None]
            torch.autograd.backward([root for root, _ in pairs], [grad for _, grad in pairs])
            return weights
        batch_sums = not isinstance(method, methods.GradDrop)
        method.feature_gradients = functools.partial(RepGradients, copies=copies, batch_sums=batch_sums)
        try:
            return method.backward(losses, features=roots)
        finally:
            method.feature_gradients = FeatureGradients

    def _named(self, losses: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.task_name, losses, strict=True))

    def _name(self) -> str:
        return next(cls.__name__ for cls in type(self).__mro__ if "make_method" in vars(cls))

    def _configured(self, weight_args: dict[str, Any]) -> Method:
        """The method with these arguments; made anew, with its state, when they are first seen."""
        if weight_args != self._weight_args:
            known = list(inspect.signature(type(self).make_method).parameters)[1:]
            if set(weight_args) - set(known):
                raise ValueError(f"weight_args has {sorted(weight_args)}, {self._name()} expects some of {known}")
            method = type(self).make_method(self, **weight_args)
            method.load_state_dict(self.mtl_ext_method.state_dict())
            device = next((tensor.device for tensor in self.get_share_params()), None)
            self.mtl_ext_method = method.to(device)
            self._weight_args = dict(weight_args)
        return self.mtl_ext_method

    def _notice_epoch(self, method: Method) -> None:
        """Tells the method when the Trainer's ``epoch`` has moved on."""
        epoch = getattr(self, "epoch", None)
        if self._epoch is not None and epoch != self._epoch:
            method.end_epoch()
        self._epoch = epoch


def weighting(name: str, make_method: Callable[..., Method], *, takes_rep: bool = True) -> type[Weighting]:
    """A class that LibMTL's Trainer accepts as a weighting.

    Args:
        name: its name.
        make_method: called with the model, and with LibMTL's ``weight_args`` by their names; all need defaults.
        takes_rep: whether ``rep_grad=True`` is possible.
    """
    doc = f"{name} of LibMTL on this package's methods; see :mod:`mtl_ext.adapters.libmtl.weightings`."
    return type(name, (Weighting,), {"make_method": staticmethod(make_method), "takes_rep": takes_rep, "__doc__": doc})


def _uw(model: Weighting) -> methods.UW:
    method = methods.UW(model.task_num)
    nn.init.constant_(method.log_variances, -0.5)
    return method


def _gradvac(model: Weighting, GradVac_beta: float = 0.5, GradVac_group_type: int = 0) -> methods.GradVac:
    shared = {id(param) for param in model.get_share_params()}
    owned = [[p for p in module.parameters(recurse=False) if id(p) in shared] for module in model.modules()]
    kinds: dict[int, Any] = {0: "model", 1: [layer for layer in owned if layer], 2: "tensor"}
    if GradVac_group_type not in kinds:
        raise ValueError(f"GradVac_group_type is {GradVac_group_type!r}, expected one of 0, 1, 2")
    return methods.GradVac(model.task_num, beta=GradVac_beta, groups=kinds[GradVac_group_type], seed=program_seed())


def _nash(
    model: Weighting, update_weights_every: int = 1, optim_niter: int = 20, max_norm: float = 1.0
) -> methods.NashMTL:
    return methods.NashMTL(model.task_num, max_norm=max_norm or None, update_every=update_weights_every)


def _moco(
    model: Weighting,
    MoCo_beta: float = 0.5,
    MoCo_beta_sigma: float = 0.5,
    MoCo_gamma: float = 0.1,
    MoCo_gamma_sigma: float = 0.5,
    MoCo_rho: float = 0.0,
) -> methods.MoCo:
    return methods.MoCo(
        model.task_num,
        beta=MoCo_beta,
        sigma=MoCo_beta_sigma,
        gamma=MoCo_gamma,
        sigma_gamma=MoCo_gamma_sigma,
        rho=MoCo_rho,
    )


def _sdmgrad(model: Weighting, SDMGrad_lamda: float = 0.3, SDMGrad_niter: int = 20) -> methods.SDMGrad:
    return methods.SDMGrad(model.task_num, lam=SDMGrad_lamda, lr=5.0, iterations=SDMGrad_niter, weight_heads=False)


# LibMTL's keyword arguments and defaults are the parameters behind the model.
WEIGHTINGS: dict[str, type[Weighting]] = {
    cls.__name__: cls
    for cls in (
        weighting("EW", lambda model: methods.EW()),
        weighting("UW", _uw),
        weighting("DWA", lambda model, T=2.0: methods.DWA(model.task_num, temperature=T)),
        weighting("GLS", lambda model: methods.GLS()),
        weighting("RLW", lambda model: methods.RLW(seed=program_seed())),
        weighting("RGW", lambda model: methods.RGW(seed=program_seed())),
        weighting("IMTL", lambda model: methods.IMTL(model.task_num)),
        weighting(
            "GradNorm",
            lambda model, alpha=1.5: methods.GradNorm(model.task_num, alpha=alpha, layer="all", weight_heads=False),
        ),
        weighting("MGDA", lambda model, mgda_gn="none": methods.MGDA(normalization=mgda_gn)),
        weighting("PCGrad", lambda model: methods.PCGrad(seed=program_seed())),
        weighting("GradDrop", lambda model, leak=0.0: methods.GradDrop(leak=leak, seed=program_seed())),
        weighting("GradVac", _gradvac),
        weighting(
            "CAGrad",
            lambda model, calpha=0.5, rescale=1: methods.CAGrad(c=calpha, rescale=rescale, reduction="mean"),
        ),
        weighting("Nash_MTL", _nash),
        weighting("Aligned_MTL", lambda model: methods.AlignedMTL()),
        weighting("MoCo", _moco, takes_rep=False),
        weighting(
            "DB_MTL",
            lambda model, DB_beta=0.9, DB_beta_sigma=0.0: methods.DBMTL(
                model.task_num, beta=DB_beta, sigma=DB_beta_sigma
            ),
            takes_rep=False,
        ),
        weighting(
            "STCH",
            lambda model, STCH_mu=1.0, STCH_warmup_epoch=4: methods.STCH(
                model.task_num, mu=STCH_mu, warmup_epochs=STCH_warmup_epoch + 1
            ),
        ),
        weighting(
            "ExcessMTL",
            lambda model, robust_step_size=1e-2: methods.ExcessMTL(model.task_num, step_size=robust_step_size),
        ),
        weighting(
            "FairGrad",
            lambda model, FairGrad_alpha=1.0: methods.FairGrad(alpha=FairGrad_alpha, max_norm=None, reduction="mean"),
        ),
        weighting(
            "FAMO",
            lambda model, FAMO_w_lr=0.025, FAMO_w_gamma=1e-3: methods.FAMO(
                model.task_num, lr=FAMO_w_lr, weight_decay=FAMO_w_gamma
            ),
        ),
        weighting(
            "MoDo",
            lambda model, MoDo_gamma=1e-3, MoDo_rho=0.1: methods.MoDo(
                model.task_num, gamma=MoDo_gamma, rho=MoDo_rho, weight_heads=False
            ),
            takes_rep=False,
        ),
        weighting("SDMGrad", _sdmgrad, takes_rep=False),
        weighting(
            "UPGrad",
            lambda model, UPGrad_norm_eps=1e-4, UPGrad_reg_eps=1e-4: methods.UPGrad(reg_eps=UPGrad_reg_eps),
        ),
    )
}
