"""The camera: where it stands, where it looks, and the rays of its pixels."""

from dataclasses import dataclass

import numpy as np

from mtl_ext.data.scenes.vectors import rotate, unit

FIELD_OF_VIEW = 70.0  # degrees, horizontal
BASELINE = 0.12  # metres to the second camera


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        position: [3] in the world, metres.
        axes: [3, 3], rows are its right, down and forward directions in the world.
        height: pixels.
        width: pixels.
    """

    position: np.ndarray
    axes: np.ndarray
    height: int
    width: int

    @property
    def focal(self) -> float:
        """Focal length in pixels, the same in both directions."""
        return float(self.width / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2)))

    @property
    def intrinsics(self) -> np.ndarray:
        """[3, 3]; the middle of pixel (row v, column u) is at (u + 0.5, v + 0.5)."""
        return np.array([[self.focal, 0.0, self.width / 2], [0.0, self.focal, self.height / 2], [0.0, 0.0, 1.0]])

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Unit directions [3, H * W] in the world, row by row, and their share [H * W] along the optical axis."""
        v, u = np.mgrid[0 : self.height, 0 : self.width] + 0.5
        x, y = (u.ravel() - self.width / 2) / self.focal, (v.ravel() - self.height / 2) / self.focal
        directions = unit(np.stack([x, y, np.ones_like(x)]))
        return rotate(self.axes.T, directions), directions[2]


def place_camera(rng: np.random.Generator, height: int, width: int, tilt: float) -> Camera:
    """A camera outside the objects' circle that looks roughly at its middle.

    Args:
        rng: source of all choices.
        height: pixels.
        width: pixels.
        tilt: degrees; the camera is rolled about its axis and pitched up or down by at most so much.
    """
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.9, 2.4)
    position = np.array([distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.5, 1.8)])
    target = np.array([*rng.uniform(-0.25, 0.25, 2), rng.uniform(0.2, 0.9)])
    forward = unit(target - position)
    right = unit(np.array([forward[1], -forward[0], 0.0]))
    down = _cross(forward, right)
    roll, pitch = np.radians(rng.uniform(-tilt, tilt, 2))
    forward, down = np.cos(pitch) * forward + np.sin(pitch) * down, np.cos(pitch) * down - np.sin(pitch) * forward
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    return Camera(position, np.stack([right, down, forward]), height, width)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
