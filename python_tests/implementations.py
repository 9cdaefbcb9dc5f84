"""The implementations of one operator that every row runs on: reference, kernel and emulated CUDA kernel."""

import functools
import importlib.util

import torch
from conftest import require_or_skip

from mtl_ext import ops

IMPLEMENTATIONS = ("reference", "kernel", "emulation")
EMULATION = "mtl_ext_emulation"


@functools.cache
def load_emulation():
    """Declares the operators under the emulation's namespace and loads their kernels, once."""
    require_or_skip(importlib.util.find_spec("mtl_ext._emulation") is not None, "mtl_ext._emulation is not built")
    for operator in ops.OPERATORS.values():
        operator.define(EMULATION)
    return importlib.import_module("mtl_ext._emulation")


def find(op, implementation, device):
    """The callable of an operator's implementation; skips or fails where it is missing."""
    if implementation == "reference":
        return ops.OPERATORS[op].reference
    if implementation == "kernel":
        require_or_skip(ops.has_kernel(op, device.type), f"{op} has no kernel for {device.type}")
        return getattr(torch.ops.mtl_ext, op).default
    require_or_skip(device.type == "cpu", "the emulation runs on the CPU")
    load_emulation()
    found = torch._C._dispatch_has_kernel_for_dispatch_key(f"{EMULATION}::{op}", "CPU")
    require_or_skip(found, f"{op} has no emulated CUDA kernel")
    return getattr(getattr(torch.ops, EMULATION), op).default
