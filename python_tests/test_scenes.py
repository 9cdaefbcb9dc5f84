"""Rendered scenes: what the labels say agrees with each other, with the geometry and with the seed."""

from dataclasses import fields

import numpy as np
import pytest

from mtl_ext.data.scenes import CLASSES, SceneOptions, render_scene
from mtl_ext.data.scenes.labels import boxes_around, edges_between, salient
from mtl_ext.data.scenes.render import VERSION
from mtl_ext.data.scenes.shapes import Solid, hit
from mtl_ext.data.scenes.things import arrange, make_thing
from mtl_ext.data.scenes.vectors import about_x, about_z, unit

SCENES = [render_scene(3, index) for index in range(16)]
every_scene = pytest.mark.parametrize("scene", SCENES[:6], ids=range(6))


def back_project(scene):
    """Points [H, W, 3] in camera coordinates, from depth and intrinsics alone."""
    v, u = np.mgrid[0 : scene.depth.shape[0], 0 : scene.depth.shape[1]] + 0.5
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    return pixels @ np.linalg.inv(scene.intrinsics).T * scene.depth[..., None].astype(float)


def same_bits(a, b):
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def test_shapes_and_dtypes_are_those_of_the_docstring():
    scene = render_scene(0, 0, 24, 40)
    n = len(scene.classes)
    expected = {
        "rgb": ((24, 40, 3), "float32"),
        "depth": ((24, 40), "float32"),
        "normals": ((24, 40, 3), "float32"),
        "semantics": ((24, 40), "int16"),
        "parts": ((24, 40), "int16"),
        "disparity": ((24, 40), "float32"),
        "instances": ((24, 40), "int16"),
        "amodal": ((n, 24, 40), "bool"),
        "classes": ((n,), "int16"),
        "occlusion": ((n,), "float32"),
        "boxes": ((n, 4), "int32"),
        "edges": ((24, 40), "bool"),
        "saliency": ((24, 40), "bool"),
        "intrinsics": ((3, 3), "float64"),
    }
    assert n > 0
    assert {name: (getattr(scene, name).shape, str(getattr(scene, name).dtype)) for name in expected} == expected


@pytest.mark.parametrize("index", range(3))
def test_normals_are_those_of_the_back_projected_depth(index):
    scene = render_scene(1, index, 192, 256)
    points = back_project(scene)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    from_depth = np.cross(across, down)
    from_depth /= np.linalg.norm(from_depth, axis=-1, keepdims=True)
    towards_camera = np.sign((from_depth * points[1:-1, 1:-1]).sum(-1, keepdims=True))
    normals = scene.normals[1:-1, 1:-1]
    angles = np.degrees(np.arccos(np.clip(-(from_depth * towards_camera * normals).sum(-1), -1, 1)))
    # Differences that reach over an edge, from one face or object to another, are no surface's normal.
    turns = [np.abs(np.roll(scene.normals, s, (0, 1))[1:-1, 1:-1] - normals).max(-1) for s in ((0, 1), (1, 0))]
    turns += [np.abs(np.roll(scene.normals, s, (0, 1))[1:-1, 1:-1] - normals).max(-1) for s in ((0, -1), (-1, 0))]
    smooth = np.max(turns, axis=0) < 0.15
    smooth &= ~(scene.edges[1:-1, 1:-1] | scene.edges[1:-1, 2:] | scene.edges[2:, 1:-1])
    on_objects = smooth & (scene.instances[1:-1, 1:-1] > 0)
    assert smooth.mean() > 0.7
    assert np.median(angles[smooth]) < 0.2
    assert np.percentile(angles[on_objects], 90) < 3.0


@every_scene
def test_normals_are_unit_and_face_the_camera(scene):
    assert np.abs(np.linalg.norm(scene.normals, axis=-1) - 1).max() < 1e-5
    assert (scene.normals * back_project(scene)).sum(-1).max() < 1e-5


@every_scene
def test_the_floor_is_one_plane_and_depth_is_positive(scene):
    floor = scene.semantics == CLASSES.index("floor")
    heights = (back_project(scene) * scene.normals).sum(-1)[floor]
    assert np.ptp(heights) < 1e-4
    assert scene.depth.min() > 0.1
    assert scene.depth.max() < 9


@every_scene
def test_disparity_is_focal_length_times_baseline_over_depth(scene):
    product = scene.disparity.astype(float) * scene.depth
    assert np.allclose(product, scene.intrinsics[0, 0] * scene.baseline, rtol=1e-6)


@every_scene
def test_instances_lie_within_their_outlines_and_occlusion_is_the_share_missing(scene):
    n = len(scene.classes)
    assert set(np.unique(scene.instances)) <= set(range(n + 1))
    for k in range(n):
        seen = scene.instances == k + 1
        assert not (seen & ~scene.amodal[k]).any()
        assert scene.occlusion[k] == pytest.approx(1 - seen.sum() / scene.amodal[k].sum(), abs=1e-6)
        assert (scene.semantics[seen] == scene.classes[k]).all()
    # Where outlines are, some object is seen; where none is, the room.
    assert np.array_equal(scene.amodal.any(axis=0), scene.instances > 0)
    assert np.array_equal(scene.semantics >= CLASSES.index("ball"), scene.instances > 0)
    assert np.array_equal(scene.parts > 0, scene.instances > 0)


@every_scene
def test_boxes_are_tight_around_outlines(scene):
    for box, outline in zip(scene.boxes, scene.amodal, strict=True):
        rows, columns = np.nonzero(outline)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@every_scene
def test_edges_are_where_neighbours_show_different_objects_or_faces_of_the_room(scene):
    # The room's faces are planes: within the room, another face is another normal.
    normals = np.where(scene.instances[..., None] > 0, 0, scene.normals.round(3))
    surface = np.concatenate([scene.instances[..., None], normals], axis=-1)
    expected = np.zeros_like(scene.edges)
    expected[:, 1:] |= (surface[:, 1:] != surface[:, :-1]).any(-1)
    expected[1:] |= (surface[1:] != surface[:-1]).any(-1)
    assert np.array_equal(scene.edges, expected)
    assert 0.01 < scene.edges.mean() < 0.3


@every_scene
def test_saliency_covers_whole_visible_objects(scene):
    assert scene.saliency.any()
    salient_ids = set(np.unique(scene.instances[scene.saliency]))
    assert 0 not in salient_ids
    assert np.array_equal(np.isin(scene.instances, list(salient_ids)), scene.saliency)


def test_saliency_weighs_area_by_how_central_it_is():
    instances = np.zeros((30, 30), dtype=np.int16)
    instances[12:18, 12:18] = 1
    instances[0:6, 0:7] = 2
    instances[20:25, 12:18] = 3
    assert np.unique(instances[salient(instances, 3)]).tolist() == [1, 3]
    assert not salient(np.zeros((4, 4), dtype=np.int16), 0).any()


def test_labels_of_a_hand_made_picture():
    surfaces = np.array([[0, 0, 1], [0, 2, 1], [2, 2, 1]])
    assert edges_between(surfaces).astype(int).tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 1]]
    assert boxes_around(surfaces[None] == 2).tolist() == [[0, 1, 2, 3]]
    assert boxes_around(np.zeros((0, 3, 3), dtype=bool)).shape == (0, 4)


def test_all_classes_parts_and_degrees_of_occlusion_occur():
    pixels = np.bincount(np.concatenate([scene.semantics.ravel() for scene in SCENES]), minlength=len(CLASSES))
    assert (pixels > 0.005 * pixels.sum()).all(), dict(zip(CLASSES, pixels / pixels.sum(), strict=True))
    parts = np.bincount(np.concatenate([scene.parts.ravel() for scene in SCENES]))
    assert (parts > 0.02 * parts.sum()).all()
    occlusion = np.concatenate([scene.occlusion for scene in SCENES])
    assert 0.15 < (occlusion >= 0.05).mean() < 0.85
    brightness = [scene.rgb.mean() for scene in SCENES]
    assert 0.4 < min(brightness) < max(brightness) < 0.75


def test_seed_and_index_decide_every_bit():
    first, again = render_scene(5, 2, 24, 32), render_scene(5, 2, 24, 32)
    assert same_bits(first, again)
    for seed, index in ((5, 3), (6, 2)):
        assert not np.array_equal(first.rgb, render_scene(seed, index, 24, 32).rgb)


def test_a_scene_is_the_same_at_every_resolution():
    small, large = render_scene(0, 4, 48, 64), render_scene(0, 4, 144, 192)
    assert np.median(np.abs(small.depth - large.depth[1::3, 1::3])) < 1e-6
    assert (small.semantics == large.semantics[1::3, 1::3]).all()


def test_options_change_what_they_name():
    plain = render_scene(0, 0, options=SceneOptions(texture=0))
    textured = render_scene(0, 0, options=SceneOptions(texture=1))
    assert np.array_equal(plain.depth, textured.depth)
    assert np.array_equal(plain.semantics, textured.semantics)
    assert np.abs(plain.rgb - textured.rgb).mean() > 0.02
    # Without roll, the picture's horizontal is level: the floor's normal has no part along it.
    for index in range(4):
        for tilt, level in ((0.0, True), (20.0, False)):
            scene = render_scene(0, index, options=SceneOptions(tilt=tilt))
            up = scene.normals[scene.semantics == CLASSES.index("floor")][0]
            assert bool(abs(up[0]) < 1e-6) is level
    assert max(len(render_scene(0, i, 24, 32, SceneOptions(objects=2)).classes) for i in range(8)) == 2


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SceneOptions(objects=0), r"objects is 0, expected 1 \.\. 100"),
        (lambda: SceneOptions(objects=3, piles=4), r"piles is 4, expected 0 \.\. 3"),
        (lambda: SceneOptions(texture=1.5), r"texture is 1\.5, expected 0 \.\. 1"),
        (lambda: SceneOptions(tilt=float("nan")), r"tilt is nan, expected 0 \.\. 45"),
        (lambda: render_scene(-1, 0), "seed is -1, expected at least 0"),
        (lambda: render_scene(0, -2), "index is -2, expected at least 0"),
        (lambda: render_scene(0, 0, 7), "height is 7, expected at least 8"),
        (lambda: render_scene(0, 0, 8, 0), "width is 0, expected at least 8"),
    ],
)
def test_values_out_of_range_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("seed", range(10))
def test_objects_stand_on_something_and_in_nothing(seed):
    things = arrange(np.random.default_rng(seed), objects=12, piles=2)
    for thing in things:
        middle, bottom = thing.position[:2], thing.position[2]
        below = [o for o in things if o is not thing and np.isclose(o.top, bottom, atol=1e-9)]
        assert bottom == 0 or any(np.hypot(*(o.position[:2] - middle)) <= o.ledge for o in below)
        assert not any(thing.overlaps(other) for other in things if other is not thing)
    assert any(thing.position[2] > 0 for thing in things)


@pytest.mark.parametrize("seed", range(12))
def test_the_cylinder_around_an_object_holds_it(seed):
    rng = np.random.default_rng(seed)
    thing = make_thing(rng)
    # Rays from far away in all directions, aimed near the object.
    towards = unit(rng.normal(size=(3, 2000)))
    origins = -4 * towards + rng.uniform(-0.4, 0.4, (3, 2000))
    hits = hit(thing.solids, origins, towards)
    met = np.isfinite(hits.distance)
    points = (origins + np.where(met, hits.distance, 0) * towards)[:, met]
    assert met.sum() > 20
    assert np.hypot(points[0], points[1]).max() <= thing.radius + 1e-9
    assert points[2].min() >= -1e-9
    assert points[2].max() <= thing.height + 1e-9
    assert ((hits.normals * towards).sum(0)[met] < 1e-9).all()
    assert np.allclose(np.linalg.norm(hits.normals[:, met], axis=0), 1)


@pytest.mark.parametrize("shape", ["sphere", "box", "cylinder"])
def test_hits_are_where_an_implicit_function_first_turns_negative(shape):
    rng = np.random.default_rng(0)
    half = np.array([0.3, 0.3, 0.3 if shape == "sphere" else 0.5])
    solid = Solid(shape, half, np.array([0.1, -0.2, 0.3]), about_z(0.7) @ about_x(1.1))
    directions = unit(rng.normal(size=(3, 300)))
    origins = solid.centre[:, None] - 2 * directions + rng.uniform(-0.5, 0.5, (3, 300))

    def outside(points):
        own = solid.rotation.T @ (points - solid.centre[:, None])
        if shape == "sphere":
            return np.linalg.norm(own, axis=0) - half[0]
        if shape == "box":
            return (np.abs(own) - half[:, None]).max(axis=0)
        return np.maximum(np.hypot(own[0], own[1]) - half[0], np.abs(own[2]) - half[2])

    found = hit((solid,), origins, directions).distance
    steps = np.linspace(0, 4, 4001)
    inside = np.stack([outside(origins + t * directions) < 0 for t in steps])
    marched = np.where(inside.any(axis=0), steps[inside.argmax(axis=0)], np.inf)
    met = np.isfinite(marched)
    assert met.sum() > 50
    assert np.abs(found[met] - marched[met]).max() < 1.1e-3
    # Marching steps over grazing hits; a hit it has not seen must touch the surface.
    grazing = np.isfinite(found) & ~met
    assert grazing.sum() < 15
    assert np.abs(outside(origins + np.where(grazing, found, 0) * directions)[grazing]).max(initial=0) < 1e-9


def test_rays_inside_or_past_a_solid_meet_nothing():
    solid = Solid("sphere", np.full(3, 0.5), np.zeros(3), np.eye(3))
    origins = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    directions = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert np.isinf(hit((solid,), origins, directions).distance).all()


def test_a_change_of_the_pictures_is_noticed():
    """The cache of rendered data sets goes by VERSION: whoever changes the pictures has to raise it."""
    scene = render_scene(0, 0)
    found = (VERSION, float(scene.rgb.mean()), float(scene.depth.mean()), int(scene.instances.sum()))
    assert found == (1, pytest.approx(0.505989, abs=1e-5), pytest.approx(3.305387, abs=1e-5), 9673), "raise VERSION"
