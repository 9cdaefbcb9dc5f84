"""Drawn faces with correlated attributes: CelebA's and UTKFace's tasks where those sets are not at hand."""

from mtl_ext.data.faces.face import Face, make_face
from mtl_ext.data.faces.faces import LABELS, faces
from mtl_ext.data.faces.layouts import FACE_LAYOUTS

__all__ = ["FACE_LAYOUTS", "LABELS", "Face", "faces", "make_face"]
