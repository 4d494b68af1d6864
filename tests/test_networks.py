"""Every family of networks keeps one interface, at any size, with and without a condition."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medaug.errors import ConfigError
from medaug.networks.convolutional import levels
from medaug.networks.families import FAMILIES, family
from medaug.networks.joint import JointDiscriminator
from medaug.networks.latent import Mlp, VelocityMlp
from medaug.networks.sizes import feature_level, halvings
from medaug.tensors import Shape

B, CHANNELS, LATENT, OUTPUTS, WIDTH = 3, 2, 6, 7, 4
SIZES, CONDS = (28, 32, 64), (0, 5)
PROJECTION = {"condition": "projection"}
VARIANTS = [(name, {}) for name in FAMILIES] + [("residual", PROJECTION)]
PARTS = ("encoder", "decoder", "discriminator")

each_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=[f"{name}{'-projection' * bool(o)}" for name, o in VARIANTS]
)
each_part = pytest.mark.parametrize("part", PARTS)
each_size = pytest.mark.parametrize("size", SIZES)
each_cond = pytest.mark.parametrize("cond_dim", CONDS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shape_of(size: int, cond_dim: int = 0, dims: int = 2) -> Shape:
    return Shape(CHANNELS, 1, size, cond_dim, min(cond_dim, 3), dims)


def condition(cond_dim: int) -> Tensor | None:
    return torch.randn(B, cond_dim) if cond_dim else None


def make(name: str, part: str, shape: Shape, width: int = WIDTH, **options: object) -> nn.Module:
    chosen = family(name)
    if part == "encoder":
        return chosen.encoder(shape, OUTPUTS, width, **options)
    if part == "decoder":
        return chosen.decoder(shape, LATENT, width, **options)
    return chosen.discriminator(shape, width, **options)


def source(part: str, shape: Shape) -> Tensor:
    if part == "decoder":
        return torch.randn(B, LATENT)
    return torch.randn(B, shape.channels, *[shape.size] * shape.spatial_dims)


def result(out: Tensor | tuple[Tensor, list[Tensor]]) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def assert_trains(network: nn.Module, out: Tensor) -> None:
    """A gradient reaches every parameter, and is not zero for any weight."""
    (out * torch.randn_like(out)).sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.ndim == 1 or p.grad.any(), name


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


def layer_sizes(network: nn.Module) -> list[tuple[int, int]]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    found = [m for m in network.modules() if isinstance(m, kinds)]
    return [
        (m.in_features, m.out_features)
        if isinstance(m, nn.Linear)
        else (m.in_channels, m.out_channels)
        for m in found
    ]


def test_larsens_sizes_at_width_64() -> None:
    shape, chosen = Shape(3, 3, 64), FAMILIES["larsen"]
    grid = 256 * 8 * 8
    encoder, decoder = chosen.encoder(shape, 256, 64), chosen.decoder(shape, 128, 64)
    assert layer_sizes(encoder) == [(3, 64), (64, 128), (128, 256), (grid, 1024), (1024, 256)]
    assert layer_sizes(decoder) == [(128, grid), (256, 256), (256, 128), (128, 32), (32, 3)]
    discriminator = chosen.discriminator(shape, 64).eval()
    assert layer_sizes(discriminator) == [
        *((3, 32), (32, 128), (128, 256), (256, 256)),
        *((grid, 512), (512, 1)),
    ]
    with torch.no_grad():
        logits, features = discriminator(torch.randn(1, 3, 64, 64), None)
    assert logits.shape == (1,)
    assert features[-1].shape == (1, 256, 8, 8)


@pytest.mark.parametrize(("size", "number"), [(16, 0), (28, 1), (32, 1), (64, 2), (128, 2)])
@pytest.mark.parametrize("name", ["larsen", "dcgan"])
def test_layer_l_comes_before_its_norm(name: str, size: int, number: int) -> None:
    if name == "dcgan" and size == 128:
        number = 3
    discriminator = make(name, "discriminator", shape_of(size)).eval()
    strided = [m for m in discriminator.modules() if getattr(m, "stride", 0) == (2, 2)]
    seen: list[Tensor] = []
    strided[number].register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        features = discriminator(torch.randn(1, CHANNELS, size, size), None)[1]
    assert torch.equal(features[-1], seen[0])


def test_larsen_takes_the_condition_at_the_top_layer() -> None:
    bare, told = (make("larsen", "encoder", shape_of(28, k)) for k in CONDS)
    assert told.body[0].in_channels == bare.body[0].in_channels
    assert told.fc[0].in_features == bare.fc[0].in_features + 5


def test_the_perceptron_at_width_64_has_1024() -> None:
    encoder = FAMILIES["mlp"].encoder(Shape(1, 1, 28), 256, 64)
    assert layer_sizes(encoder) == [(784, 1024), (1024, 1024), (1024, 256)]


def test_aaaes_sizes_at_width_64() -> None:
    shape, chosen = Shape(3, 3, 32), FAMILIES["aaae"]
    widths = [(64, 128), (128, 256), (256, 512)]
    encoder = layer_sizes(chosen.encoder(shape, 128, 64))
    assert encoder == [(3, 64), *widths, (512, 1024), (1024 * 2 * 2, 128)]
    discriminator = chosen.discriminator(shape, 64)
    assert layer_sizes(discriminator) == [(3, 64), *widths, (512, 1)]
    assert discriminator(torch.randn(1, 3, 32, 32), None)[0].shape == (1, 2, 2)


def test_initial_weights_of_the_authors() -> None:
    shape, width = Shape(1, 1, 28), 16
    plain = FAMILIES["plain"].discriminator(shape, width).down[1].weight
    gain = nn.init.calculate_gain("leaky_relu", 0.2)
    assert plain.std().item() == pytest.approx(gain / (width * 25) ** 0.5, rel=0.05)
    dcgan = FAMILIES["dcgan"].discriminator(shape, width).down[1].weight
    assert dcgan.std().item() == pytest.approx(0.02, rel=0.05)
    aaae = FAMILIES["aaae"].discriminator(shape, width).down[1].weight
    assert aaae.std().item() == pytest.approx(0.01, rel=0.05)


def test_gvae_drops_out_in_encoder_and_decoder_only() -> None:
    for part in PARTS:
        network = make("gvae", part, shape_of(28))
        rates = {m.p for m in network.modules() if isinstance(m, nn.Dropout2d)}
        assert rates == ({0.0} if part == "discriminator" else {0.3})


def test_spectral_layers_have_norm_1() -> None:
    shape = shape_of(28, 5)
    bare, spectral = (
        make("residual", "discriminator", shape, 8, spectral=s, **PROJECTION) for s in (False, True)
    )
    with torch.no_grad():
        for _ in range(20):
            spectral(torch.randn(B, CHANNELS, 28, 28), condition(5))

    def norms(network: nn.Module) -> list[float]:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return [torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2).item() for m in layers]

    assert len(norms(spectral)) == len(norms(bare))
    assert norms(spectral) == pytest.approx([1.0] * len(norms(spectral)), rel=0.03)
    assert norms(bare) != pytest.approx([1.0] * len(norms(bare)), rel=0.03)


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
