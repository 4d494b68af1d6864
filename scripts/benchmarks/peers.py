"""medaug's training against the peers' trainers, on the same networks, batch and precision.

*cpu*: the 64 px VAE/GAN of Larsen et al. on this machine's cores.  *gpu*: images per second, shares
of what the GPU gives, idle time, and the peers.  All train the same networks from the same weights
on the same slices.  Each side runs in a process of its own, as its users would run it, and the
sides take turns.

``plain`` is the loop of ``loops.py``.  ``pythae`` is the trainer of that package for its VAEGAN,
``monai`` MONAI's AdversarialTrainer, given the losses of Larsen et al.; both drive medaug's
networks through their own interfaces.  ``monai, pixels`` is the same trainer as MONAI's own
examples use it, with the error of pixels and no draws from the prior: a smaller game, measured
beside the others and no rival at theirs.  A rival that is not installed says so.

Whole measurements of *gpu* are kept for the same program and GPU, so that a killed row continues
with the next one; a row that ended with all of them measures again.  One that fails is reported
with its reason, and without its claim.  Without a GPU the slices are prepared, to be taken to a
machine that has one but no SimpleITK, and nothing is measured.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import loops
import torch
from counting import convolution_seconds, counted, idle_share, matrix_peak, memory_rate
from loops import Done, Watch
from material import PATIENTS, SEED, cached
from processes import NotMeasured, fresh
from results import Claim, Measured, Setup, kept, sources
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from training import set_up

from medaug.models import build
from medaug.runtime.device import autocast

BATCH = 64
SIZE = 64
TURNS = 3
SECONDS = 20.0
LEAST = 1.5
STEPS = 6
"""What a watch takes that is over at once: five to warm up, and one."""
SIZES = (32, 64, 128, 256)
GAMES = {name: {"name": name, "preset": "author"} for name in ("vaegan", "wgan_gp", "gvae")}
LEFT_OUT = {("gvae", 256)}
"""Its 3.2 billion weights with gradients, moments and average are 63 GB before any activation."""
MISSING = "not measured"
GPU_SECONDS, PACE_SECONDS = 5.0, 3.0
BARS = {("vaegan", 64): 5.0, ("wgan_gp", 64): 5.0}
"""How many times the best rival's speed is wanted."""


def pythae_vaegan(model: Any, x: Tensor, batch: int, precision: str, watch: Watch) -> None:
    """pythae's VAEGAN and its trainer with three optimisers, on medaug's networks."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAEGAN, VAEGANConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
    from pythae.trainers import (
        CoupledOptimizerAdversarialTrainer,
        CoupledOptimizerAdversarialTrainerConfig,
    )
    from pythae.trainers.training_callbacks import TrainingCallback

    device = next(model.parameters()).device

    def driven(base: Any, network: nn.Module, outputs: Callable[[Any], dict[str, Tensor]]) -> Any:
        class Driven(base):  # type: ignore[misc]
            depth = 1

            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: Tensor, output_layer_levels: Any = None) -> Any:
                with autocast(device, precision):
                    found = self.network(x, None)
                return ModelOutput(**outputs(found))

        return Driven()

    def encoded(found: Tensor) -> dict[str, Tensor]:
        mu, logvar = found.float().chunk(2, 1)
        return {"embedding": mu, "log_covariance": logvar.clamp(-10, 10)}

    def judged(found: tuple[Tensor, list[Tensor]]) -> dict[str, Tensor]:
        logits, features = found
        return {"embedding": logits.float().sigmoid(), "embedding_layer_1": features[-1].float()}

    class Clock(TrainingCallback):
        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            watch.step()

    class Repeated(BaseDataset):
        def __len__(self) -> int:
            return loops.EPOCH * batch

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index % len(x))

    shape, latent = tuple(x.shape[1:]), model.noise_shape[0]
    theirs = VAEGAN(
        VAEGANConfig(input_dim=shape, latent_dim=latent, reconstruction_layer=1),
        driven(BaseEncoder, model.encoder, encoded),
        driven(BaseDecoder, model.decoder, lambda made: {"reconstruction": made.float().tanh()}),
        driven(BaseDiscriminator, model.discriminator, judged),
    )
    with tempfile.TemporaryDirectory() as folder:
        rates = {f"{p}_learning_rate": 1e-5 for p in ("encoder", "decoder", "discriminator")}
        trainer = CoupledOptimizerAdversarialTrainer(
            theirs,
            Repeated(x, torch.zeros(len(x))),
            training_config=CoupledOptimizerAdversarialTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=batch,
                num_epochs=10**6,
                train_dataloader_num_workers=4 if device.type == "cuda" else 0,
                no_cuda=device.type != "cuda",
                **rates,
            ),
            callbacks=[Clock()],
        )
        trainer.train()


def monai_adversarial(
    model: Any, x: Tensor, batch: int, precision: str, watch: Watch, pixels: bool = False
) -> None:
    """MONAI's AdversarialTrainer: the autoencoder is its generator, and draws from the prior too.

    The error of a reconstruction is that of the features which the trainer's own pass gives; with
    ``pixels`` it is that of pixels, and nothing is drawn from the prior.
    """
    from ignite.engine import Events
    from monai.engines import AdversarialTrainer

    device = next(model.parameters()).device

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = model.encoder, model.decoder
            self.divergence = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            with autocast(device, precision):
                mu, logvar = self.encoder(x, None).chunk(2, 1)
                self.divergence = loops.divergence(mu, logvar.clamp(-10, 10))
                z = loops.sampled(mu, logvar.clamp(-10, 10))
                codes = z if pixels else torch.cat([z, torch.randn_like(z)])
                made = self.decoder(codes, None)
            return made.float().tanh()

    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.discriminator
            self.features = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            with autocast(device, precision):
                logits, features = self.network(x, None)
            self.features = features[-1].float()
            return logits.float()

    def error(made: Tensor, real: Tensor) -> Tensor:
        if pixels:
            return F.l1_loss(made, real) + generator.divergence
        of_hat = judge.features[: len(real)]
        with torch.no_grad():
            judge(real)
        return F.mse_loss(of_hat, judge.features) + 0.01 * generator.divergence

    generator, judge = Generator().to(device), Discriminator().to(device)
    pairs = [{"image": image, "label": image} for image in x]
    trainer = AdversarialTrainer(
        device=device,
        max_epochs=10**6,
        train_data_loader=loops.loader(pairs, batch, device),
        g_network=generator,
        g_optimizer=torch.optim.RMSprop(generator.parameters(), lr=1e-5, alpha=0.9),
        g_loss_function=lambda logits: loops.bce(logits, True),
        recon_loss_function=error,
        d_network=judge,
        d_optimizer=torch.optim.RMSprop(judge.parameters(), lr=1e-5, alpha=0.9),
        d_loss_function=lambda real, fake: loops.bce(real, True) + loops.bce(fake, False),
        decollate=False,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: watch.step())
    trainer.run()


Plain = Callable[[Any, Tensor, int, str], loops.Loop]
Driver = Callable[[Any, Tensor, int, str, Watch], None]
"""Trains a model in place until the watch ends it."""


def played(loop: Plain, model: Any, x: Tensor, batch: int, precision: str, watch: Watch) -> None:
    """Play a loop of ``loops.py`` until the watch ends it."""
    made = loop(model, x, batch, precision)
    while True:
        made.step()
        watch.step(made.images // batch)


RIVALS: dict[str, dict[str, Driver]] = {
    "vaegan": {
        "plain": partial(played, loops.plain_vaegan),
        "pythae": pythae_vaegan,
        "monai": monai_adversarial,
    },
    "wgan_gp": {"plain": partial(played, loops.plain_wgan_gp)},
    "gvae": {"plain": partial(played, loops.plain_gvae)},
}
SMALLER: dict[str, dict[str, Driver]] = {
    "vaegan": {"monai, pixels": partial(monai_adversarial, pixels=True)}
}
"""Smaller games on the same networks, measured beside the rivals and not held against medaug's."""


def speed_of(
    rival: str, name: str, model: Any, x: Tensor, batch: int, precision: str, seconds: float
) -> float | str:
    """Images per second of a rival training ``model`` in place on ``x``, or why there are none."""
    watch = Watch(batch, seconds)
    try:
        play = {**RIVALS[name], **SMALLER.get(name, {})}[rival]
        play(model.train(), x, batch, precision, watch)
    except Done:
        return watch.speed
    except (ImportError, AttributeError) as error:
        if any(name in str(error) for name in ("ignite", "pythae", "imageio")):
            return f"not installed: {str(error).partition(chr(10))[0]}"
        raise
    raise RuntimeError(f"{rival} ended before it was measured")


def side_speed(
    work: str, side: str, size: int, batch: int, seconds: float, game: dict[str, Any], device: str
) -> float | str:
    """Images per second of one side, in this process, or why there are none."""
    folder = Path(work)
    trainer = set_up(cached(folder, size), game, folder / f"run-{side}", device, batch=batch)
    if side == "medaug":
        watch = Watch(batch, seconds)
        try:
            while True:
                watch.step(trainer.round() // batch)
        except Done:
            return watch.speed
    slices = trainer.feed.at(torch.arange(len(trainer.feed))).x.cpu()
    settings = trainer.config.model
    torch.manual_seed(0)
    model = build(settings.name, settings.arguments, trainer.feed.shape).to(trainer.feed.device)
    return speed_of(side, settings.name, model, slices, batch, trainer.players.precision, seconds)


def compared(
    setup: Setup,
    size: int,
    batch: int,
    game: dict[str, Any],
    device: str,
    turns: int,
    seconds: float,
) -> dict[str, Any]:
    """Every side's speeds in ``turns`` turns, each in a fresh process."""
    name = game["name"]
    sides = ("medaug", *RIVALS[name], *SMALLER.get(name, {}))
    speeds: dict[str, Any] = {side: [] for side in sides}
    for turn in range(turns):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            if isinstance(speeds[side], str):
                continue
            given = (setup.work, side, size, batch, seconds, game, device)
            found = fresh("peers", "side_speed", *given)
            print(f"{side}: {found if isinstance(found, str) else round(found, 1)}", flush=True)
            speeds[side] = found if isinstance(found, str) else [*speeds[side], found]
    return speeds


def operations(work: str, side: str, size: int, batch: int, game: dict[str, Any]) -> float:
    """Floating-point operations an image, in 10^9, counted over six steps."""
    with FlopCounterMode(display=False) as counter:
        found = side_speed(work, side, size, batch, 0.0, game, "cpu")
    return 0.0 if isinstance(found, str) else counter.get_total_flops() / (STEPS * batch) / 1e9


def advantage(speeds: dict[str, Any]) -> float:
    """medaug's median speed over that of the best rival at the same game."""
    apart = {"medaug", *(side for smaller in SMALLER.values() for side in smaller)}
    rivals = [median(s) for side, s in speeds.items() if side not in apart and isinstance(s, list)]
    return median(speeds["medaug"]) / max(rivals)


def cpu_claims(speeds: dict[str, Any]) -> list[Claim]:
    """medaug's speed over that of each rival at the same game, the best of which decides."""
    ours = median(speeds["medaug"])
    over = {"the best rival": advantage(speeds)} | {
        side: ours / median(found)
        for side, found in speeds.items()
        if side in RIVALS["vaegan"] and isinstance(found, list)
    }
    return [Claim(f"64 px VAE/GAN over {k}", v, ">=", LEAST, "x") for k, v in over.items()]


def measure_cpu(setup: Setup) -> Measured:
    """medaug against the peers on this machine's cores."""
    cached(setup.work, SIZE)
    turns, seconds, batch = (1, 2.0, 8) if setup.quick else (TURNS, SECONDS, BATCH)
    speeds = compared(setup, SIZE, batch, GAMES["vaegan"], "cpu", turns, seconds)
    counted = {
        side: fresh("peers", "operations", setup.work, side, SIZE, batch, GAMES["vaegan"])
        for side in speeds
    }
    note = (
        f"64 pixels, image and mask, batch {batch}, {PATIENTS} phantom patients, the authors' "
        f"networks; {turns} turns of {seconds:g} s a side, each in a process of its own; images "
        "per second. medaug alone warps its slices and averages its weights. monai is given "
        "Larsen's losses; as its examples use it (monai, pixels) it plays a smaller game, see "
        "gflop_per_image."
    )
    figures = {"images_per_s": speeds, "gflop_per_image": counted}
    return Measured(cpu_claims(speeds), figures, turns, SEED, note)


def ceilings() -> dict[str, float]:
    """What the GPU gives: operations a second, bytes a second."""
    device = torch.device("cuda")
    return {"bf16_flops_per_s": matrix_peak(device), "bytes_per_s": memory_rate(device)}


def hardware(work: str, name: str, size: int, batch: int) -> dict[str, float]:
    """What medaug's rounds ask of the GPU, counted as they are played one by one; their pace."""
    folder = Path(work)
    cache = cached(folder, size)
    plain = set_up(cache, GAMES[name], folder / "run-eager", "cuda", batch=batch, capture="off")
    for _ in range(2):
        plain.round()
    asks = counted(plain.round)
    alone = convolution_seconds(asks["convolutions"], torch.device("cuda"))
    eager = loops.pace(plain.round, PACE_SECONDS)
    del plain
    fast = set_up(cache, GAMES[name], folder / "run-graph", "cuda", batch=batch)
    for _ in range(8):
        fast.round()
    return {
        "images_per_s": loops.pace(fast.round, PACE_SECONDS),
        "eager_images_per_s": eager,
        "flops_per_image": asks["flops_per_image"],
        "bytes_per_image": asks["bytes_per_image"],
        "convolution_seconds_per_image": alone / asks["images"],
        "idle": idle_share(fast.round, 10),
        "recorded": float(not getattr(fast.runner, "failed", True)),
    }


def gathered(
    setup: Setup, place: Path, sizes: tuple[int, ...], batch: int, seconds: float
) -> dict[str, Any]:
    """All measurements, those of 64 pixels first, or why there are none; kept in ``place``."""

    def cell(key: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Keep one measurement, where no rival is missing, or say why there is none."""
        try:
            figures[key] = kept(place / f"{key}.json", measure, whole)
        except NotMeasured as error:
            print(f"gpu: {key}: {MISSING}: {error}", file=sys.stderr, flush=True)
            figures[key] = {MISSING: str(error)}

    def whole(found: dict[str, Any]) -> bool:
        return not any(isinstance(value, str) for value in found.values())

    figures: dict[str, Any] = {}
    cell("ceilings", lambda: fresh("peers", "ceilings"))
    for size in sorted(sizes, key=lambda size: (size != 64, size)):
        for name, game in GAMES.items():
            if (name, size) not in LEFT_OUT:
                given = (setup.work, name, size, batch)
                cell(f"{name}-{size}", lambda given=given: fresh("peers", "hardware", *given))
                rivals = (setup, size, batch, game, "cuda", 1, seconds)
                cell(f"{name}-{size}-rivals", lambda given=rivals: compared(*given))
    return figures


def missing(figures: dict[str, Any]) -> dict[str, str]:
    """The measurements that failed, and why."""
    return {key: row[MISSING] for key, row in figures.items() if MISSING in row}


def shares(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Each game's shares of the peaks: operations, bytes, and of its own convolutions' rate."""
    peak, found = figures["ceilings"], {}
    for key, row in figures.items():
        if "images_per_s" in row and "flops_per_image" in row and MISSING not in peak:
            images = row["images_per_s"]
            matrix = row["flops_per_image"] / peak["bf16_flops_per_s"]
            memory = row["bytes_per_image"] / peak["bytes_per_s"]
            found[key] = {
                "of_matrix_peak": images * matrix,
                "of_memory_bound": images * memory,
                "of_bound": images * max(matrix, memory),
                "of_own_convolutions": images * row["convolution_seconds_per_image"],
            }
    return found


def gpu_claims(figures: dict[str, Any]) -> list[Claim]:
    """What the GPU must show."""
    claims = []
    for (name, size), bound in BARS.items():
        rivals = figures.get(f"{name}-{size}-rivals", {MISSING: ""})
        if MISSING not in rivals:
            what = f"{name} at {size} px over the best rival"
            claims.append(Claim(what, advantage(rivals), ">=", bound, "x"))
    found = shares(figures)
    if "vaegan-256" in found:
        share = 100 * found["vaegan-256"]["of_own_convolutions"]
        claims.append(Claim("256 px VAE/GAN, of its convolutions' rate", share, ">=", 40, "%"))
    return claims


def measure_gpu(setup: Setup) -> Measured | None:
    """Training on one GPU; without one the slices are prepared and nothing is measured."""
    sizes = (64,) if setup.quick else SIZES
    for size in sizes:
        cached(setup.work, size)
    if not torch.cuda.is_available():
        print("gpu: no CUDA GPU here: the slices are prepared, nothing is measured")
        return None
    gpu = re.sub(r"\W+", "-", torch.cuda.get_device_name())
    place = setup.work / "gpu" / f"{sources()}-{gpu}"
    figures = gathered(setup, place, sizes, BATCH, 2.0 if setup.quick else GPU_SECONDS)
    failed = missing(figures)
    note = (
        f"Image and mask, batch {BATCH}, bfloat16, {PATIENTS} phantom patients, the authors' "
        "networks. Bytes are those of every operator as if each went to memory, so their share may "
        "pass 1. Rivals run in processes of their own. GVAE at 256 pixels is left out: with "
        "gradients, moments and average its weights alone are 63 GB."
        + "".join(f" {key} was not measured: {why}." for key, why in failed.items())
    )
    if not failed:  # a row that has all of them measures again
        shutil.rmtree(place)
    figures["shares"] = shares(figures)
    return Measured(gpu_claims(figures), figures, len(sizes), SEED, note, incomplete=bool(failed))
