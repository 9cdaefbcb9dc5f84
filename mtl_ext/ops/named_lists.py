"""Checks of lists that stand side by side under their own names: the Python twin of csrc/named_lists.h."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_ext.ops.checks import SUPPORTED_DTYPES, is_dense, refuse

Lists = Mapping[str, Sequence[Tensor]]


def check_named_lists(op: str, reads: Lists, writes: Lists | None = None) -> None:
    """Checks lists of P tensors each; an empty tensor of `reads` is absent and counts as zero.

    Args:
        op: name of the operator, for the messages.
        reads: argument name -> tensors that are read.
        writes: argument name -> tensors that are written: dense, in one layout, like those that are read.

    Raises:
        RuntimeError: naming the operator, the argument's tensor, what was found and what was expected.
    """
    lists = {**reads, **(writes or {})}
    first_name = next(iter(reads))
    num_params = len(reads[first_name])
    for name, tensors in lists.items():
        if len(tensors) != num_params:
            refuse(op, f"len({name}) is {len(tensors)}, expected {num_params} = len({first_name})")
    for param in range(num_params):
        for name, tensors in lists.items():
            _check_place(op, f"{name}[{param}]", tensors[param], f"{first_name}[0]", reads[first_name][0])
        like = next((name for name in reads if reads[name][param].numel() > 0), None)
        if like is None:
            continue
        expected = reads[like][param]
        if expected.dtype not in SUPPORTED_DTYPES:
            supported = "torch.float64, torch.float32, torch.bfloat16 or torch.float16"
            refuse(op, f"{like}[{param}] has dtype {expected.dtype}, expected {supported}")
        for name, tensors in lists.items():
            if name not in reads or tensors[param].numel() > 0:
                _check_like(op, f"{name}[{param}]", tensors[param], f"{like}[{param}]", expected)
        if writes:
            _check_layouts(op, writes, param)


def check_lists_not_empty(op: str, lists: Lists) -> None:
    """Refuses empty lists, which the dispatcher cannot place on a device."""
    for name, tensors in lists.items():
        if len(tensors) == 0:
            refuse(op, f"len({name}) is 0, expected at least 1")


def _check_place(op: str, name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    if tensor.layout != torch.strided:
        refuse(op, f"{name} has layout {tensor.layout}, expected torch.strided: call .to_dense()")
    if tensor.device != like.device:
        refuse(op, f"{name} is on {tensor.device}, expected {like.device} as {like_name}")


def _check_like(op: str, name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    if tensor.dtype != like.dtype:
        refuse(op, f"{name} has dtype {tensor.dtype}, expected {like.dtype} as {like_name}")
    if tensor.shape != like.shape:
        refuse(op, f"{name} has shape {list(tensor.shape)}, expected {list(like.shape)} as {like_name}")


def _check_layouts(op: str, writes: Lists, param: int) -> None:
    """All outputs of a parameter are walked together, in memory order."""
    first_name, first = next(iter(writes.items()))
    for name, tensors in writes.items():
        tensor, strides = tensors[param], list(tensors[param].stride())
        if not is_dense(tensor):
            text = f"expected a dense tensor to write into: pass {name}[p].contiguous()"
            refuse(op, f"{name}[{param}] has strides {strides}, {text}")
        expected = list(first[param].stride())
        if any(size != 1 and a != b for size, a, b in zip(tensor.shape, strides, expected, strict=True)):
            refuse(op, f"{name}[{param}] has strides {strides}, expected {expected} as {first_name}[{param}]")
