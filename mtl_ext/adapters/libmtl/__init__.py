"""LibMTL (git main) on this package's methods and operators: a LibMTL program adds one line.

    from mtl_ext.adapters.libmtl import accelerate; accelerate()          # before the Trainer is made

After that ``Trainer(weighting="PCGrad", ...)`` trains with this package's PCGrad, and so for every single-loop
weighting; names and ``weight_args`` stay LibMTL's. A weighting of one's own, derived from ``AbsWeighting``, gets its
gradients without LibMTL's way through the CPU. `restore` undoes it. To take one class alone, or under another name::

    setattr(LibMTL.weighting, "FastPCGrad", WEIGHTINGS["PCGrad"])         # Trainer(weighting="FastPCGrad", ...)
    setattr(LibMTL.weighting, "ConFIG", weighting("ConFIG", lambda model: methods.ConFIG()))

``FAMO``, ``MoDo`` and ``SDMGrad`` must keep their names, by which the Trainer knows them. Nothing of LibMTL is imported
before `accelerate` is called.
"""

from mtl_ext.adapters.libmtl.patch import accelerate, restore
from mtl_ext.adapters.libmtl.weightings import WEIGHTINGS, Weighting, weighting
from mtl_ext.adapters.patching import Report

__all__ = ["WEIGHTINGS", "Report", "Weighting", "accelerate", "restore", "weighting"]
