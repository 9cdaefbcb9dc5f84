"""Philox4x32-10 (Salmon et al. 2011) in PyTorch: the random numbers of the references."""

from torch import Tensor

WORD = 0xFFFFFFFF


def multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product, by halves that stay within int64."""
    upper = constant * (word >> 16)
    lower = constant * (word & 0xFFFF)
    return (upper + (lower >> 16)) >> 16, (((upper & 0xFFFF) << 16) + lower) & WORD


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words per counter.

    Args:
        counter: four int64 tensors of words, broadcast against each other.
        key: two int64 tensors of words.
    """
    c0, c1, c2, c3 = counter
    low, high = key
    for _ in range(10):
        high0, low0 = multiply(0xD2511F53, c0)
        high2, low2 = multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high2 ^ c1 ^ low, low2, high0 ^ c3 ^ high, low0
        low, high = (low + 0x9E3779B9) & WORD, (high + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def philox_uniform(seed: Tensor, tensor: int, index: Tensor) -> Tensor:
    """The uniform numbers in [0, 1) of elements of one tensor.

    Args:
        seed: [2], int64: seed and step.
        tensor: index of the tensor in its list.
        index: int64, any shape: element i draws word i mod 4 of counter (i / 4 low, i / 4 high, tensor, step) under
            the key (seed low, seed high).

    Returns:
        float32 tensor of the shape of ``index``: the words' upper 24 bits times 2^-24.
    """
    block = index // 4
    of_list = block.new_full((), tensor)
    words = philox4x32((block & WORD, block >> 32, of_list, seed[1] & WORD), (seed[0] & WORD, (seed[0] >> 32) & WORD))
    chosen = words[3]
    for position in range(3):
        chosen = chosen.where(index % 4 != position, words[position])
    return (chosen >> 8).float() * 2.0**-24
