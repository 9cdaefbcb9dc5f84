"""What is known about one rendered scene."""

from dataclasses import dataclass

import numpy as np

CLASSES = ("wall", "floor", "ceiling", "ball", "crate", "can", "mug")


@dataclass(frozen=True)
class Scene:
    """An image [H, W] with everything that is true of it. The camera looks along +z, x points right, y down.

    Attributes:
        rgb: [H, W, 3] float32 in [0, 1].
        depth: [H, W] float32, metres along the optical axis, above 0.
        normals: [H, W, 3] float32, unit vectors in camera coordinates, towards the camera.
        semantics: [H, W] int16, index into CLASSES.
        parts: [H, W] int16, 0 outside objects; an object's body is 1, its top or upper half 2.
        disparity: [H, W] float32, pixels, for a second camera `baseline` metres to the right.
        instances: [H, W] int16, 0 where there is no object, else 1 .. n.
        amodal: [n, H, W] bool, each object's whole outline, whether hidden or not. Objects may be invisible.
        classes: [n] int16, each object's index into CLASSES.
        occlusion: [n] float32, the share of each object's outline that others hide, 0 .. 1.
        boxes: [n, 4] int32, x0, y0, x1, y1 around each outline, ends excluded.
        edges: [H, W] bool, where neighbouring pixels belong to different objects or surfaces.
        saliency: [H, W] bool, the pixels of the scene's most prominent objects.
        intrinsics: [3, 3] float64, the camera's matrix, in pixels.
        baseline: metres between the two cameras.
    """

    rgb: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    semantics: np.ndarray
    parts: np.ndarray
    disparity: np.ndarray
    instances: np.ndarray
    amodal: np.ndarray
    classes: np.ndarray
    occlusion: np.ndarray
    boxes: np.ndarray
    edges: np.ndarray
    saliency: np.ndarray
    intrinsics: np.ndarray
    baseline: float
