"""Rendered indoor scenes: one pass of a ray caster gives an image and every dense label, all consistent."""

from mtl_ext.data.scenes.render import SceneOptions, render_scene
from mtl_ext.data.scenes.scene import CLASSES, Scene

__all__ = ["CLASSES", "Scene", "SceneOptions", "render_scene"]
