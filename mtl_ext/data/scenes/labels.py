"""Labels that follow from which surface each pixel shows and from the objects' whole outlines."""

import numpy as np

# An object is salient from this share of the most prominent object's prominence on.
PROMINENT = 0.5


def boxes_around(masks: np.ndarray) -> np.ndarray:
    """Tight boxes [n, 4] int32 (x0, y0, x1, y1, ends excluded) around masks [n, H, W], none of them empty."""
    boxes = np.zeros((len(masks), 4), dtype=np.int32)
    for axis, (first, last) in ((1, (0, 2)), (2, (1, 3))):
        along = np.asarray(masks.any(axis=axis))
        boxes[:, first] = along.argmax(axis=1)
        boxes[:, last] = along.shape[1] - along[:, ::-1].argmax(axis=1)
    return boxes


def occlusion_of(instances: np.ndarray, amodal: np.ndarray) -> np.ndarray:
    """Share [n] float32 of each outline [n, H, W] that is not seen in `instances` [H, W]."""
    visible = np.bincount(instances.ravel(), minlength=len(amodal) + 1)[1:]
    hidden: np.ndarray = 1.0 - visible / amodal.sum(axis=(1, 2))
    return hidden.astype(np.float32)


def edges_between(surfaces: np.ndarray) -> np.ndarray:
    """Pixels [H, W] bool whose left or upper neighbour shows another surface, from surface numbers [H, W]."""
    edges = np.zeros(surfaces.shape, dtype=bool)
    edges[:, 1:] |= surfaces[:, 1:] != surfaces[:, :-1]
    edges[1:] |= surfaces[1:] != surfaces[:-1]
    return edges


def salient(instances: np.ndarray, count: int) -> np.ndarray:
    """Pixels [H, W] bool of the most prominent of `count` objects.

    An object's prominence is its visible area, each pixel weighted by a Gaussian about the image's middle whose
    standard deviation is a third of the image in either direction. Objects with at least half of the highest
    prominence are salient.
    """
    height, width = instances.shape
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    weight = np.exp(-4.5 * (y[:, None] ** 2 + x**2))
    prominence = np.bincount(instances.ravel(), weights=weight.ravel(), minlength=count + 1)
    prominence[0] = 0.0
    chosen = (prominence > 0) & (prominence >= PROMINENT * prominence.max())
    mask: np.ndarray = chosen[instances]
    return mask
