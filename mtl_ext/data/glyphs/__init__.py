"""20 domains of five glyphs each: a multi-domain set that any machine can make.

Capital and small letters, digits, Greek letters and signs, 100 glyphs in 20 groups of five, one task per group in the
way of Multi-CIFAR100. The fonts are those that come with matplotlib, so that every machine draws the same images. The
test images use font families that no training image uses.
"""

from mtl_ext.data.glyphs.glyph import GLYPHS, TEST_FONTS, TRAIN_FONTS, Glyph, make_glyph
from mtl_ext.data.glyphs.glyphs import glyphs
from mtl_ext.data.glyphs.layouts import GLYPH_LAYOUTS

__all__ = ["GLYPHS", "GLYPH_LAYOUTS", "TEST_FONTS", "TRAIN_FONTS", "Glyph", "glyphs", "make_glyph"]
