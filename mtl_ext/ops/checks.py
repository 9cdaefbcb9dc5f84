"""What the operators accept, and the words they refuse the rest with: the Python twin of csrc/task_grads.h."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SUPPORTED_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def refuse(op: str, text: str) -> None:
    """Raises the operators' error: RuntimeError, prefixed with the operator's name."""
    raise RuntimeError(f"mtl_ext::{op}: {text}")


def check_not_empty(op: str, grads: Sequence[Tensor]) -> None:
    """Refuses an empty list, on which torch's dispatcher would fail with a text of its own."""
    if len(grads) == 0:
        refuse(op, "len(grads) is 0, expected a positive multiple of num_tasks (task-major: grads[k * P + p])")


def check_task_grads(op: str, grads: Sequence[Tensor], num_tasks: int) -> int:
    """Checks a task-major list of gradients and returns the number of parameters P.

    Args:
        op: name of the operator, for the messages.
        grads: K * P strided tensors; an empty tensor is an absent gradient.
        num_tasks: K.

    Raises:
        RuntimeError: naming the operator, the tensor's index, what was found and what was expected.
    """
    if num_tasks < 1:
        refuse(op, f"num_tasks is {num_tasks}, expected at least 1")
    if len(grads) == 0 or len(grads) % num_tasks != 0:
        expected = f"a positive multiple of num_tasks = {num_tasks} (task-major: grads[k * P + p])"
        refuse(op, f"len(grads) is {len(grads)}, expected {expected}")
    num_params = len(grads) // num_tasks
    first: list[int | None] = [None] * num_params
    for index, grad in enumerate(grads):
        name = f"grads[{index}] (task {index // num_params}, parameter {index % num_params})"
        if grad.layout != torch.strided:
            refuse(op, f"{name} has layout {grad.layout}, expected torch.strided: call .to_dense()")
        if grad.device != grads[0].device:
            refuse(op, f"{name} is on {grad.device}, expected {grads[0].device} as grads[0]")
        if grad.numel() == 0:
            continue
        reference = first[index % num_params]
        if reference is None:
            if grad.dtype not in SUPPORTED_DTYPES:
                expected = "torch.float64, torch.float32, torch.bfloat16 or torch.float16"
                refuse(op, f"{name} has dtype {grad.dtype}, expected {expected}")
            first[index % num_params] = index
            continue
        as_in = f"as in grads[{reference}] (task {reference // num_params})"
        if grad.dtype != grads[reference].dtype:
            refuse(op, f"{name} has dtype {grad.dtype}, expected {grads[reference].dtype} {as_in}")
        if grad.shape != grads[reference].shape:
            shape = list(grads[reference].shape)
            text = f"{name} has shape {list(grad.shape)}, expected {shape} {as_in}"
            refuse(op, f"{text}; an absent gradient is an empty tensor")
    return num_params


def check_out_not_empty(op: str, out: Sequence[Tensor], grads: Sequence[Tensor], num_tasks: int) -> None:
    """Refuses an empty output list, which the dispatcher cannot place on a device."""
    if len(out) == 0:
        refuse(op, f"len(out) is 0, expected {len(grads) // max(1, num_tasks)} = len(grads) / K")


def first_present(grads: Sequence[Tensor], param: int, num_params: int) -> int | None:
    """Index in the list of the first task's gradient that a parameter has, or None."""
    return next((index for index in range(param, len(grads), num_params) if grads[index].numel() > 0), None)


def check_like(op: str, argument: str, found: Sequence[Tensor], grads: Sequence[Tensor], num_tasks: int) -> None:
    """Checks P tensors that go with the gradients of their parameter: same device, dtype and shape."""
    num_params = len(grads) // num_tasks
    if len(found) != num_params:
        refuse(op, f"len({argument}) is {len(found)}, expected {num_params} = len(grads) / K")
    for param, tensor in enumerate(found):
        index = first_present(grads, param, num_params)
        if index is None:
            continue
        name, like, as_in = f"{argument}[{param}]", grads[index], f"as in grads[{index}]"
        if tensor.device != like.device:
            refuse(op, f"{name} is on {tensor.device}, expected {like.device} {as_in}")
        if tensor.dtype != like.dtype:
            refuse(op, f"{name} has dtype {tensor.dtype}, expected {like.dtype} {as_in}")
        if tensor.shape != like.shape:
            refuse(op, f"{name} has shape {list(tensor.shape)}, expected {list(like.shape)} {as_in}")


def check_out(op: str, out: Sequence[Tensor], grads: Sequence[Tensor], num_tasks: int) -> None:
    """Checks the outputs of an in-place operator: P dense tensors like the gradients of their parameter."""
    check_like(op, "out", out, grads, num_tasks)
    for param, tensor in enumerate(out):
        if first_present(grads, param, len(out)) is not None and not is_dense(tensor):
            expected = "a dense tensor to write into: pass out[p].contiguous()"
            refuse(op, f"out[{param}] has strides {list(tensor.stride())}, expected {expected}")


def check_weights(op: str, weights: Tensor, grads: Sequence[Tensor]) -> int:
    """Checks the task weights, [K] or a row per parameter [P, K], and returns K."""
    found = f"weights has shape {list(weights.shape)}, expected [K]"
    if weights.dim() not in (1, 2) or weights.shape[-1] < 1:
        refuse(op, f"{found} or [P, K] with K at least 1")
    if weights.dim() == 2 and weights.numel() != len(grads):
        refuse(op, f"{found}, or [P, K] with P = len(grads) / K where len(grads) is {len(grads)}")
    check_vector(op, "weights", weights, torch.float64, grads)
    return weights.shape[-1]


def check_groups(op: str, groups: Sequence[int], num_params: int) -> int:
    """Checks the group of each parameter and returns the number of groups."""
    if len(groups) != num_params:
        refuse(op, f"len(groups) is {len(groups)}, expected {num_params} = len(grads) / K")
    for param, group in enumerate(groups):
        if not 0 <= group < num_params:
            expected = f"0 to {num_params - 1} (at most a group for each parameter)"
            refuse(op, f"groups[{param}] is {group}, expected {expected}")
    return 1 + max(groups)


def check_gram(op: str, gram: Tensor, *, batched: bool) -> None:
    """Checks a [K, K] float64 Gram matrix, or a batch of them."""
    square = gram.dim() >= 2 and gram.shape[-1] == gram.shape[-2] and gram.shape[-1] >= 1
    if not square or (gram.dim() > 2 and not batched):
        shape = "[..., K, K]" if batched else "[K, K]"
        refuse(op, f"gram has shape {list(gram.shape)}, expected {shape} with K at least 1")
    if gram.dtype != torch.float64:
        refuse(op, f"gram has dtype {gram.dtype}, expected torch.float64 (as ops.gram returns it)")


def check_lower(op: str, lower: Tensor, gram: Tensor) -> None:
    """Checks dual_cone's lower bounds [..., M, K] against its Gram matrices [..., K, K]."""
    if lower.dim() != gram.dim() or lower.shape[:-2] != gram.shape[:-2] or lower.shape[-1] != gram.shape[-1]:
        expected = f"[..., M, K] where gram is [..., K, K] = {list(gram.shape)}"
        refuse(op, f"lower has shape {list(lower.shape)}, expected {expected}")
    if lower.dtype != torch.float64:
        refuse(op, f"lower has dtype {lower.dtype}, expected torch.float64")
    if lower.device != gram.device:
        refuse(op, f"lower is on {lower.device}, expected {gram.device} as gram")


def check_cagrad(op: str, c: float, eps: float) -> None:
    """Checks cagrad's radius and the epsilon of its gradients."""
    if not 0 <= c < math.inf:
        refuse(op, f"c is {c:g}, expected a finite number of at least 0")
    if not 0 < eps < 1:
        refuse(op, f"eps is {eps:g}, expected a number between 0 and 1")


def check_order(op: str, order: Tensor, gram: Tensor) -> None:
    """Checks the orders [K, K - 1], or one per Gram matrix, of what visits each task's others in turn."""
    num_tasks = gram.shape[-1]
    shared, own = [num_tasks, num_tasks - 1], [*gram.shape[:-1], num_tasks - 1]
    if list(order.shape) not in (shared, own):
        expected = f"[K, K - 1] = {shared}" + (f" or [..., K, K - 1] = {own}" if gram.dim() > 2 else "")
        refuse(op, f"order has shape {list(order.shape)}, expected {expected}")
    if order.dtype != torch.int64:
        refuse(op, f"order has dtype {order.dtype}, expected torch.int64")
    if order.device != gram.device:
        refuse(op, f"order is on {order.device}, expected {gram.device} as gram")


def check_like_gram(op: str, name: str, tensor: Tensor, gram: Tensor) -> None:
    """Checks an argument that has a Gram matrix's shape, dtype and device."""
    if tensor.shape != gram.shape:
        refuse(op, f"{name} has shape {list(tensor.shape)}, expected {list(gram.shape)} as gram")
    if tensor.dtype != gram.dtype:
        refuse(op, f"{name} has dtype {tensor.dtype}, expected {gram.dtype} as gram")
    if tensor.device != gram.device:
        refuse(op, f"{name} is on {tensor.device}, expected {gram.device} as gram")


def is_dense(tensor: Tensor) -> bool:
    """Whether every element has its own address and there are no gaps between them."""
    expected = 1
    strides = sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1)
    for stride, size in strides:
        if stride != expected:
            return False
        expected *= size
    return True


def new_output(column: Sequence[Tensor]) -> Tensor:
    """A new tensor in the layout of one parameter's gradients, contiguous where they do not agree on a dense one."""
    present = [grad for grad in column if grad.numel() > 0]
    if not present:
        return torch.empty_like(column[0])
    strides = [
        [stride for stride, size in zip(grad.stride(), grad.shape, strict=True) if size != 1] for grad in present
    ]
    if all(stride == strides[0] for stride in strides) and is_dense(present[0]):
        return torch.empty_like(present[0])
    return torch.empty_like(present[0], memory_format=torch.contiguous_format)


def check_graddrop(
    op: str,
    grads: Sequence[Tensor],
    num_tasks: int,
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    *,
    per_sample: bool = False,
) -> None:
    """Checks graddrop's draw (per element, or per position of a sample) and leak against checked gradients."""
    if (seed is None) == (len(uniform) == 0):
        refuse(op, f"expected either seed or uniform, found {'neither' if seed is None else 'both'}")
    if leak is not None:
        if leak.shape != (num_tasks,):
            refuse(op, f"leak has shape {list(leak.shape)}, expected [K] = [{num_tasks}]")
        check_vector(op, "leak", leak, torch.float64, grads)
    if seed is not None:
        if seed.shape != (2,):
            refuse(op, f"seed has shape {list(seed.shape)}, expected [2] (seed, step)")
        check_vector(op, "seed", seed, torch.int64, grads)
    else:
        check_uniform(op, uniform, grads, num_tasks, per_sample=per_sample)


def check_vector(op: str, name: str, vector: Tensor, dtype: torch.dtype, grads: Sequence[Tensor]) -> None:
    """Checks dtype and device of a small argument beside a gradient list."""
    if vector.dtype != dtype:
        refuse(op, f"{name} has dtype {vector.dtype}, expected {dtype}")
    if vector.device != grads[0].device:
        refuse(op, f"{name} is on {vector.device}, expected {grads[0].device} as grads[0]")


def check_features(op: str, features: Sequence[Tensor], grads: Sequence[Tensor], num_tasks: int) -> None:
    """Checks P feature tensors [B, ...] like their gradients."""
    check_like(op, "features", features, grads, num_tasks)
    for param, feature in enumerate(features):
        if first_present(grads, param, len(features)) is not None and feature.dim() == 0:
            refuse(op, f"features[{param}] has shape [], expected [B, ...] with the batch in front")


def check_uniform(
    op: str, uniform: Sequence[Tensor], grads: Sequence[Tensor], num_tasks: int, *, per_sample: bool
) -> None:
    """Checks P float32 tensors of the parameters' shapes, or of those of one sample."""
    num_params = len(grads) // num_tasks
    if len(uniform) != num_params:
        refuse(op, f"len(uniform) is {len(uniform)}, expected {num_params} = len(grads) / K")
    for param, found in enumerate(uniform):
        index = first_present(grads, param, num_params)
        if index is None:
            continue
        name, like = f"uniform[{param}]", grads[index]
        if found.device != like.device:
            refuse(op, f"{name} is on {found.device}, expected {like.device}")
        if found.dtype != torch.float32:
            refuse(op, f"{name} has dtype {found.dtype}, expected torch.float32")
        shape = like.shape[1:] if per_sample else like.shape
        if found.shape != shape:
            as_in = "as a sample of" if per_sample else "as in"
            refuse(op, f"{name} has shape {list(found.shape)}, expected {list(shape)} {as_in} grads[{index}]")
