"""Encoders: structure and parameters of the published networks, and files of weights."""

import pickle
from dataclasses import replace

import pytest
import torch
from model_cases import FLAT, MIXED
from torch import nn

from mtl_ext.models import VGG16, FeaturePyramid, ResNet, RGBDFusion, resnet_fpn, vgg16
from mtl_ext.models.fpn import PyramidEncoder


def count(module):
    return sum(param.numel() for param in module.parameters())


@pytest.mark.parametrize(
    ("depth", "parameters", "entries", "channels"),
    [
        (18, 11_689_512, 122, (64, 128, 256, 512)),
        (34, 21_797_672, 218, (64, 128, 256, 512)),
        (50, 25_557_032, 320, (256, 512, 1024, 2048)),
    ],
)
def test_resnets_have_torchvisions_parameters(depth, parameters, entries, channels):
    with torch.device("meta"):
        for dilated in (False, True):
            encoder = ResNet(depth, dilated=dilated)
            assert encoder.channels == channels
            assert count(encoder) + count(nn.Linear(channels[-1], 1000)) == parameters
            assert len(encoder.state_dict()) + 2 == entries


def test_resnet_has_torchvisions_names_and_shapes():
    with torch.device("meta"):
        state = ResNet(50).state_dict()
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.bias": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.num_batches_tracked": (),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_vgg16_has_torchvisions_parameters_names_and_shapes():
    with torch.device("meta"):
        encoder = VGG16()
        classifier = [nn.Linear(512 * 49, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000)]
    state = encoder.state_dict()
    assert count(encoder) + sum(map(count, classifier)) == 138_365_992
    assert tuple(state["features.0.weight"].shape) == (64, 3, 3, 3)
    assert tuple(state["features.40.weight"].shape) == (512, 512, 3, 3)
    assert tuple(state["features.41.running_mean"].shape) == (512,)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_stages_have_the_strides_of_the_paper(depth, size):
    encoder = ResNet(depth, width=2)
    dilated = ResNet(depth, width=2, dilated=True)
    inputs = torch.randn(2, 3, *size)
    for net, strides in ((encoder, (4, 8, 16, 32)), (dilated, (4, 8, 8, 8))):
        assert net.strides == strides
        for stage, stride, channels in zip(net.stages(inputs), strides, net.channels, strict=True):
            assert tuple(stage.shape) == (2, channels, *(-(-side // stride) for side in size))
    x = inputs
    blocks = encoder.eval().blocks()
    for block in blocks:
        x = block(x)
    assert len(blocks) == 5
    assert torch.equal(x, encoder(inputs))


@pytest.mark.parametrize("depth", [18, 50])
def test_dilation_computes_what_the_stride_left_out(depth):
    plain, dilated = ResNet(depth, width=2).double().eval(), ResNet(depth, width=2, dilated=True).double().eval()
    dilated.load_state_dict(plain.state_dict())
    inputs = torch.randn(1, 3, 64, 128, dtype=torch.float64)
    coarse, fine = plain(inputs), dilated(inputs)
    assert fine.shape[-2:] == (8, 16)
    torch.testing.assert_close(fine[..., ::4, ::4], coarse)


def save(path, encoder, classifier, **changes):
    """A file as torchvision's checkpoints are: the encoder's state and a classifier's."""
    state = {**encoder.state_dict(), f"{classifier}weight": torch.zeros(2, 2), **changes}
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return path


@pytest.mark.parametrize("classifier", ["fc.", "classifier.6."])
def test_weights_are_read_from_a_file_in_torchvisions_format(tmp_path, classifier):
    make = ResNet if classifier == "fc." else VGG16
    encoder = make(width=2)
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 9)
    counters = {name: None for name in encoder.state_dict() if name.endswith("num_batches_tracked")}
    for changes in ({}, counters):
        path = save(tmp_path / "weights.pth", encoder, classifier, **changes)
        loaded = make(width=2, weights=path).state_dict()
        for name, tensor in encoder.state_dict().items():
            if name not in changes:
                assert torch.equal(loaded[name], tensor), name


def test_every_tasks_normalisation_begins_with_the_files(tmp_path):
    encoder = VGG16(width=2)
    nn.init.uniform_(encoder.features[1].weight)
    path = save(tmp_path / "weights.pth", encoder, "classifier.6.")
    model = vgg16(FLAT, width=2, weights=path, task_norm=True)
    for task in model.tasks:
        assert torch.equal(model.encoder[1].norms[task].weight, encoder.features[1].weight)


def test_weights_that_do_not_fit_are_named(tmp_path):
    encoder = ResNet(18, width=2)
    changes = {"layer1.0.conv1.weight": None, "conv1.weight": torch.zeros(2, 4, 7, 7), "extra": torch.zeros(1)}
    path = save(tmp_path / "weights.pth", encoder, "fc.", **changes)
    with pytest.raises(ValueError, match=r"weights\.pth does not fit") as caught:
        ResNet(18, width=2, weights=path)
    text = str(caught.value)
    assert "it lacks layer1.0.conv1.weight;" in text
    assert "in another shape conv1.weight [2, 4, 7, 7] (the network has [2, 3, 7, 7])" in text
    assert "it has besides extra. Check the options that shape the network (depth" in text
    with pytest.raises(ValueError, match=r"it lacks layer1\.0\.conv3\.weight, .* and \d+ more"):
        ResNet(50, width=2, weights=save(path, encoder, "fc."))


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file's code was run",))


def test_files_that_hold_no_tensors_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    for content in (Trap(), [torch.zeros(1)], {"conv1.weight": 1.0}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"weights: .*weights\.pth (is no file|holds no mapping)"):
            ResNet(18, width=2, weights=path)
    for content in (b"", b"no archive at all", pickle.dumps(Trap(), protocol=2)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pth is no file of tensors"):
            ResNet(18, width=2, weights=path)
    with pytest.raises(FileNotFoundError):
        ResNet(18, width=2, weights=tmp_path / "absent.pth")


def test_a_pyramid_adds_what_coarser_levels_know():
    pyramid = FeaturePyramid((1, 1), 1)
    with torch.no_grad():
        for conv in [*pyramid.lateral, *pyramid.smooth]:
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(conv.bias)
    fine, coarse = torch.arange(15.0).reshape(1, 1, 3, 5), torch.tensor([[[[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]]])
    p_fine, p_coarse = pyramid([fine, coarse])
    assert torch.equal(p_coarse, coarse)
    nearest = torch.tensor([[10.0, 10, 20, 20, 30], [10, 10, 20, 20, 30], [40, 40, 50, 50, 60]])
    assert torch.equal(p_fine[0, 0], fine[0, 0] + nearest)


def test_the_pyramids_classifier_reads_only_the_last_stage():
    model = resnet_fpn(MIXED, width=2)
    features = model.features(torch.randn(2, 3, 64, 64))
    assert [tuple(z.shape[1:]) for z in features] == [(8, 16, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2), (16, 2, 2)]
    outputs = model.outputs(features)
    reached = {
        task: [grad is not None for grad in torch.autograd.grad(output.sum(), features, allow_unused=True)]
        for task, output in outputs.items()
    }
    assert reached == {"kind": [False] * 4 + [True], "seg": [True] * 4 + [False], "mean": [False] * 4 + [True]}


@pytest.mark.parametrize("dilated", [False, True])
def test_fusion_has_the_stages_of_its_networks(dilated):
    fusion = RGBDFusion(ResNet(18, width=2, dilated=dilated), ResNet(18, width=2, dilated=dilated))
    inputs = torch.randn(2, 4, 64, 64)
    shapes = [tuple(stage.shape) for stage in fusion.color.stages(inputs[:, :3])]
    assert [tuple(stage.shape) for stage in fusion.stages(inputs)] == shapes
    assert [tuple(level.shape[1:]) for level in PyramidEncoder(fusion, 5)(inputs)][:2] == [(5, 16, 16), (5, 8, 8)]
    fusion(inputs).square().mean().backward()
    unused = {name for name, param in fusion.named_parameters() if param.grad is None}
    assert all(name.startswith(("fusions.0", "fusions.1", "fusions.2")) for name in unused)


@pytest.mark.parametrize("kept", ["color", "depth"])
def test_fusion_weighs_both_networks_at_every_stage(kept):
    fusion = RGBDFusion(ResNet(18, width=2), ResNet(18, width=2)).eval()
    inputs = torch.randn(2, 4, 64, 64)
    shown = inputs[:, :3] if kept == "color" else inputs[:, 3:].repeat(1, 3, 1, 1)
    expected = getattr(fusion, kept).stages(shown)
    with torch.no_grad():
        for conv, norm in fusion.fusions:
            norm.eps = 0.0
            conv.weight.zero_()
            first = 0 if kept == "color" else conv.out_channels
            conv.weight[:, first : first + conv.out_channels, 0, 0] = torch.eye(conv.out_channels)
    for found, stage in zip(fusion.stages(inputs), expected, strict=True):
        torch.testing.assert_close(found, stage)


def test_fusion_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"depth has stages of channels \(3, 6, 12, 24\).*expected those of color"):
        RGBDFusion(ResNet(18, width=2), ResNet(18, width=3))
    with pytest.raises(ValueError, match="inputs have 3 channels, expected 4"):
        RGBDFusion(ResNet(18, width=2), ResNet(18, width=2))(torch.randn(1, 3, 32, 32))


def test_a_kind_without_head_is_named_with_the_kinds_there_are():
    with pytest.raises(ValueError, match="task 'kind' has kind 'boxes', expected 'classes' or 'values'"):
        vgg16([replace(FLAT[0], kind="boxes")], width=2)
