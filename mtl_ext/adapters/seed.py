"""Where the methods' own generators start when another library's program says nothing of them."""

import torch


def program_seed() -> int:
    """What the program gave to ``torch.manual_seed``, as a 63-bit integer."""
    return torch.initial_seed() & (2**63 - 1)
