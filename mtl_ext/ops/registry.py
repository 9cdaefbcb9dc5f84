"""How an operator comes into being: schema, reference and fake in Python; kernels override the reference per device.

The reference is registered as the dispatcher's default kernel, so that every operator exists with nothing built, no
wrapper contains an ``if has_cuda``, and a kernel from the compiled library takes over its device by being registered.
"""

import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

NAMESPACE = "mtl_ext"


@dataclass(frozen=True)
class Operator:
    """One operator: what the dispatcher knows about it."""

    name: str
    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    setup_context: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None

    def define(self, namespace: str) -> None:
        """Declares schema, fake and derivative under a namespace (the emulated CUDA kernels have one of their own)."""
        name = f"{namespace}::{self.name}"
        torch.library.define(name, self.schema)
        torch.library.register_fake(name, self.fake)
        if self.backward is not None:
            torch.library.register_autograd(name, self.backward, setup_context=self.setup_context)


OPERATORS: dict[str, Operator] = {}


def define_operator(
    name: str,
    schema: str,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., Any] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Declares ``mtl_ext::name`` with its reference as the kernel of every device that has no better one.

    Args:
        name: the operator's name, the same in ops/, cpu/, cuda/ and the tests.
        schema: arguments and results, in torch's schema language.
        reference: pure PyTorch, the meaning of the operator.
        fake: shapes and dtypes of the results, for tracing.
        setup_context: what `backward` needs, as torch.library.register_autograd takes it.
        backward: the derivative; without one, the public function does not record gradients.

    Returns:
        The callable that goes through the dispatcher.
    """
    operator = Operator(name, schema, reference, fake, setup_context, backward)
    operator.define(NAMESPACE)
    torch.library.register_kernel(f"{NAMESPACE}::{name}", "default", reference)
    OPERATORS[name] = operator
    return getattr(getattr(torch.ops, NAMESPACE), name)  # type: ignore[no-any-return]


def load_kernels() -> ModuleType | None:
    """Loads the compiled library; without it, says once that the references serve instead.

    Raises:
        ImportError: the library cannot be loaded and ``MTL_EXT_REQUIRE_KERNELS=1``.
    """
    try:
        return importlib.import_module("mtl_ext._C")
    except ImportError as error:
        if os.environ.get("MTL_EXT_REQUIRE_KERNELS") == "1":
            raise
        warnings.warn(
            f"mtl_ext: the compiled kernels are not available ({error}); the slower PyTorch references serve instead. "
            "Install a C++20 compiler and reinstall with `pip install --no-build-isolation mtl_ext`.",
            stacklevel=2,
        )
        return None


def has_kernel(name: str, device: str) -> bool:
    """Whether the compiled library holds a kernel, rather than the reference, for an operator on a device.

    Args:
        name: an operator's name, for example ``"gram"``.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        KeyError: there is no such operator.
    """
    operator = OPERATORS[name]
    key = torch.device(device).type.upper()
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{operator.name}", key))
