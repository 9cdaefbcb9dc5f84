"""Who is to be drawn: forty correlated attributes, an age and a group for every face.

The correlation structure is a Gaussian copula over three factors: how male a face is, how old, and how groomed. With
loadings l_j on the factors f ~ N(0, I), attribute j is present where ``l_j . f + sqrt(1 - |l_j|^2) e_j`` exceeds the
threshold that gives its rate, e_j ~ N(0, 1) being its own. Two attributes' normal scores have correlation
``l_i . l_j``. Rates and loadings are chosen to resemble CelebA's, with rare attributes made less rare.

What cannot be seen together is then removed, see :func:`make_consistent`.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mtl_ext.data.celeba import ATTRIBUTES


@dataclass(frozen=True)
class Trait:
    """One attribute: its rate before :func:`make_consistent`, its loadings on the factors, whether it is seen.

    Young is seen by the wrinkles, which begin at an age of 40; the others are drawn themselves.
    """

    rate: float
    male: float = 0.0
    age: float = 0.0
    groomed: float = 0.0
    visible: bool = True


# In the order of CelebA's file.
TRAITS = {
    "5_o_Clock_Shadow": Trait(0.20, male=0.8, groomed=-0.3),
    "Arched_Eyebrows": Trait(0.30, male=-0.6, groomed=0.5),
    "Attractive": Trait(0.50, male=-0.4, age=-0.5, groomed=0.5, visible=False),
    "Bags_Under_Eyes": Trait(0.25, male=0.3, age=0.6),
    "Bald": Trait(0.10, male=0.7, age=0.4),
    "Bangs": Trait(0.22, male=-0.4, age=-0.4),
    "Big_Lips": Trait(0.30, male=-0.3, groomed=0.3),
    "Big_Nose": Trait(0.28, male=0.5, age=0.4),
    "Black_Hair": Trait(0.28, male=0.2, age=-0.4),
    "Blond_Hair": Trait(0.22, male=-0.5, groomed=0.3),
    "Blurry": Trait(0.06, groomed=-0.2),
    "Brown_Hair": Trait(0.26, male=-0.1, age=-0.2),
    "Bushy_Eyebrows": Trait(0.20, male=0.5, groomed=-0.3),
    "Chubby": Trait(0.14, male=0.3, age=0.4),
    "Double_Chin": Trait(0.12, male=0.3, age=0.6),
    "Eyeglasses": Trait(0.18, male=0.3, age=0.5),
    "Goatee": Trait(0.14, male=0.8),
    "Gray_Hair": Trait(0.14, male=0.2, age=0.9),
    "Heavy_Makeup": Trait(0.30, male=-0.7, groomed=0.6),
    "High_Cheekbones": Trait(0.45, male=-0.3, groomed=0.4, visible=False),
    "Male": Trait(0.45, male=1.0),
    "Mouth_Slightly_Open": Trait(0.45, groomed=0.2),
    "Mustache": Trait(0.14, male=0.8, age=0.2),
    "Narrow_Eyes": Trait(0.18, age=0.2),
    "No_Beard": Trait(0.72, male=-0.85, groomed=0.1),
    "Oval_Face": Trait(0.30, male=-0.3, groomed=0.3),
    "Pale_Skin": Trait(0.10, male=-0.3),
    "Pointy_Nose": Trait(0.28, male=-0.3, groomed=0.3),
    "Receding_Hairline": Trait(0.14, male=0.4, age=0.7),
    "Rosy_Cheeks": Trait(0.18, male=-0.5, groomed=0.5),
    "Sideburns": Trait(0.14, male=0.8),
    "Smiling": Trait(0.48, male=-0.2, groomed=0.3),
    "Straight_Hair": Trait(0.26, male=0.2),
    "Wavy_Hair": Trait(0.32, male=-0.5, groomed=0.3),
    "Wearing_Earrings": Trait(0.24, male=-0.6, groomed=0.5),
    "Wearing_Hat": Trait(0.12, male=0.3, groomed=-0.3),
    "Wearing_Lipstick": Trait(0.40, male=-0.8, groomed=0.5),
    "Wearing_Necklace": Trait(0.18, male=-0.5, groomed=0.3),
    "Wearing_Necktie": Trait(0.15, male=0.6, age=0.4),
    "Young": Trait(0.70, age=-1.0),
}
if tuple(TRAITS) != ATTRIBUTES:
    raise AssertionError("TRAITS and mtl_ext.data.celeba.ATTRIBUTES differ")
VISIBLE = tuple(name for name, trait in TRAITS.items() if trait.visible)

HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
FACIAL_HAIR = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")
# Groups stand for the five codes that UTKFace calls race; here they differ in the colour of the skin and nothing else.
GROUPS = 5
GROUP_RATES = (0.40, 0.20, 0.15, 0.15, 0.10)
# The age's quantiles, in years, piecewise linear: many adults of 20 to 50, as in UTKFace.
AGE_QUANTILES = ((0.0, 0.08, 0.20, 0.50, 0.75, 0.93, 1.0), (1.0, 10.0, 20.0, 32.0, 50.0, 70.0, 95.0))
ADULT = 16


@dataclass(frozen=True)
class People:
    """Traits of M faces.

    Attributes:
        attributes: [M, 40] bool, in the order of CelebA's file.
        age: [M] int64, 1 .. 95 years.
        group: [M] int64, 0 .. 4.
    """

    attributes: np.ndarray
    age: np.ndarray
    group: np.ndarray


def draw_people(count: int, rng: np.random.Generator) -> People:
    """Draws the traits of `count` faces."""
    weights = loadings()
    factors = rng.standard_normal((count, weights.shape[1]))
    own = rng.standard_normal((count, len(TRAITS)))
    scores = factors @ weights.T + own * np.sqrt(1.0 - np.square(weights).sum(1)).clip(0.0)
    margins = scores - np.array([NormalDist().inv_cdf(1.0 - trait.rate) for trait in TRAITS.values()])
    share = np.array([NormalDist().cdf(value) for value in factors[:, 1]])
    age = np.interp(share, *AGE_QUANTILES).round().astype(np.int64)
    group = rng.choice(GROUPS, size=count, p=GROUP_RATES)
    return People(make_consistent(margins, age), age, group)


def loadings() -> np.ndarray:
    """The attributes' loadings on the factors male, age and groomed, [40, 3]."""
    return np.array([(trait.male, trait.age, trait.groomed) for trait in TRAITS.values()])


def make_consistent(margins: np.ndarray, age: np.ndarray) -> np.ndarray:
    """Attributes [M, 40] bool from how far the scores lie above their thresholds [M, 40].

    Below 16 years nobody is bald, grey or bearded. Hair has one of the four colours or none of them, and is wavy or
    straight or neither, by the larger margin. Bald heads have no hair to describe; a hat hides bangs and a receding
    hairline. With No_Beard there is no other facial hair either; without it and without any kind of facial hair, the
    face has a full beard.
    """
    present = {name: margins[:, column] > 0.0 for column, name in enumerate(ATTRIBUTES)}
    margin = {name: margins[:, column] for column, name in enumerate(ATTRIBUTES)}
    for rivals in (HAIR_COLOURS, ("Straight_Hair", "Wavy_Hair")):
        best = np.max([margin[name] for name in rivals], axis=0)
        for name in rivals:
            present[name] = present[name] & (margin[name] == best)
    _remove(present, age < ADULT, ("Bald", "Gray_Hair", "Receding_Hairline"))
    present["No_Beard"] = present["No_Beard"] | (age < ADULT)
    of_hair = ("Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline", "Sideburns", *HAIR_COLOURS)
    _remove(present, present["Bald"], of_hair)
    _remove(present, present["Wearing_Hat"], ("Bangs", "Receding_Hairline"))
    _remove(present, present["Bangs"], ("Receding_Hairline",))
    _remove(present, present["No_Beard"], FACIAL_HAIR)
    return np.stack([present[name] for name in ATTRIBUTES], axis=1)


def _remove(present: dict[str, np.ndarray], where: np.ndarray, names: tuple[str, ...]) -> None:
    for name in names:
        present[name] = present[name] & ~where
