"""Every family of networks keeps one interface, at any size, with and without a condition."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.networks.blocks import feature_level, halvings
from medaug.models.networks.build import FAMILIES, family
from medaug.models.networks.convolutional import levels
from medaug.models.networks.latent import JointDiscriminator, Mlp, VelocityMlp
from tests.support.network_parts import (
    CHANNELS,
    LATENT,
    OUTPUTS,
    PARTS,
    PROJECTION,
    WIDTH,
    B,
    assert_trains,
    condition,
    each_cond,
    each_part,
    each_size,
    each_variant,
    layer_sizes,
    make,
    result,
    shape_of,
    source,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@each_cond
@each_size
@each_variant
def test_shapes_and_gradients(name: str, options: dict, size: int, cond_dim: int) -> None:
    shape, cond = shape_of(size, cond_dim), condition(cond_dim)
    pictures = (B, CHANNELS, size, size)
    for part in PARTS:
        network = make(name, part, shape, **options)
        out = network(source(part, shape), cond)
        raw = result(out)
        assert raw.dtype == torch.float32
        if part == "encoder":
            assert raw.shape == (B, OUTPUTS)
        elif part == "decoder":
            assert raw.shape == pictures
        else:
            assert isinstance(out[1], list)
            assert raw.ndim in (1, 3)
            assert len(raw) == len(out[1][-1]) == B
        assert_trains(network, raw)


@each_part
@each_variant
def test_a_condition_changes_the_output(name: str, options: dict, part: str) -> None:
    shape = shape_of(28, 5)
    network = make(name, part, shape, **options).eval()
    x = source(part, shape)
    with torch.no_grad():
        one, other = (result(network(x, condition(5))) for _ in range(2))
    assert (one != other).reshape(B, -1).any(1).all()


@each_part
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_and_logits_are_float32_under_autocast(name: str, part: str) -> None:
    shape = shape_of(28)
    network = make(name, part, shape).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = result(network(source(part, shape), None))
    assert out.dtype == torch.float32 or part == "decoder"


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_of_the_decoder_are_raw(name: str) -> None:
    decoder = make(name, "decoder", shape_of(16)).eval()
    with torch.no_grad():
        for p in decoder.parameters():
            p.mul_(10)
        assert decoder(torch.randn(B, LATENT), None).max() > 1


@each_size
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("mlp", "gvae")])
def test_layer_l_is_about_8_x_8(name: str, size: int) -> None:
    discriminator = make(name, "discriminator", shape_of(size)).eval()
    with torch.no_grad():
        features = discriminator(torch.randn(1, CHANNELS, size, size), None)[1]
    assert features[-1].shape[2:] == ((7, 7) if size == 28 else (8, 8))


@pytest.mark.parametrize("name", FAMILIES)
def test_batch_statistics_are_declared(name: str) -> None:
    discriminator = make(name, "discriminator", shape_of(16))
    found = any(isinstance(m, _BatchNorm) for m in discriminator.modules())
    assert FAMILIES[name].batch_statistics is found


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if not f.batch_statistics])
def test_without_batch_statistics_a_logit_is_its_samples_own(name: str) -> None:
    discriminator = make(name, "discriminator", shape_of(16))
    x = torch.randn(B, CHANNELS, 16, 16)
    with torch.no_grad():
        together = discriminator(x, None)[0]
        alone = torch.cat([discriminator(row[None], None)[0] for row in x])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("size", [16, 17, 45, 100])
@pytest.mark.parametrize("name", FAMILIES)
def test_other_sizes(name: str, size: int) -> None:
    shape = shape_of(size)
    with torch.no_grad():
        for part in PARTS:
            out = result(make(name, part, shape, 2).eval()(source(part, shape), None))
            assert len(out) == B
            assert part != "decoder" or out.shape == (B, CHANNELS, size, size)


@each_part
@pytest.mark.parametrize("name", FAMILIES)
def test_small_sizes_are_refused(name: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, part, shape_of(7))
    assert str(caught.value) == (
        f"config data.size: 7 is too small for {name} networks, which take 8 pixels and more"
    )
    make(name, part, shape_of(8))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet", ", did you mean 'residual'?"),
        ("larson", ", did you mean 'larsen'?"),
        ("transformer", ""),
        ("", ""),
    ],
)
def test_an_unknown_family_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        family(name)
    assert str(caught.value) == (
        f"config model.network: {name!r} is not known{hint} "
        "(known: larsen, mlp, plain, dcgan, aaae, gvae, residual)"
    )


def test_halvings_round_up() -> None:
    assert halvings(28, 3) == [28, 14, 7, 4]
    assert halvings(45, 4) == [45, 23, 12, 6, 3]
    assert [levels(size) for size in (8, 16, 28, 32, 64, 100, 256)] == [1, 2, 3, 3, 4, 5, 6]
    assert [feature_level(s) for s in ([14, 7, 4], [16, 8, 4], [32, 16, 8], [9])] == [1, 1, 2, 0]


def test_projection_is_linear_in_the_condition() -> None:
    discriminator = make("residual", "discriminator", shape_of(28, 5), **PROJECTION)
    x, a, b = torch.randn(B, CHANNELS, 28, 28), torch.randn(B, 5), torch.randn(B, 5)
    with torch.no_grad():
        at_0, at_a, at_b, at_both = (
            discriminator(x, c)[0] for c in (torch.zeros(B, 5), a, b, 2 * a - 3 * b)
        )
    expected = at_0 + 2 * (at_a - at_0) - 3 * (at_b - at_0)
    assert torch.allclose(at_both, expected, atol=1e-4)
    assert not torch.allclose(at_a, at_0, atol=1e-4)


def test_projection_tells_the_norms_alone() -> None:
    for part in ("encoder", "decoder"):
        concat, told = (
            make("residual", part, shape_of(28, 5), condition=c) for c in ("concat", "projection")
        )
        bare = make("residual", part, shape_of(28))
        assert layer_sizes(told)[0] == layer_sizes(bare)[0] != layer_sizes(concat)[0]
        changes = [m for name, m in told.named_modules() if name.endswith("change")]
        assert changes
        assert all(m.in_features == 5 for m in changes)


def test_resampling_changes_the_picture() -> None:
    made = []
    for resample in ("nearest", "bilinear"):
        torch.manual_seed(1)
        decoder = make("residual", "decoder", shape_of(28), resample=resample)
        with torch.no_grad():
            made.append(decoder(torch.ones(B, LATENT), None))
    assert made[0].shape == made[1].shape
    assert not torch.allclose(*made, atol=1e-3)


@pytest.mark.parametrize("options", [{}, PROJECTION], ids=["concat", "projection"])
def test_three_dimensions(options: dict) -> None:
    shape, cond = shape_of(9, 5, dims=3), condition(5)
    expected = {"encoder": (B, OUTPUTS), "decoder": (B, CHANNELS, 9, 9, 9), "discriminator": (B,)}
    for part in PARTS:
        own = {"resample": "bilinear"} if part == "decoder" else {}
        own |= {"spectral": True} if part == "discriminator" else {}
        network = make("residual", part, shape, **options, **own)
        out = result(network(source(part, shape), cond))
        assert out.shape == expected[part]
        assert_trains(network, out)


@each_part
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("mlp", "residual")])
def test_flat_networks_refuse_volumes(name: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, part, shape_of(16, dims=3))
    assert str(caught.value) == (
        f"config model.network: {name} networks are two-dimensional, the data have 3 dimensions; "
        "use residual"
    )


@pytest.mark.parametrize(
    ("part", "option", "known"),
    [
        ("encoder", "condition", "concat, projection"),
        ("decoder", "resample", "nearest, bilinear"),
        ("discriminator", "condition", "concat, projection"),
    ],
)
def test_unknown_options_are_refused(part: str, option: str, known: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make("residual", part, shape_of(28), **{option: "film"})
    assert str(caught.value) == (
        f"config model.network.{option}: 'film' is not known (known: {known})"
    )


@pytest.mark.parametrize("width", [8, 16])
def test_the_modern_widths_stop_at_four_times_the_first(width: int) -> None:
    discriminator = make("residual", "discriminator", Shape(1, 1, 256), width)
    outputs = [block.conv2.out_channels for block in discriminator.blocks]
    assert outputs == [width, 2 * width, *[4 * width] * 4]


@each_cond
@pytest.mark.parametrize("maxout", [False, True])
def test_pairs(maxout: bool, cond_dim: int) -> None:
    shape, cond = shape_of(28, cond_dim), condition(cond_dim)
    network = JointDiscriminator(shape, LATENT, WIDTH, maxout=maxout)
    x, z = source("encoder", shape), source("decoder", shape)
    logits = network(x, z, cond)
    assert logits.shape == (B,)
    assert_trains(network, logits)
    network.eval()
    with torch.no_grad():
        base = network(x, z, cond)
        assert torch.equal(network(x, z, cond), base)
        changed = [network(-x, z, cond), network(x, -z, cond)]
        changed += [] if cond is None else [network(x, z, -cond)]
    assert all((other != base).all() for other in changed)


@pytest.mark.parametrize("maxout", [False, True])
def test_pairs_drop_out_with_maxout_alone(maxout: bool) -> None:
    shape = shape_of(28)
    network = JointDiscriminator(shape, LATENT, WIDTH, maxout=maxout)
    x, z = source("encoder", shape), source("decoder", shape)
    with torch.no_grad():
        assert torch.equal(network(x, z, None), network(x, z, None)) is not maxout


def test_a_stack_on_codes() -> None:
    kinds = [type(m).__name__ for m in Mlp((4, 8, 8, 2), 0.1)]
    assert kinds == ["Linear", "LeakyReLU", "Linear", "LeakyReLU", "Linear"]
    kinds = [type(m).__name__ for m in Mlp((4, 8, 2), 0.1, norm=True, elu=True)]
    assert kinds == ["Linear", "BatchNorm1d", "ELU", "Linear"]
    network = Mlp((4, 2), 0.1)
    assert network(torch.randn(B, 4)).shape == (B, 2)


@each_cond
def test_velocities_of_codes(cond_dim: int) -> None:
    network = VelocityMlp(LATENT, 16, cond_dim)
    z, t, cond = torch.randn(B, LATENT), torch.rand(B), condition(cond_dim)
    v = network(z, t, cond)
    assert v.shape == z.shape
    assert v.dtype == torch.float32
    assert_trains(network, v)
    assert not torch.allclose(network(z, 1 - t, cond), v, atol=1e-4)
