"""One drawn glyph from a seed and a number."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# Of the images that a seed gives; to be raised with every change of them.
VERSION = 1
SIZE = 36
CLASSES = 5
FONT_SIZE = 96
OVERSAMPLING = 3
# Domain -> its five glyphs; U+03B1 .. are the small Greek letters, the final sigma left out.
GLYPHS = {
    **{f"capitals_{i + 1}": text for i, text in enumerate(("ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY"))},
    **{f"small_{i + 1}": text for i, text in enumerate(("abcde", "fghij", "klmno", "pqrst", "uvwxy"))},
    **{f"digits_{i + 1}": text for i, text in enumerate(("01234", "56789"))},
    **{f"greek_{i + 1}": "".join(map(chr, range(start, start + 5))) for i, start in enumerate((945, 950, 955, 964))},
    "greek_capitals_1": "\u0393\u0394\u0398\u039b\u039e",
    "greek_capitals_2": "\u03a0\u03a3\u03a6\u03a8\u03a9",
    "signs_1": "&@#%$",
    "signs_2": "?!+=*",
}
TRAIN_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-BoldItalic.ttf",
)
TEST_FONTS = (
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
)


@dataclass(frozen=True)
class Glyph:
    """Glyph number `index` of a seed: its domain is index mod 20, its place in the domain index // 20 mod 5.

    It is drawn once its split is known, because the fonts depend on that.
    """

    seed: int
    index: int
    size: int

    @property
    def domain(self) -> int:
        """0 .. 19, the place of the domain in GLYPHS."""
        return self.index % len(GLYPHS)

    @property
    def place(self) -> int:
        """0 .. 4, its place in its domain."""
        return self.index // len(GLYPHS) % CLASSES

    def draw(self, split: str) -> np.ndarray:
        """The image [size, size] uint8 in a font of a split; any but ``train`` has the fonts for testing.

        Raises:
            ImportError: Pillow or matplotlib is not installed.
        """
        fonts = TRAIN_FONTS if split == "train" else TEST_FONTS
        rng = np.random.default_rng((self.seed, self.index, len(fonts)))
        font = load_font(fonts[rng.integers(len(fonts))])
        return draw_glyph(list(GLYPHS.values())[self.domain][self.place], font, self.size, rng)


def make_glyph(seed: int, index: int, height: int, width: int) -> Glyph:
    """Glyph number `index` of a seed, as large as the smaller of height and width."""
    return Glyph(seed, index, min(height, width))


@cache
def load_font(name: str) -> "FreeTypeFont":
    """One of matplotlib's fonts, 96 pixels high.

    Raises:
        ImportError: Pillow or matplotlib is not installed.
    """
    try:
        import matplotlib
        from PIL import ImageFont
    except ImportError as error:
        raise ImportError(f'glyphs are drawn with {error.name}: pip install "mtl_ext[train]"') from error
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), FONT_SIZE)


def draw_glyph(character: str, font: "FreeTypeFont", size: int, rng: np.random.Generator) -> np.ndarray:
    """One glyph [size, size] uint8, turned, slanted, stretched, moved, lighter than its ground, with noise.

    It covers about 58 to 78 % of the image's height or width, whichever is larger.
    """
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(character)
    height, width = bottom - top, right - left
    mask = Image.new("L", (round(width), round(height)))
    ImageDraw.Draw(mask).text((-left, -top), character, fill=255, font=font)
    turn, slant = rng.normal(0.0, 0.07), rng.normal(0.0, 0.08)
    stretch = np.exp(rng.normal(0.0, 0.08))
    scale = max(height, width) / (rng.uniform(0.58, 0.78) * size)
    # From pixels of the image to pixels of the mask, as Pillow wants it.
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = scale * np.array([[stretch, slant], [0.0, 1.0 / stretch]]) @ rotation
    centre = size / 2 + rng.uniform(-0.06, 0.06, 2) * size
    shift = np.array([width, height]) / 2 - matrix @ centre
    shown = mask.transform(
        (size * OVERSAMPLING, size * OVERSAMPLING),
        Image.Transform.AFFINE,
        np.column_stack([matrix / OVERSAMPLING, shift]).ravel().tolist(),
        Image.Resampling.BILINEAR,
    )
    ink = np.asarray(shown, dtype=np.float64).reshape(size, OVERSAMPLING, size, OVERSAMPLING).mean(axis=(1, 3)) / 255
    # Light on dark: with both polarities, small networks need many thousand images to learn anything.
    paper, contrast = rng.uniform(0, 70), rng.uniform(110, 185)
    image = paper + contrast * ink + rng.normal(0.0, 6.0, (size, size))
    drawn: np.ndarray = image.round().clip(0, 255).astype(np.uint8)
    return drawn
