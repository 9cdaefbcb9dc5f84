"""Draws one face from its traits with ellipses, polygons and curves.

Coordinates are shares of the image's width and height, x to the right and y down; the head's centre is near
(0.5, 0.5). The image is drawn three times as large and shrunk, which smooths the edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OVERSAMPLING = 3
SKIN = ((232, 190, 160), (110, 72, 50), (236, 202, 152), (168, 118, 82), (202, 152, 112))
HAIR = {
    "Black_Hair": (26, 22, 22),
    "Blond_Hair": (226, 192, 112),
    "Brown_Hair": (112, 72, 42),
    "Gray_Hair": (176, 176, 180),
}
AUBURN = (150, 56, 30)
LIPSTICK = (196, 24, 52)
GOLD = (240, 200, 60)
WHITE = (244, 244, 240)
DARK = (34, 24, 24)

Colour = tuple[int, int, int]
Point = tuple[float, float]
Points = Sequence[Point] | np.ndarray

_t = np.linspace(0.0, 1.0, 16)
BERNSTEIN = np.stack([(1 - _t) ** 2, 2 * _t * (1 - _t), _t**2], axis=1)
_angle = np.linspace(0.0, 2 * np.pi, 32, endpoint=False)
CIRCLE = np.stack([np.cos(_angle), np.sin(_angle)], axis=1)


@dataclass(frozen=True)
class Looks:
    """What no attribute tells: drawn up front, so that a change of one attribute changes nothing else.

    Attributes:
        long_hair: in [0, 1]; hair is long below a bound that depends on the face being male.
        paper: colours of the background, [3, 3].
        cloth: colour of the clothes.
        hat: colour of the hat and the tie.
        iris: colour of the eyes.
        skin: factor on the skin's colour, [3].
        pose: shift in x and y, shares of the image; logarithm of the size; turn in radians; [4].
        light: brightness at the left and at the right edge.
        noise: seed of the pixels' noise.
    """

    long_hair: float
    paper: np.ndarray
    cloth: Colour
    hat: Colour
    iris: Colour
    skin: np.ndarray
    pose: np.ndarray
    light: np.ndarray
    noise: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Looks":
        """Draws everything from one generator."""
        return cls(
            long_hair=rng.uniform(),
            paper=rng.uniform(60, 230, (3, 3)),
            cloth=_colour(rng.uniform(20, 220, 3)),
            hat=_colour(rng.uniform(20, 200, 3)),
            iris=((70, 110, 160), (80, 120, 70), (90, 58, 34), (50, 34, 24))[rng.integers(4)],
            skin=rng.normal(1.0, 0.03, 3),
            pose=rng.normal(0.0, (0.015, 0.015, 0.04, 0.06)),
            light=rng.uniform(0.82, 1.1, 2),
            noise=int(rng.integers(2**32)),
        )


def draw_face(traits: dict[str, bool], age: int, group: int, looks: Looks, size: int) -> np.ndarray:
    """One face [size, size, 3] uint8.

    Args:
        traits: attribute -> present, all 40 of CelebA's, as :func:`mtl_ext.data.faces.traits.make_consistent` leaves
            them.
        age: years; decides wrinkles and, below 14, a child's proportions.
        group: 0 .. 4, decides the colour of the skin.
        looks: everything else.
        size: height and width in pixels.
    """
    portrait = Portrait(traits, age, group, looks, size)
    portrait.draw()
    return portrait.photograph()


class Portrait:
    """A face being drawn, from the back to the front."""

    def __init__(self, traits: dict[str, bool], age: int, group: int, looks: Looks, size: int) -> None:
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('faces are drawn with Pillow: pip install "mtl_ext[train]"') from error

        self.has = traits
        self.age = age
        self.looks = looks
        self.size = size
        self.scale = size * OVERSAMPLING
        self.image: Image.Image = Image.new("RGB", (self.scale, self.scale), _colour(looks.paper[0]))
        self.pen: Any = ImageDraw.Draw(self.image)
        shift_x, shift_y, log_size, turn = looks.pose
        cos, sin = np.exp(log_size) * np.cos(turn), np.exp(log_size) * np.sin(turn)
        self.pose = self.scale * np.array([[cos, -sin], [sin, cos]])
        self.centre = self.scale * np.array([0.5 + shift_x, 0.5 + shift_y])
        self.child = max(0.0, (14 - age) / 14)
        skin = np.array(SKIN[group]) * looks.skin
        self.skin = _mix(skin, (255, 244, 238), 0.6 if traits["Pale_Skin"] else 0.0)
        self.shade = _mix(self.skin, (70, 30, 20), 0.3)
        self.hair = next((colour for name, colour in HAIR.items() if traits[name]), AUBURN)
        self.long_hair = not traits["Bald"] and looks.long_hair < (0.06 if traits["Male"] else 0.85)
        self.width = 0.21 + 0.045 * traits["Chubby"] - 0.025 * traits["Oval_Face"] + 0.01 * traits["Male"]
        self.height = 0.265 + 0.02 * traits["Oval_Face"] - 0.03 * self.child
        self.eye_y = 0.47 + 0.03 * self.child
        self.eye_x = 0.095 + 0.01 * traits["Chubby"]
        self.mouth_y = 0.645 + 0.005 * self.child

    def draw(self) -> None:
        """Draws everything."""
        self.background()
        self.hair_behind()
        self.body()
        self.head()
        self.beard()
        self.skin_marks()
        for side in (-1, 1):
            self.eye(side)
            self.brow(side)
        self.nose()
        self.mouth()
        self.hair_in_front()
        self.accessories()

    def photograph(self) -> np.ndarray:
        """Blurs, shrinks and lights the drawing, and adds noise."""
        from PIL import ImageFilter

        image = self.image
        if self.has["Blurry"]:
            image = image.filter(ImageFilter.GaussianBlur(0.025 * self.scale))
        pixels = np.asarray(image.reduce(OVERSAMPLING), dtype=np.float64)
        light = np.linspace(self.looks.light[0], self.looks.light[1], self.size)[None, :, None]
        noise = np.random.default_rng(self.looks.noise).normal(0.0, 4.0, pixels.shape)
        lit: np.ndarray = (pixels * light + noise).round().clip(0, 255).astype(np.uint8)
        return lit

    def background(self) -> None:
        """Two large soft shapes on a plain ground."""
        self.ellipse(0.1, 0.2, 0.5, 0.4, _mix(self.looks.paper[0], self.looks.paper[1], 0.35))
        self.ellipse(0.95, 0.6, 0.35, 0.5, _mix(self.looks.paper[0], self.looks.paper[2], 0.35))

    def hair_behind(self) -> None:
        """What of the hair lies behind the head: little, or down to the shoulders."""
        if self.has["Bald"]:
            return
        half = self.width + 0.05
        self.ellipse(0.5, 0.44, half, 0.29, self.hair)
        if self.long_hair:
            self.polygon([(0.5 - half, 0.44), (0.5 + half, 0.44), (0.54 + half, 0.86), (0.46 - half, 0.86)], self.hair)
        if self.has["Wavy_Hair"]:
            bottom = 0.86 if self.long_hair else 0.56
            for y in np.arange(0.30, bottom, 0.075):
                widening = 0.04 * (y - 0.44) / 0.42 if y > 0.44 else -0.03
                for side in (-1, 1):
                    self.ellipse(0.5 + side * (half + widening), y, 0.05, 0.042, self.hair)

    def body(self) -> None:
        """Neck, shoulders, and what is worn there."""
        self.polygon([(0.43, 0.68), (0.57, 0.68), (0.59, 0.92), (0.41, 0.92)], self.shade)
        self.ellipse(0.5, 1.1, 0.44, 0.24, self.looks.cloth)
        self.polygon([(0.41, 0.87), (0.59, 0.87), (0.5, 0.98)], self.shade)
        if self.has["Wearing_Necktie"]:
            self.polygon([(0.38, 0.86), (0.5, 0.94), (0.62, 0.86), (0.68, 1.2), (0.32, 1.2)], WHITE)
            self.polygon([(0.46, 0.90), (0.54, 0.90), (0.58, 1.2), (0.42, 1.2)], self.looks.hat)
        if self.has["Wearing_Necklace"]:
            for x, y in curve((0.40, 0.84), (0.5, 0.99), (0.60, 0.84))[::2]:
                self.ellipse(x, y, 0.014, 0.014, GOLD)

    def head(self) -> None:
        """Ears and the outline of the face."""
        for side in (-1, 1):
            self.ellipse(0.5 + side * self.width, 0.50, 0.03, 0.055, self.shade)
        if self.has["Double_Chin"]:
            self.ellipse(0.5, 0.74, 0.75 * self.width, 0.075, self.skin)
            self.line(curve((0.5 - 0.5 * self.width, 0.755), (0.5, 0.82), (0.5 + 0.5 * self.width, 0.755)), self.shade)
        self.polygon(self.outline(0.0, 2 * np.pi), self.skin)
        if self.has["Double_Chin"]:
            self.line(self.outline(0.3 * np.pi, 0.7 * np.pi), self.shade, 0.012)

    def outline(self, start: float, end: float) -> np.ndarray:
        """The face's edge [48, 2] between two angles, from the right downwards: a superellipse, squarer for men."""
        angles = np.linspace(start, end, 48)
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        power = 2.0 / (2.6 if self.has["Male"] else 2.0)
        edge: np.ndarray = 0.5 + np.sign(around) * np.abs(around) ** power * (self.width, self.height)
        return edge

    def beard(self) -> None:
        """The lower face's hair: stubble or a full beard, sideburns, and a beard on the chin alone."""
        full = not self.has["No_Beard"] and not any(
            self.has[name] for name in ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")
        )
        if full or self.has["5_o_Clock_Shadow"]:
            colour = self.hair if full else _mix(self.skin, (50, 52, 62), 0.3)
            edge = self.outline(0.06 * np.pi, 0.94 * np.pi)
            self.polygon(np.concatenate([edge, curve(edge[-1], (0.5, 0.62), edge[0])]), colour)
        if self.has["Sideburns"]:
            for side in (-1, 1):
                x = 0.5 + side * (self.width - 0.022)
                self.polygon([(x - 0.022, 0.42), (x + 0.022, 0.42), (x + 0.016, 0.63), (x - 0.016, 0.63)], self.hair)
        if self.has["Goatee"]:
            self.ellipse(0.5, 0.735, 0.075, 0.055, self.hair)

    def skin_marks(self) -> None:
        """Cheeks, bags and wrinkles."""
        if self.has["Rosy_Cheeks"]:
            for side in (-1, 1):
                self.ellipse(0.5 + side * 0.125, 0.58, 0.05, 0.035, _mix(self.skin, (235, 70, 90), 0.45))
        if self.has["Bags_Under_Eyes"]:
            for side in (-1, 1):
                x, y = 0.5 + side * self.eye_x, self.eye_y + 0.03
                self.ellipse(x, y + 0.008, 0.05, 0.026, _mix(self.skin, (80, 50, 90), 0.4))
        wrinkles = min(1.0, max(0.0, (self.age - 40) / 40))
        if wrinkles:
            colour = _mix(self.skin, self.shade, 0.4 + 0.6 * wrinkles)
            for y in (0.335, 0.365):
                self.line(curve((0.41, y), (0.5, y - 0.012), (0.59, y)), colour, 0.009)
            for side in (-1, 1):
                start, end = (0.5 + side * 0.06, 0.56), (0.5 + side * 0.1, 0.66)
                self.line(curve(start, (0.5 + side * 0.1, 0.59), end), colour, 0.009)

    def eye(self, side: int) -> None:
        """One eye, with make-up where it is worn."""
        x, y = 0.5 + side * self.eye_x, self.eye_y
        size = 1.0 + 0.3 * self.child
        wide, high = 0.045 * size, (0.011 if self.has["Narrow_Eyes"] else 0.027) * size
        if self.has["Heavy_Makeup"]:
            self.ellipse(x, y - 0.012, wide + 0.016, high + 0.018, _mix(self.skin, (120, 50, 150), 0.6))
        self.ellipse(x, y, wide, high, WHITE)
        iris = 0.021 * size
        self.ellipse(x, y, iris, min(iris, high), self.looks.iris)
        self.ellipse(x, y, iris / 2, min(iris / 2, high), (10, 10, 10))
        lid = curve((x - wide, y), (x, y - 2 * high), (x + wide, y))
        self.line(lid, DARK, 0.018 if self.has["Heavy_Makeup"] else 0.009)

    def brow(self, side: int) -> None:
        """One eyebrow."""
        inner, outer = 0.5 + side * (self.eye_x - 0.045), 0.5 + side * (self.eye_x + 0.055)
        y, peak = self.eye_y - 0.06, 0.075 if self.has["Arched_Eyebrows"] else 0.012
        middle = (0.35 * inner + 0.65 * outer, y - peak)
        thickness = 0.034 if self.has["Bushy_Eyebrows"] else 0.014
        self.line(curve((inner, y), middle, (outer, y + 0.008)), _mix(self.hair, DARK, 0.45), thickness)

    def nose(self) -> None:
        """A shaded nose, round or pointed."""
        wide, low = (0.055, 0.585) if self.has["Big_Nose"] else (0.032, 0.565)
        wide *= 1.0 - 0.25 * self.child
        shade = _mix(self.skin, self.shade, 0.75)
        if self.has["Pointy_Nose"]:
            sides = [(0.5 + side * 1.4 * wide, low + 0.015) for side in (-1, 1)]
            self.polygon([(0.5, self.eye_y - 0.01), sides[0], (0.5, low + 0.036), sides[1]], self.shade)
        else:
            self.line([(0.5 - 0.4 * wide, self.eye_y + 0.02), (0.5 - 0.5 * wide, low - 0.02)], shade, 0.012)
            self.ellipse(0.5, low - 0.004, wide, 0.55 * wide + 0.008, shade)
        for side in (-1, 1):
            self.ellipse(0.5 + side * 0.5 * wide, low + 0.006, 0.008, 0.006, DARK)

    def mouth(self) -> None:
        """Lips, teeth and what grows above them."""
        y = self.mouth_y
        if self.has["Mustache"]:
            for side in (-1, 1):
                upper = curve((0.5, y - 0.05), (0.5 + side * 0.07, y - 0.07), (0.5 + side * 0.1, y))
                lower = curve((0.5 + side * 0.1, y), (0.5 + side * 0.06, y - 0.025), (0.5, y - 0.022))
                self.polygon(np.concatenate([upper, lower]), self.hair)
        colour = LIPSTICK if self.has["Wearing_Lipstick"] else _mix(self.skin, (170, 60, 60), 0.45)
        lip = 0.026 if self.has["Big_Lips"] else 0.011
        half = (0.085 if self.has["Smiling"] else 0.065) * (1.0 - 0.2 * self.child)
        corner = y - (0.03 if self.has["Smiling"] else -0.004)
        gap = 0.026 if self.has["Mouth_Slightly_Open"] else 0.0
        dip = 0.035 if self.has["Smiling"] else 0.0
        left, right = (0.5 - half, corner), (0.5 + half, corner)
        outer_top = curve(left, (0.5, y + dip - 2.2 * lip - gap), right)
        outer_bottom = curve(right, (0.5, y + dip + 2.6 * lip + gap), left)
        self.polygon(np.concatenate([outer_top, outer_bottom]), colour)
        inner_top = curve(left, (0.5, y + dip - 1.2 * gap), right)
        if gap:
            self.polygon(np.concatenate([inner_top, curve(right, (0.5, y + dip + 1.4 * gap), left)]), (70, 16, 20))
            self.line(curve((0.5 - 0.6 * half, y), (0.5, y + dip * 0.8 - 0.004), (0.5 + 0.6 * half, y)), WHITE, 0.014)
        else:
            self.line(inner_top, _mix(colour, DARK, 0.6), 0.008)

    def hair_in_front(self) -> None:
        """The hair over the forehead, up to the hairline."""
        if self.has["Bald"]:
            self.ellipse(0.45, 0.30, 0.05, 0.022, _mix(self.skin, (255, 255, 255), 0.35))
            return
        half = self.width + 0.05
        left = curve((0.5 - half, 0.46), (0.5 - 1.15 * half, 0.06), (0.5, 0.145))
        self.polygon(np.concatenate([left, _mirrored(left), self.hairline()]), self.hair)
        strand = _mix(self.hair, (255, 255, 255) if sum(self.hair) < 300 else DARK, 0.22)
        if self.has["Straight_Hair"]:
            end = 0.84 if self.long_hair else 0.44
            for offset in (0.0, 0.022, 0.044):
                for side in (-1, 1):
                    x = 0.5 + side * (self.width + offset + 0.004)
                    self.line([(0.5 + side * (0.03 + 2 * offset), 0.17), (x, 0.36), (x, end)], strand, 0.008)
        if self.has["Wavy_Hair"]:
            for x in np.linspace(0.5 - half + 0.03, 0.5 + half - 0.03, 6):
                self.ellipse(float(x), 0.17 + 1.6 * (x - 0.5) ** 2, 0.052, 0.045, self.hair)
                self.line(curve((x - 0.03, 0.18), (x, 0.13), (x + 0.03, 0.18)), strand, 0.008)

    def hairline(self) -> np.ndarray:
        """Where the hair ends on the forehead, from right to left."""
        inner = self.width - 0.01
        if self.has["Bangs"]:
            return np.stack([np.linspace(0.5 + inner, 0.5 - inner, 11), 0.405 - 0.03 * (np.arange(11) % 2)], axis=1)
        if self.has["Receding_Hairline"]:
            right = curve((0.5 + inner, 0.42), (0.5 + 0.9 * inner, 0.19), (0.54, 0.20))
            return np.concatenate([right, [(0.5, 0.245)], _mirrored(right)])
        right = curve((0.5 + inner, 0.46), (0.5 + 0.9 * inner, 0.28), (0.5, 0.30))
        return np.concatenate([right, _mirrored(right)])

    def accessories(self) -> None:
        """Glasses, earrings and a hat."""
        if self.has["Eyeglasses"]:
            for side in (-1, 1):
                x = 0.5 + side * self.eye_x
                rim = (x, self.eye_y + 0.005) + CIRCLE * (0.068, 0.056)
                self.line(np.concatenate([rim, rim[:1]]), DARK, 0.014)
                self.line([(x + side * 0.07, self.eye_y), (0.5 + side * self.width, 0.475)], DARK, 0.014)
            self.line([(0.5 - self.eye_x + 0.07, self.eye_y), (0.5 + self.eye_x - 0.07, self.eye_y)], DARK, 0.014)
        if self.has["Wearing_Earrings"]:
            for side in (-1, 1):
                self.ellipse(0.5 + side * (self.width + 0.012), 0.585, 0.02, 0.028, GOLD)
        if self.has["Wearing_Hat"]:
            half = self.width + 0.07
            left = curve((0.5 - half, 0.31), (0.5 - half, 0.0), (0.5, 0.06))
            self.polygon(np.concatenate([left, _mirrored(left)]), self.looks.hat)
            self.ellipse(0.5, 0.315, half + 0.06, 0.035, _mix(self.looks.hat, DARK, 0.4))

    def ellipse(self, x: float, y: float, wide: float, high: float, fill: Colour) -> None:
        """A filled ellipse around (x, y) with half axes `wide` and `high`."""
        self.polygon((x, y) + CIRCLE * (wide, high), fill)

    def polygon(self, points: Points, fill: Colour) -> None:
        """A filled polygon."""
        self.pen.polygon(self.pixels(points), fill=fill)

    def line(self, points: Points, colour: Colour, thickness: float = 0.01) -> None:
        """A line through points, with rounded joints."""
        self.pen.line(self.pixels(points), fill=colour, width=max(1, round(thickness * self.scale)), joint="curve")

    def pixels(self, points: Points) -> list[float]:
        """Where points lie in the picture, moved and turned with the head: x and y by turns."""
        placed: list[float] = ((np.asarray(points) - 0.5) @ self.pose.T + self.centre).ravel().tolist()
        return placed


def curve(start: Point, control: Point, end: Point) -> np.ndarray:
    """Points [16, 2] of the quadratic Bezier curve from `start` to `end`."""
    points: np.ndarray = BERNSTEIN @ np.array((start, control, end))
    return points


def _mirrored(points: np.ndarray) -> np.ndarray:
    """The points on the other side of the face, in the order that goes on from the last."""
    return np.asarray((1.0, 0.0) + points[::-1] * (-1.0, 1.0))


def _mix(colour: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray, share: float) -> Colour:
    """A colour with a share of another."""
    return _colour((1.0 - share) * np.asarray(colour) + share * np.asarray(other))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255).round())
    return red, green, blue
