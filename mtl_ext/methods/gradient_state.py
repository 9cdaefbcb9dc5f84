"""State of the size of all tasks' gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from mtl_ext import ops
from mtl_ext.gradients import FeatureGradients, TaskGradients


class GradientState(nn.Module):
    """K * P buffers in the shapes of the tasks' gradients, made when these are first seen, starting at 0.

    In the gradients' dtype, but at least float32. A ``state_dict`` that holds them loads into a fresh instance.

    At feature level a row of the state belongs to a place in the batch, since which sample stands there changes from
    step to step anyway. A smaller batch, such as an epoch's last, uses and changes the first rows only; a larger one
    adds rows of 0.

    Args:
        owner: name of the method, for messages.
    """

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def like(self, gradients: TaskGradients) -> list[Tensor]:
        """The state in the gradients' shapes, task-major, on their device: the buffers, or their first rows.

        Raises:
            ValueError: the gradients have other shapes than before, in more than the size of the batch.
        """
        targets = list(gradients.targets) * len(gradients.losses)
        if not self._buffers:
            for index, target in enumerate(targets):
                self.register_buffer(str(index), torch.zeros_like(target.detach(), dtype=wide(target.dtype)))
        fixed = 1 if isinstance(gradients, FeatureGradients) else 0  # from which dimension on shapes must agree
        self._check_shapes(gradients, targets, fixed)
        state = []
        for name, target in zip(list(self._buffers), targets, strict=True):
            buffer = self.get_buffer(name).to(target.device, wide(target.dtype))
            missing = len(target) - len(buffer) if fixed and target.dim() > 0 else 0
            if missing > 0:
                buffer = torch.cat([buffer, buffer.new_zeros(missing, *buffer.shape[1:])])
            self._buffers[name] = buffer
            state.append(buffer[: len(target)] if missing < 0 else buffer)
        return state

    def _check_shapes(self, gradients: TaskGradients, targets: list[Tensor], fixed: int) -> None:
        found = [buffer.shape for buffer in self.buffers()]
        wanted = [target.shape for target in targets]
        if [shape[fixed:] for shape in found] == [shape[fixed:] for shape in wanted]:
            return
        count = len(gradients.targets)
        text = f"gradients of {len(gradients.losses)} tasks and {count} tensors"
        if len(found) == len(wanted):
            index = next(index for index, shape in enumerate(wanted) if shape[fixed:] != found[index][fixed:])
            text = (
                f"a gradient (tensor {index % count}) of shape {list(wanted[index])} in place of {list(found[index])}"
            )
        raise ValueError(
            f"{self.owner} keeps state of the gradients' size and got {text}: features= needs samples of one shape, "
            "shared= always the same parameters; start with a fresh method otherwise"
        )

    def average_in(self, gradients: TaskGradients, keep: Tensor, factors: Tensor, usable: Tensor) -> list[Tensor]:
        """``S_k <- keep S_k + factors[k] g_k`` in place.

        Args:
            gradients: of the tasks.
            keep: scalar, float64.
            factors: [K] float64.
            usable: scalar; where it is not 1, everything stays as it is and no gradient is read.

        Returns:
            The state, as `like` gives it.
        """
        count, state = len(gradients.targets), self.like(gradients)
        for k, factor in enumerate(factors):
            own = state[k * count : (k + 1) * count]
            grads = [grad.to(wide(grad.dtype)) for grad in gradients.tensors[k * count : (k + 1) * count]]
            weights = torch.stack([torch.where(usable == 1, keep, 1.0), torch.where(usable == 1, factor, 0.0)])
            ops.combine_(own, [*own, *grads], weights)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Makes the buffers that are saved, then loads them as usual."""
        self._buffers.clear()
        while (key := f"{prefix}{len(self._buffers)}") in state_dict:
            self.register_buffer(key.removeprefix(prefix), torch.empty_like(state_dict[key]))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def combined_states(state: list[Tensor], gradients: TaskGradients, weights: Tensor) -> list[Tensor]:
    """``sum_k weights[k] S_k`` as P tensors of the gradients' dtypes; empty where no task has a gradient."""
    count = len(gradients.targets)
    reached = [any(grad.numel() > 0 for grad in gradients.tensors[p::count]) for p in range(count)]
    sums = zip(ops.combine(state, weights), gradients.targets, reached, strict=True)
    return [total.to(target.dtype) if some else target.new_empty(0) for total, target, some in sums]


def wide(dtype: torch.dtype) -> torch.dtype:
    """At least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
