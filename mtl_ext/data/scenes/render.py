"""From a seed to a scene: set up, trace a ray per pixel, colour, label."""

from dataclasses import dataclass

import numpy as np

from mtl_ext.data.scenes.camera import BASELINE, Camera, place_camera
from mtl_ext.data.scenes.labels import boxes_around, edges_between, occlusion_of, salient
from mtl_ext.data.scenes.materials import Material, paint_object, paint_room
from mtl_ext.data.scenes.scene import CLASSES, Scene
from mtl_ext.data.scenes.shapes import hit
from mtl_ext.data.scenes.things import Thing, arrange
from mtl_ext.data.scenes.vectors import dot, unit

# Of the pictures: a seed's scenes differ from those of another version.
VERSION = 1
# Standard deviation of the sensor's noise.
NOISE = 0.012
# Range of the mean light that the camera exposes for, and the exponent between colours as they are shown and light.
EXPOSURE = (0.24, 0.4)
GAMMA = 2.2
# The room's faces are surfaces 0 .. 5: the walls at -x, +x, -y, +y, then floor and ceiling. Objects follow.
FACES = 6
FACE_CLASSES = np.array([CLASSES.index(name) for name in ("wall", "wall", "wall", "wall", "floor", "ceiling")])


@dataclass(frozen=True)
class SceneOptions:
    """What scenes are made of.

    Attributes:
        objects: how many objects a scene has at most; each draws its number from the upper half of 1 .. objects.
        piles: how many piles a scene has at most, 0 .. objects; each draws its number from 0 .. piles.
        texture: contrast of the patterns on all surfaces, which tell nothing of their shape: 0 plain .. 1 strongest.
        tilt: degrees by which the camera is rolled and pitched at most, 0 .. 45.
    """

    objects: int = 12
    piles: int = 2
    texture: float = 0.6
    tilt: float = 8.0

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
            ValueError: naming the option, what was found and what was expected.
        """
        for name, least, most in (("objects", 1, 100), ("piles", 0, self.objects), ("texture", 0, 1), ("tilt", 0, 45)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}, expected {least} .. {most}")


def render_scene(
    seed: int, index: int, height: int = 96, width: int = 128, options: SceneOptions | None = None
) -> Scene:
    """Renders one scene of a series: the same bits for the same arguments, in any process.

    Args:
        seed: of the series, at least 0.
        index: of the scene in the series, at least 0.
        height: pixels, at least 8.
        width: pixels, at least 8.
        options: what the scene is made of; None means the defaults.

    Raises:
        ValueError: an argument out of range.
    """
    for name, value, least in (("seed", seed, 0), ("index", index, 0), ("height", height, 8), ("width", width, 8)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")
    options = options or SceneOptions()
    rng = np.random.default_rng([seed, index])
    room = rng.uniform((2.5, 2.5, 2.0), (3.0, 3.0, 2.6))
    camera = place_camera(rng, height, width, options.tilt)
    count = int(rng.integers((options.objects + 1) // 2, options.objects + 1))
    things = arrange(rng, count, int(rng.integers(min(options.piles, count) + 1)))
    view = _look(room, things, camera)
    walls, floor, ceiling = (paint_room(rng, options.texture) for _ in range(3))
    materials = [walls, walls, walls, walls, floor, ceiling]
    materials += [paint_object(rng, thing.name, options.texture) for thing in things]
    light = rng.uniform((-1.2, -1.2, 0.85), (1.2, 1.2, 0.95)) * [1.0, 1.0, room[2]]
    linear = _shade(view, things, materials, light)
    rgb = np.clip(linear * (rng.uniform(*EXPOSURE) / linear.mean()), 0.0, 1.0) ** (1 / GAMMA)
    rgb += rng.normal(0.0, NOISE, rgb.shape)
    return _label(view, things, camera, np.clip(rgb, 0.0, 1.0))


@dataclass(frozen=True)
class View:
    """What each of n pixels shows.

    Attributes:
        directions: [3, n] of the rays, unit, in the world.
        depth: [n] along the optical axis.
        points: [3, n] where the rays end.
        normals: [3, n] unit, in the world.
        surfaces: [n] the face of the room or FACES plus the object's number.
        upper: [n] bool, on an upper part of an object.
        outlines: [objects, n] bool, whether the ray meets an object, seen or not.
    """

    directions: np.ndarray
    depth: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    surfaces: np.ndarray
    upper: np.ndarray
    outlines: np.ndarray


def _look(room: np.ndarray, things: list[Thing], camera: Camera) -> View:
    """Traces a ray per pixel; the room is the box -x .. x, -y .. y, 0 .. z of `room` [3], seen from inside."""
    origin = camera.position[:, None]
    directions, along = camera.rays()
    distance, normals, surfaces = _leave_room(room, origin, directions)
    upper = np.zeros(len(distance), dtype=bool)
    outlines = np.zeros((len(things), len(distance)), dtype=bool)
    for number, thing in enumerate(things):
        hits = hit(thing.solids, origin, directions)
        outlines[number] = np.isfinite(hits.distance)
        nearer = hits.distance < distance
        distance[nearer], upper[nearer] = hits.distance[nearer], hits.upper[nearer]
        normals[:, nearer], surfaces[nearer] = hits.normals[:, nearer], FACES + number
    points = origin + distance * directions
    return View(directions, distance * along, points, normals, surfaces, upper, outlines)


def _leave_room(
    room: np.ndarray, origin: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays meet the room from inside: distances [n], normals [3, n] into the room, faces [n]."""
    low, high = np.array([-room[0], -room[1], 0.0])[:, None], room[:, None]
    forwards = directions > 0
    with np.errstate(divide="ignore"):
        exits = np.where(directions == 0, np.inf, (np.where(forwards, high, low) - origin) / directions)
    axis = exits.argmin(axis=0)
    on_axis = np.arange(3)[:, None] == axis
    normals = np.where(on_axis, np.where(forwards, -1.0, 1.0), 0.0)
    return exits.min(axis=0), normals, 2 * axis + (on_axis & forwards).any(axis=0)


def _shade(view: View, things: list[Thing], materials: list[Material], light: np.ndarray) -> np.ndarray:
    """Light [3, n] under a lamp at `light` [3] that casts shadows, a weak one at the camera, and light all around."""
    albedo = np.empty_like(view.points)
    for surface in np.unique(view.surfaces):
        shown = view.surfaces == surface
        albedo[:, shown] = materials[surface].colour(view.points[:, shown], view.upper[shown])
    to_light = light[:, None] - view.points
    lamp_distance = np.sqrt(dot(to_light, to_light))
    to_light /= lamp_distance
    start = view.points + 1e-3 * view.normals
    lit = np.ones(len(view.depth), dtype=bool)
    for thing in things:
        lit &= hit(thing.solids, start, to_light).distance > lamp_distance
    lamp = lit * np.clip(dot(view.normals, to_light), 0.0, None) / (0.6 + 0.12 * lamp_distance**2)
    headlamp = np.clip(-dot(view.normals, view.directions), 0.0, None)
    sky = 0.5 + 0.5 * view.normals[2]
    halfway = unit(to_light - view.directions)
    gloss = lit * (view.surfaces >= FACES) * np.clip(dot(view.normals, halfway), 0.0, 1.0) ** 40
    shaded: np.ndarray = albedo**GAMMA * (0.12 + 0.14 * sky + 0.12 * headlamp + 0.9 * lamp) + 0.2 * gloss
    return shaded


def _label(view: View, things: list[Thing], camera: Camera, rgb: np.ndarray) -> Scene:
    """The scene, from what each pixel shows; objects outside the picture are left out."""
    shape = (camera.height, camera.width)
    kept = np.flatnonzero(view.outlines.any(axis=1))
    # From surface to the number that its object has in the picture, 0 for the room.
    numbers = np.zeros(FACES + len(things), dtype=np.int16)
    numbers[FACES + kept] = np.arange(1, len(kept) + 1)
    classes = np.concatenate([FACE_CLASSES, [CLASSES.index(thing.name) for thing in things]]).astype(np.int16)
    instances = numbers[view.surfaces].reshape(shape)
    amodal = view.outlines[kept].reshape(len(kept), *shape)
    normals = np.stack([dot(axis, view.normals) for axis in camera.axes], axis=-1)
    is_object = view.surfaces >= FACES
    return Scene(
        rgb=rgb.T.reshape(*shape, 3).astype(np.float32),
        depth=view.depth.reshape(shape).astype(np.float32),
        normals=normals.reshape(*shape, 3).astype(np.float32),
        semantics=classes[view.surfaces].reshape(shape),
        parts=np.where(is_object, 1 + view.upper, 0).reshape(shape).astype(np.int16),
        disparity=(camera.focal * BASELINE / view.depth).reshape(shape).astype(np.float32),
        instances=instances,
        amodal=amodal,
        classes=classes[FACES + kept],
        occlusion=occlusion_of(instances, amodal),
        boxes=boxes_around(amodal),
        edges=edges_between(view.surfaces.reshape(shape)),
        saliency=salient(instances, len(kept)),
        intrinsics=camera.intrinsics,
        baseline=BASELINE,
    )
