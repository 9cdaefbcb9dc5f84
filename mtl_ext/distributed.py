"""Guards for training in several processes."""

import gc

import torch
from torch import Tensor

from mtl_ext.heads import accumulators_before


def refuse_data_parallel(name: str, loss: Tensor) -> None:
    """Refuses parameters that DistributedDataParallel looks after, on a path with several backward passes.

    Args:
        name: of the method, for the message.
        loss: a loss whose graph holds the parameters.

    Raises:
        RuntimeError: one of them belongs to a DistributedDataParallel module.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    wrappers = [
        thing for thing in gc.get_objects() if issubclass(type(thing), torch.nn.parallel.DistributedDataParallel)
    ]
    wrapped = {id(param) for wrapper in wrappers for param in wrapper.parameters()}
    if any(id(node.variable) in wrapped for node in accumulators_before([loss], ())):  # type: ignore[attr-defined]
        raise RuntimeError(
            f"{name} makes one backward pass per task, and DistributedDataParallel averages the gradients of the first "
            "alone: the replicas would drift apart without an error. Leave the module unwrapped, start from equal "
            "parameters and average their .grad over the processes after backward; or use a method that weighs losses."
        )
