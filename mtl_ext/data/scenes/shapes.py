"""Where rays meet spheres, boxes and capped cylinders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtl_ext.data.scenes.vectors import dot, rotate

# Hits nearer than this are the surface that a ray starts from. Metres.
NEAREST = 1e-4


class Hits(NamedTuple):
    """Where each of n rays first meets a surface from outside.

    Attributes:
        distance: [n] along the unit direction, infinite where the ray misses.
        normals: [3, n] unit vectors out of the solid; meaningless where the ray misses.
        upper: [n] bool, on the part of the surface that is the solid's top (box, cylinder) or upper half (sphere).
    """

    distance: np.ndarray
    normals: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Solid:
    """One shape in its place.

    Attributes:
        shape: ``"sphere"``, ``"box"`` or ``"cylinder"`` (its axis is its own z).
        half: [3] half of its size along its own axes; a sphere's radius is ``half[0]``, a cylinder's as well.
        centre: [3] in the world.
        rotation: [3, 3], its own axes in the world as columns.
    """

    shape: str
    half: np.ndarray
    centre: np.ndarray
    rotation: np.ndarray

    @property
    def bound(self) -> float:
        """Radius of a sphere about the centre that holds the solid."""
        if self.shape == "sphere":
            return float(self.half[0])
        if self.shape == "cylinder":
            return float(np.hypot(self.half[0], self.half[2]))
        return float(np.sqrt(dot(self.half, self.half)))


def hit(solids: tuple[Solid, ...], origins: np.ndarray, directions: np.ndarray) -> Hits:
    """Where rays first meet the union of some solids.

    Args:
        solids: at least one.
        origins: [3, n], or [3, 1] for all rays.
        directions: [3, n] unit vectors.
    """
    n = directions.shape[1]
    distance, normals, upper = np.full(n, np.inf), np.zeros((3, n)), np.zeros(n, dtype=bool)
    for solid in solids:
        near = np.flatnonzero(_may_meet(solid, origins, directions))
        local = _hit_solid(solid, origins if origins.shape[1] == 1 else origins[:, near], directions[:, near])
        first = local.distance < distance[near]
        rays = near[first]
        distance[rays], upper[rays] = local.distance[first], local.upper[first]
        normals[:, rays] = rotate(solid.rotation, local.normals[:, first])
    return Hits(distance, normals, upper)


def _may_meet(solid: Solid, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Rays [n] bool that pass the solid's bounding sphere: all others are spared the exact test."""
    to_centre = solid.centre[:, None] - origins
    along = dot(to_centre, directions)
    off_axis: np.ndarray = dot(to_centre, to_centre) - along * along <= solid.bound**2 * (1 + 1e-9)
    return off_axis & (along > -solid.bound)


def _hit_solid(solid: Solid, origins: np.ndarray, directions: np.ndarray) -> Hits:
    """Hits with normals in the solid's own axes."""
    to_own = solid.rotation.T
    o, d = rotate(to_own, origins - solid.centre[:, None]), rotate(to_own, directions)
    # Rays along a face divide by 0; the infinities that come of it compare as they should.
    with np.errstate(divide="ignore", invalid="ignore"):
        return SHAPES[solid.shape](o, d, solid.half)


def _sphere(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> Hits:
    along = dot(o, d)
    t = -along - np.sqrt(along * along - dot(o, o) + half[0] ** 2)
    t = np.where(t > NEAREST, t, np.inf)
    normals = (o + np.where(np.isfinite(t), t, 0.0) * d) / half[0]
    return Hits(t, normals, normals[2] > 0)


def _box(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> Hits:
    sides = half[:, None]
    one, other = (-sides - o) / d, (sides - o) / d
    enters = np.minimum(one, other)
    t, axis = enters.max(axis=0), enters.argmax(axis=0)
    met = (t < np.maximum(one, other).min(axis=0)) & (t > NEAREST)
    normals = np.where(np.arange(3)[:, None] == axis, -np.sign(d), 0.0)
    return Hits(np.where(met, t, np.inf), normals, normals[2] > 0)


def _cylinder(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> Hits:
    radius, height = half[0], half[2]
    a = d[0] * d[0] + d[1] * d[1]
    b = o[0] * d[0] + o[1] * d[1]
    side = (-b - np.sqrt(b * b - a * (o[0] * o[0] + o[1] * o[1] - radius**2))) / a
    side = np.where((side > NEAREST) & (np.abs(o[2] + side * d[2]) < height), side, np.inf)
    # Of the two caps a ray can enter by the one that faces it only.
    facing = -np.sign(d[2])
    cap = (facing * height - o[2]) / d[2]
    off_axis = np.hypot(o[0] + cap * d[0], o[1] + cap * d[1])
    cap = np.where((cap > NEAREST) & (off_axis < radius), cap, np.inf)
    on_cap = cap < side
    t = np.where(on_cap, cap, side)
    reached = np.where(np.isfinite(t), t, 0.0)
    normals = np.where(
        on_cap,
        np.stack([np.zeros_like(t), np.zeros_like(t), facing]),
        np.stack([(o[0] + reached * d[0]) / radius, (o[1] + reached * d[1]) / radius, np.zeros_like(t)]),
    )
    return Hits(t, normals, normals[2] > 0)


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Hits]] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
}
