"""Edges between the regions of a label map."""

import numpy as np


def label_edges(label_map: np.ndarray) -> np.ndarray:
    """Thin lines between the regions of a label map, as PASCAL-Context's edge task has them.

    The pixels where the Laplacian of the label numbers is not 0 (4 neighbours, reflected borders), thinned.

    Args:
        label_map: [H, W] integers.

    Returns:
        [H, W] bool.
    """
    padded = np.pad(label_map.astype(np.int64), 1, mode="reflect" if min(label_map.shape) > 1 else "edge")
    above, below, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return thin(above + below + left + right != 4 * label_map.astype(np.int64))


def thin(mask: np.ndarray) -> np.ndarray:
    """Lines of one pixel's width in the place of thicker ones: morphological thinning (Guo & Hall 1989).

    Pixels are taken away from the south-east and the north-west in turn, all at once, where that neither breaks a line
    nor shortens one, until nothing changes: MATLAB's ``bwmorph(..., "thin")``.

    Args:
        mask: [H, W] bool.
    """
    mask = mask.copy()
    while True:
        before = int(mask.sum())
        for first in (True, False):
            mask &= ~_removable(mask, first)
        if int(mask.sum()) == before:
            return mask


def _removable(mask: np.ndarray, first: bool) -> np.ndarray:
    """The pixels that one of the two steps takes away."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    # Neighbours anticlockwise from the east.
    offsets = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
    e, ne, n, nw, w, sw, s, se = (padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in offsets)
    ring = (e, ne, n, nw, w, sw, s, se, e)
    # One run of neighbours: without the pixel they still hang together.
    crossings = sum((~ring[i] & (ring[i + 1] | ring[i + 2])).astype(int) for i in (0, 2, 4, 6))
    pairs = sum((ring[i] | ring[i + 1]).astype(int) for i in (0, 2, 4, 6))
    shifted = sum((ring[i + 1] | ring[i + 2]).astype(int) for i in (0, 2, 4, 6))
    neighbours = np.minimum(pairs, shifted)
    side = (ne | n | ~se) & e if first else (sw | s | ~nw) & w
    removable: np.ndarray = mask & (crossings == 1) & (neighbours >= 2) & (neighbours <= 3) & ~side
    return removable
