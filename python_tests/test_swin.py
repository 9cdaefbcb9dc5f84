"""Swin Transformer: parameters of the published network, windows, masks and biases against naive loops, derivatives."""

import itertools

import pytest
import torch
from model_cases import FLAT, MIXED, TINY_SWIN
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from mtl_ext.models import Swin, swin_split
from mtl_ext.models.swin import (
    PatchEmbedding,
    PatchMerging,
    SwinBlock,
    WindowAttention,
    from_windows,
    not_neighbours,
    relative_positions,
    to_windows,
)

TINY_ENCODER = {"width": 4, "depths": (2, 2), "num_heads": (1, 2), "window": 3, "patch": 2}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def attention(window, shift, channels=6, heads=2):
    """Double precision, with biases that matter."""
    layer = WindowAttention(channels, heads, window, shift).double()
    nn.init.normal_(layer.relative_position_bias_table)
    nn.init.normal_(layer.qkv.bias)
    return layer


def published_parameters(width=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window=7, patch=4):
    """The encoder's parameters, counted layer by layer from the paper."""
    total = 3 * patch**2 * width + width + 2 * width
    for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        c = width * 2**stage
        if stage:
            total += 2 * 2 * c + 2 * c * c  # norm of 4 (c / 2) channels, reduction to c without bias
        qkv, projection, bias = c * 3 * c + 3 * c, c * c + c, (2 * window - 1) ** 2 * heads
        layers = c * 4 * c + 4 * c + 4 * c * c + c
        total += depth * (2 * c + qkv + projection + bias + 2 * c + layers)
    return total + 2 * c


def test_swin_t_has_the_published_number_of_parameters():
    assert published_parameters() + 768 * 1000 + 1000 == 28_288_354
    with torch.device("meta"):
        encoder = Swin()
        small = Swin(**TINY_ENCODER)
    assert sum(param.numel() for param in encoder.parameters()) == published_parameters()
    assert sum(param.numel() for param in small.parameters()) == published_parameters(**TINY_ENCODER)
    assert (encoder.channels, encoder.strides) == ((96, 192, 384, 768), (4, 8, 16, 32))


def test_swin_t_has_torchvisions_names_and_shapes():
    with torch.device("meta"):
        state = Swin().state_dict()
    shapes = {
        "features.0.0.weight": (96, 3, 4, 4),
        "features.0.2.bias": (96,),
        "features.1.1.attn.relative_position_bias_table": (169, 3),
        "features.1.0.attn.qkv.weight": (288, 96),
        "features.2.reduction.weight": (192, 384),
        "features.2.norm.weight": (384,),
        "features.5.5.mlp.0.weight": (1536, 384),
        "features.5.5.mlp.3.weight": (384, 1536),
        "features.7.1.attn.proj.bias": (768,),
        "norm.weight": (768,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_weights_are_read_from_a_file_in_torchvisions_format(tmp_path):
    encoder = Swin(**TINY_ENCODER)
    path = tmp_path / "swin.pth"
    indices = {
        f"{name}.relative_position_index": torch.full((81,), 10**6)
        for name, layer in encoder.named_modules()
        if isinstance(layer, WindowAttention)
    }
    assert len(indices) == 4
    torch.save({**encoder.state_dict(), **indices, "head.weight": torch.zeros(2, 8), "head.bias": torch.zeros(2)}, path)
    inputs = torch.randn(2, 3, 20, 20)
    loaded = Swin(**TINY_ENCODER, weights=path)
    assert torch.equal(loaded.eval()(inputs), encoder.eval()(inputs))
    with pytest.raises(ValueError, match=r"in another shape features.1.0.attn.relative_position_bias_table \[25, 1\]"):
        Swin(**{**TINY_ENCODER, "window": 4}, weights=path)


@pytest.mark.parametrize(("window", "height", "width"), [(1, 3, 2), (2, 4, 6), (3, 6, 3)])
def test_windows_hold_their_tokens_row_by_row_and_go_back(window, height, width):
    x = torch.randn(2, height, width, 5)
    windows = to_windows(x, window)
    across = width // window
    for row, column in itertools.product(range(height), range(width)):
        place = row // window * across + column // window
        token = row % window * window + column % window
        assert torch.equal(windows[:, place, token], x[:, row, column])
    assert torch.equal(from_windows(windows, (height, width), window), x)


@pytest.mark.parametrize(
    ("sides", "shifts", "window"), [((6, 9), (1, 1), 3), ((4, 8), (0, 2), 4), ((8, 4), (2, 0), 4), ((6, 4), (1, 1), 2)]
)
def test_only_tokens_of_one_displaced_window_see_each_other(sides, shifts, window):
    """Oracle: windows of the tokens at their old places, displaced by the shift and cut off at the edges."""
    places = torch.cartesian_prod(*map(torch.arange, sides)).reshape(1, *sides, 2)
    moved = to_windows(places.roll([-shift for shift in shifts], (1, 2)), window)[0]
    found = not_neighbours(sides, shifts, window, torch.device("cpu"))
    assert found.shape == (len(moved), window**2, window**2)
    for w, tokens in enumerate(moved.tolist()):
        for i, j in itertools.product(range(window**2), repeat=2):
            first, second = (
                [(place - shift) // window for place, shift in zip(tokens[k], shifts, strict=True)] for k in (i, j)
            )
            assert bool(found[w, i, j]) == (first != second)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_equal_offsets_share_a_bias_and_different_ones_do_not(window):
    index = relative_positions(window).reshape(window**2, window**2).tolist()
    places = list(itertools.product(range(window), repeat=2))
    rows = {}
    for (i, first), (j, second) in itertools.product(enumerate(places), repeat=2):
        rows.setdefault((first[0] - second[0], first[1] - second[1]), set()).add(index[i][j])
    assert sorted(row for group in rows.values() for row in group) == list(range((2 * window - 1) ** 2))
    # Sorted by offset, the rows are in the published order.
    assert [min(rows[offset]) for offset in sorted(rows)] == list(range((2 * window - 1) ** 2))


def naive_attention(layer, x, shifts):
    """One sample [H, W, C], token by token, without moving any: sides are multiples of the window."""
    window, heads = layer.window, layer.heads
    height, width, channels = x.shape
    size = channels // heads
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    places = list(itertools.product(range(height), range(width)))

    def group(place):
        return [(side - shift) // window for side, shift in zip(place, shifts, strict=True)]

    out = torch.empty_like(x)
    for place in places:
        seen = [other for other in places if group(other) == group(place)]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = []
            for other in seen:
                down, right = place[0] - other[0] + window - 1, place[1] - other[1] + window - 1
                bias = layer.relative_position_bias_table[down * (2 * window - 1) + right, head]
                scores.append(q[place][part] @ k[other][part] / size**0.5 + bias)
            shares = torch.stack(scores).softmax(0)
            out[place][part] = sum(share * v[other][part] for share, other in zip(shares, seen, strict=True))
    return layer.proj(out)


@pytest.mark.parametrize(
    ("window", "shift", "sides", "shifts"),
    [
        (2, 0, (4, 6), (0, 0)),
        (2, 1, (4, 6), (1, 1)),
        (3, 1, (6, 3), (1, 0)),  # one window spans the width
        (4, 2, (4, 4), (0, 0)),
    ],
)
@torch.no_grad()
def test_attention_is_that_of_a_naive_loop(window, shift, sides, shifts):
    layer = attention(window, shift)
    x = torch.randn(2, *sides, 6, dtype=torch.float64)
    found = layer(x)
    for sample, out in zip(x, found, strict=True):
        torch.testing.assert_close(out, naive_attention(layer, sample, shifts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [0, 1])
@torch.no_grad()
def test_padding_is_zeros_that_are_seen(shift):
    layer = attention(3, shift)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    whole = layer(functional.pad(x, (0, 0, 0, 1, 0, 2)))
    assert torch.equal(layer(x), whole[:, :4, :5])


def seen_by(layer, x, place):
    """Which tokens of one sample [1, H, W, C] the output at a place depends on."""
    x = x.clone().requires_grad_()
    layer(x)[0, place[0], place[1]].sum().backward()
    return (x.grad[0] != 0).any(-1)


def test_a_token_depends_on_its_window_and_nothing_else():
    x = torch.randn(1, 6, 6, 6, dtype=torch.float64)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[0:3, 3:6] = True
    assert torch.equal(seen_by(attention(3, 0), x, (1, 4)), expected)
    # Shifted by one, the windows begin at 1 and 4; what is left of the first row and of the last are windows, too.
    for place, rows, columns in [((1, 4), (1, 4), (4, 6)), ((0, 0), (0, 1), (0, 1)), ((5, 0), (4, 6), (0, 1))]:
        expected = torch.zeros(6, 6, dtype=torch.bool)
        expected[rows[0] : rows[1], columns[0] : columns[1]] = True
        assert torch.equal(seen_by(attention(3, 1), x, place), expected)


def test_two_blocks_join_neighbouring_windows():
    blocks = nn.Sequential(SwinBlock(6, 2, 4, 0, 0.0), SwinBlock(6, 2, 4, 2, 0.0)).double()
    x = torch.randn(1, 12, 12, 6, dtype=torch.float64)
    seen = seen_by(blocks, x, (3, 3))
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[:8, :8] = True
    assert torch.equal(seen, expected)


@torch.no_grad()
def test_moving_the_input_by_a_window_moves_the_output():
    layer = attention(3, 0)
    x = torch.randn(2, 6, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x.roll((3, 6), (1, 2))), layer(x).roll((3, 6), (1, 2)))
    assert not torch.allclose(layer(x.roll(1, 1)), layer(x).roll(1, 1))


@torch.no_grad()
def test_a_mirrored_input_under_mirrored_biases_gives_the_mirrored_output():
    layer = attention(3, 1)
    x = torch.randn(2, 7, 9, 6, dtype=torch.float64)
    expected = layer(x).transpose(1, 2)
    table = layer.relative_position_bias_table
    table.copy_(table.reshape(5, 5, 2).transpose(0, 1).reshape(25, 2))
    torch.testing.assert_close(layer(x.transpose(1, 2)), expected)


@torch.no_grad()
def test_samples_do_not_see_each_other():
    encoder = Swin(**TINY_ENCODER).double().eval()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    together = encoder(x)
    for index in range(3):
        torch.testing.assert_close(encoder(x[index : index + 1])[0], together[index])


@torch.no_grad()
def test_merging_concatenates_four_neighbours_in_the_published_order():
    layer = PatchMerging(2)
    layer.norm = nn.Identity()
    layer.reduction = nn.Identity()
    x = torch.arange(3 * 4 * 2.0).reshape(1, 3, 4, 2)
    merged = layer(x)
    assert merged.shape == (1, 2, 2, 8)
    assert torch.equal(merged[0, 0, 1], torch.cat([x[0, 0, 2], x[0, 1, 2], x[0, 0, 3], x[0, 1, 3]]))
    assert torch.equal(merged[0, 1, 0], torch.cat([x[0, 2, 0], torch.zeros(2), x[0, 2, 1], torch.zeros(2)]))


@torch.no_grad()
def test_patches_at_the_edge_are_filled_up_with_zeros():
    embedding = PatchEmbedding(1, 1, 4)
    nn.init.ones_(embedding.weight)
    nn.init.zeros_(embedding.bias)
    assert embedding(torch.ones(1, 1, 5, 4)).flatten().tolist() == [16.0, 4.0]


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (1, 3)])
def test_strides_round_up(size):
    encoder = Swin(**{**TINY_ENCODER, "depths": (1, 2, 1), "num_heads": (1, 1, 1)})
    assert encoder.strides == (2, 4, 8)
    expected = tuple(-(-side // 8) for side in size)
    assert encoder(torch.randn(2, 3, *size)).shape == (2, 16, *expected)


@torch.no_grad()
def test_dropped_branches_leave_the_shortcut_and_keep_the_mean():
    block = SwinBlock(4, 2, 2, 0, 0.5)
    x = torch.randn(1, 2, 2, 4).expand(4000, -1, -1, -1)
    attended = x + 2 * block.attn(block.norm1(x))
    out = block.train()(x)
    only_shortcut = (out == x).flatten(1).all(1)
    assert only_shortcut.float().mean() == pytest.approx(0.25, abs=0.03)
    kept = attended[:1] + 2 * block.mlp(block.norm2(attended[:1]))
    mean = torch.stack([x[:1], attended[:1], x[:1] + 2 * block.mlp(block.norm2(x[:1])), kept]).mean(0)
    torch.testing.assert_close(out.mean(0, keepdim=True), mean, rtol=0, atol=0.03)
    attended = x[:1] + block.attn(block.norm1(x[:1]))
    torch.testing.assert_close(block.eval()(x[:1]), attended + block.mlp(block.norm2(attended)))


def test_branches_are_dropped_more_often_from_block_to_block():
    encoder = Swin(width=4, depths=(2, 3), num_heads=(1, 1), drop_path=0.4)
    rates = [layer.drop_path for layer in encoder.modules() if isinstance(layer, SwinBlock)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [layer.shift for layer in encoder.modules() if isinstance(layer, WindowAttention)] == [0, 3, 0, 3, 0]


# torch scripts its forward-mode formulas at their first use, and warns that scripting is deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forward_mode_and_double_backward_agree():
    """Hessian-vector products of a scalar: reverse over reverse, and forward over reverse."""
    encoder = Swin(**TINY_ENCODER, drop_path=0.0).double()
    inputs = torch.randn(2, 3, 14, 14, dtype=torch.float64)
    params = dict(encoder.named_parameters())
    direction = {name: torch.randn_like(param) for name, param in params.items()}

    def loss(values):
        return functional_call(encoder, values, (inputs,)).sin().sum()

    slope = torch.func.jvp(loss, (params,), (direction,))[1]
    grads = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)
    along = sum((grad * direction[name]).sum() for name, grad in zip(params, grads, strict=True))
    torch.testing.assert_close(slope, along)
    twice = torch.autograd.grad(along, list(params.values()))
    forward = torch.func.jvp(torch.func.grad(loss), (params,), (direction,))[1]
    for name, product in zip(params, twice, strict=True):
        torch.testing.assert_close(forward[name], product, rtol=1e-8, atol=1e-10)


def test_training_steps_lower_the_losses_of_all_tasks():
    model = swin_split(MIXED, **{**TINY_SWIN, "width": 16}, window=4, drop_path=0.0, dropout=0.0, hidden=0)
    kind = torch.arange(8) % 4
    seg = torch.zeros(8, 32, 32, dtype=torch.int64)
    for image, quadrant in zip(seg, kind.tolist(), strict=True):
        image[quadrant // 2 * 16 :, quadrant % 2 * 16 :] = 1
    inputs = seg[:, None] + 0.3 * torch.randn(8, 3, 32, 32)
    targets = {"kind": kind, "seg": seg, "mean": inputs.mean(dim=(2, 3))[:, :2] - 1}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def losses():
        outputs = model(inputs)
        return {task.name: task.loss(outputs[task.name], targets[task.name]) for task in MIXED}

    before = losses()
    for _ in range(15):
        optimizer.zero_grad()
        sum(losses().values()).backward()
        optimizer.step()
    after = losses()
    assert all(after[task] < 0.9 * before[task] for task in before)


def test_inputs_that_dense_outputs_could_not_match_are_refused():
    with pytest.raises(ValueError, match="inputs are 32 x 36 pixels, expected multiples of 8"):
        swin_split(MIXED, **TINY_SWIN)(torch.randn(2, 3, 32, 36))
    swin_split(FLAT, **TINY_SWIN)(torch.randn(2, 3, 32, 36))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window is 0, expected a whole number of at least 1"),
        ({"depths": (2, 0)}, r"depths\[1\] is 0"),
        ({"num_heads": (1, 2.0)}, r"num_heads\[1\] is 2\.0"),
        ({"num_heads": (1, 3)}, "num_heads holds 3 for a stage of 16 channels, expected a divisor"),
        ({"depths": (2, 2, 2)}, r"depths is \(2, 2, 2\) and num_heads \(1, 2\), expected one number per stage in both"),
        ({"depths": (), "num_heads": ()}, r"depths is \(\) and num_heads \(\)"),
        ({"drop_path": 1.0}, "drop_path is 1.0, expected a number at least 0 and below 1"),
        ({"head_width": 0}, "head_width is 0"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        swin_split(MIXED, **{**TINY_SWIN, **options})
