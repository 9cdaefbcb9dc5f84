"""Fast, correct multi-task learning optimisation for PyTorch.

losses [K] -> per-task gradients (K * P) -> gram [K, K] -> weights [K] -> combined gradient (P) -> ``.grad``
"""

from mtl_ext import ops

__all__ = ["ops"]
__version__ = "0.1.0"
