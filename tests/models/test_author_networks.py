"""Networks have the sizes, norms and initial weights that their authors gave them."""

import pytest
import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.networks.build import FAMILIES
from tests.support.network_parts import (
    CHANNELS,
    CONDS,
    PARTS,
    PROJECTION,
    B,
    condition,
    layer_sizes,
    make,
    shape_of,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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
