"""From a configuration to a method: options, and methods that wrap others."""

import pytest

from mtl_ext.methods import CRMOGM, FAMO, MGDA, NashMTL, PCGrad, SDMGrad
from mtl_ext.trainers import TrainConfig
from mtl_ext.trainers.build import build_method


def build(name, **options):
    return build_method(TrainConfig(method=name, method_options=options, seed=7), 3)


def test_a_wrapped_method_is_a_name_or_a_mapping():
    assert type(build("CRMOGM").method) is MGDA
    method = build("CRMOGM", method="PCGrad", alpha=0.5)
    assert (type(method), type(method.method), method.alpha) == (CRMOGM, PCGrad, 0.5)
    assert method.method.generator.initial_seed() == 7
    inner = build("CRMOGM", method={"name": "NashMTL", "max_norm": 2.0}).method
    assert (type(inner), inner.max_norm, len(inner.bargaining)) == (NashMTL, 2.0, 3)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("Best", "there is no method 'Best'; there are .*MGDA"),
        ({"name": "MGDA", "c": 1}, "method 'MGDA' has no option 'c'; it has normalization"),
        (
            {"max_norm": 2.0},
            r"method 'CRMOGM' has the option method: \{'max_norm': 2.0\}, expected a name",
        ),
        (3, "method 'CRMOGM' has the option method: 3, expected a name"),
        ("EW", r"method is EW\(\), expected one whose weights depend on the Gram matrix"),
    ],
)
def test_a_wrapped_method_that_cannot_be_is_refused(inner, message):
    with pytest.raises(ValueError, match=message):
        build("CRMOGM", method=inner)


def test_a_methods_own_learning_rate_is_an_option():
    assert build("FAMO", lr=0.5).adam.lr == 0.5
    assert isinstance(build("FAMO"), FAMO)
    assert build("SDMGrad", lr=5.0).lr == 5.0
    assert isinstance(build("SDMGrad"), SDMGrad)
