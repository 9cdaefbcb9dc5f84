"""The objects of a scene, and how they are set up: singly on the floor, and in piles."""

from dataclasses import dataclass, replace

import numpy as np

from mtl_ext.data.scenes.shapes import Solid
from mtl_ext.data.scenes.vectors import about_x, about_z

# Objects stand within this distance of the room's middle. Metres, as all lengths here.
ARENA = 1.1
# Room between neighbours.
GAP = 0.01
TRIES = 20
# An object is at most so much wider than what it stands on.
OVERHANG = 1.3


@dataclass(frozen=True)
class Thing:
    """An object: a union of solids of one class.

    Attributes:
        name: its class, of CLASSES.
        solids: its shapes.
        position: [3] the point of its axis that it stands on.
        radius: of an upright cylinder around that axis that holds it.
        height: of that cylinder.
        ledge: how far from the axis its flat top reaches in every direction; 0 where nothing can stand on it.
    """

    name: str
    solids: tuple[Solid, ...]
    position: np.ndarray
    radius: float
    height: float
    ledge: float

    @property
    def top(self) -> float:
        """Its greatest height above the floor."""
        return float(self.position[2] + self.height)

    def at(self, position: np.ndarray) -> "Thing":
        """The same object on another point [3]."""
        shift = position - self.position
        solids = tuple(replace(solid, centre=solid.centre + shift) for solid in self.solids)
        return replace(self, solids=solids, position=position)

    def overlaps(self, other: "Thing") -> bool:
        """Whether the cylinders around two objects come closer than GAP sideways while they overlap in height."""
        bottom, top = max(self.position[2], other.position[2]), min(self.top, other.top)
        sideways = np.hypot(*(self.position - other.position)[:2])
        return bool(bottom < top - 1e-9 and sideways < self.radius + other.radius + GAP)


def arrange(rng: np.random.Generator, objects: int, piles: int) -> list[Thing]:
    """Objects that stand where they could stand: on the floor or with their middle over another's flat top.

    Args:
        rng: source of all choices.
        objects: how many to set up; fewer where there is no room left.
        piles: how many of them begin a pile; the objects of a scene with piles are shared out at random.

    Returns:
        The objects, none of which meets another. The floor is z = 0, the middle of the room x = y = 0.
    """
    things: list[Thing] = []
    stacks: list[list[Thing]] = []
    for number in range(objects):
        if number < piles:
            base = _put(rng, make_crate(rng, wide=True), things, on=None)
            stacks.append([base] if base else [])
            new = base
        elif piles and rng.random() < 0.7:
            stack = stacks[rng.integers(piles)]
            supports = [thing for thing in stack if thing.ledge > 0]
            new = _put(rng, make_thing(rng), things, on=supports[rng.integers(len(supports))]) if supports else None
            stack += [new] if new else []
        else:
            new = _put(rng, make_thing(rng), things, on=None)
        things += [new] if new else []
    return things


def _put(rng: np.random.Generator, thing: Thing, others: list[Thing], on: Thing | None) -> Thing | None:
    """The object at a free place on another or on the floor; None when none was found."""
    if on is not None and thing.radius > OVERHANG * on.ledge:
        return None
    centre = np.zeros(3) if on is None else np.array([*on.position[:2], on.top])
    reach = ARENA if on is None else on.ledge
    for _ in range(TRIES):
        angle, distance = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.random())
        placed = thing.at(centre + np.array([distance * np.cos(angle), distance * np.sin(angle), 0.0]))
        if not any(placed.overlaps(other) for other in others):
            return placed
    return None


def make_thing(rng: np.random.Generator) -> Thing:
    """An object of a random class, size and orientation, at the origin."""
    makers = (make_ball, make_crate, make_can, make_mug)
    return makers[rng.integers(len(makers))](rng)


def make_ball(rng: np.random.Generator) -> Thing:
    """A ball of 20 to 60 cm, turned in any direction: its halves differ in colour."""
    r = rng.uniform(0.1, 0.3)
    turn = about_z(rng.uniform(0, 2 * np.pi))
    tip = about_x(np.arccos(rng.uniform(-1, 1)))
    # Written out like vectors.rotate, for the same bits everywhere.
    rotation = np.stack([sum(turn[:, k] * tip[k, j] for k in range(3)) for j in range(3)], axis=1)
    solid = Solid("sphere", np.full(3, r), np.array([0.0, 0.0, r]), rotation)
    return Thing("ball", (solid,), np.zeros(3), r, 2 * r, 0.0)


def make_crate(rng: np.random.Generator, wide: bool = False) -> Thing:
    """A box of 20 to 60 cm by 20 to 60 cm, 16 to 60 cm high; a wide one bears a pile: 60 to 90 cm, low."""
    low, high = ((0.3, 0.3, 0.08), (0.45, 0.45, 0.2)) if wide else ((0.1, 0.1, 0.08), (0.3, 0.3, 0.3))
    half = rng.uniform(low, high)
    solid = Solid("box", half, np.array([0.0, 0.0, half[2]]), about_z(rng.uniform(0, 2 * np.pi)))
    radius = float(np.hypot(half[0], half[1]))
    return Thing("crate", (solid,), np.zeros(3), radius, 2 * half[2], 0.9 * min(half[0], half[1]))


def make_can(rng: np.random.Generator) -> Thing:
    """A can of 14 to 32 cm by 24 to 60 cm, one in three lying on its side."""
    r, h = rng.uniform(0.07, 0.16), rng.uniform(0.12, 0.3)
    half, turn = np.array([r, r, h]), about_z(rng.uniform(0, 2 * np.pi))
    if rng.random() < 1 / 3:
        # Its axis lies along the turned x: columns are where its own axes point.
        lying = np.stack([np.array([0.0, 0.0, 1.0]), turn[:, 1], -turn[:, 0]], axis=1)
        solid = Solid("cylinder", half, np.array([0.0, 0.0, r]), lying)
        return Thing("can", (solid,), np.zeros(3), float(np.hypot(r, h)), 2 * r, 0.0)
    solid = Solid("cylinder", half, np.array([0.0, 0.0, h]), turn)
    return Thing("can", (solid,), np.zeros(3), r, 2 * h, 0.8 * r)


def make_mug(rng: np.random.Generator) -> Thing:
    """A mug of 18 to 34 cm with a handle of three bars."""
    r, h = rng.uniform(0.09, 0.17), rng.uniform(0.09, 0.17)
    turn = about_z(rng.uniform(0, 2 * np.pi))
    bar, out, grip = 0.15 * r, 0.6 * r, 0.55 * h
    # Half sizes and middles of the bars beside the cylinder, along its own x.
    bars = (
        ((out / 2, bar, bar), (r + out / 2, 0.0, h + grip)),
        ((out / 2, bar, bar), (r + out / 2, 0.0, h - grip)),
        ((bar, bar, grip + bar), (r + out, 0.0, h)),
    )
    body = Solid("cylinder", np.array([r, r, h]), np.array([0.0, 0.0, h]), turn)
    handle = tuple(Solid("box", np.array(half), turn[:, 0] * x + [0.0, 0.0, z], turn) for half, (x, _, z) in bars)
    return Thing("mug", (body, *handle), np.zeros(3), float(np.hypot(r + out + bar, bar)), 2 * h, 0.0)
