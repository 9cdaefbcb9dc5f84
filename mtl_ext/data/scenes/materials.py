"""What surfaces look like: colours, and bright patterns that say nothing about the shape beneath them."""

from dataclasses import dataclass

import numpy as np

from mtl_ext.data.scenes.vectors import dot, unit

PATTERNS = ("plain", "plain", "stripes", "checks", "waves", "spots")


@dataclass(frozen=True)
class Material:
    """Two colours in a pattern that fills space, and one for the upper part.

    Attributes:
        pattern: of PATTERNS.
        frequencies: [2, 3] two wave vectors, in periods per metre.
        colours: [3, 3] red, green and blue of the ground, the pattern and the upper part, in 0 .. 1.
        strength: how much of the pattern's colour covers the ground, 0 .. 1.
    """

    pattern: str
    frequencies: np.ndarray
    colours: np.ndarray
    strength: float

    def colour(self, points: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Colours [3, n] at points [3, n] of the world; `upper` [n] bool marks the upper part."""
        ground = np.where(upper, self.colours[2][:, None], self.colours[0][:, None])
        cover = self.strength * _cover(self.pattern, *(dot(wave, points) for wave in self.frequencies))
        mixed: np.ndarray = ground + cover * (self.colours[1][:, None] - ground)
        return mixed


def _cover(pattern: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where a pattern covers the ground, 0 .. 1, from the phases [n] of its two waves in periods."""
    if pattern == "stripes":
        return (a % 1.0 < 0.5).astype(float)
    if pattern == "checks":
        return (a % 1.0 < 0.5) ^ (b % 1.0 < 0.5)
    if pattern == "waves":
        waves: np.ndarray = 0.5 + 0.5 * np.sin(2 * np.pi * a + 2 * np.sin(2 * np.pi * b))
        return waves
    if pattern == "spots":
        return (np.sin(2 * np.pi * a) * np.sin(2 * np.pi * b) > 0.3).astype(float)
    return np.zeros_like(a)


def paint_object(rng: np.random.Generator, name: str, texture: float) -> Material:
    """A material for an object of a class: any hue, its upper part in another, a mug's dark inside."""
    ground, pattern, upper = _colour(rng), _colour(rng), _colour(rng)
    if name == "mug":
        upper = 0.35 * upper
    return _material(rng, np.stack([ground, pattern, upper]), (3.0, 8.0), texture)


def paint_room(rng: np.random.Generator, texture: float) -> Material:
    """A material for a wall, the floor or the ceiling: paler than objects, its pattern larger."""
    ground, pattern = 0.5 + 0.4 * _colour(rng), _colour(rng)
    return _material(rng, np.stack([ground, pattern, ground]), (0.7, 2.5), texture)


def _material(rng: np.random.Generator, colours: np.ndarray, periods: tuple[float, float], texture: float) -> Material:
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    waves = unit(rng.normal(size=(3, 2))).T * rng.uniform(*periods, size=(2, 1))
    return Material(pattern, waves, np.clip(colours, 0.0, 1.0), texture * rng.uniform(0.4, 1.0))


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour [3] that is neither black nor grey: a random hue at random brightness."""
    hue, saturation, value = rng.random(), rng.uniform(0.35, 0.95), rng.uniform(0.45, 0.95)
    # Each channel follows the hue as a triangle wave, a third of the circle apart (HSV).
    channels = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colour: np.ndarray = value * (1 - saturation * (1 - channels))
    return colour
