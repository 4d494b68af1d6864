"""Training loops as the peers write them, on medaug's networks, batch and precision.

``plain`` is what a paper's repository holds: a DataLoader, a forward and a backward pass for each
player, ``requires_grad`` switched to and fro, and losses read after every step.  ``pythae`` is the
trainer of that package for its VAEGAN, ``monai`` MONAI's AdversarialTrainer, given the losses of
Larsen et al.; both drive medaug's networks through their own interfaces.  ``monai, pixels`` is the
same trainer as MONAI's own examples use it, with the error of pixels and no draws from the prior: a
smaller game, which is measured beside the others and is no rival at theirs.  pythae and
pytorch-ignite come with the extra ``bench`` or lie in build/rivals, where ``bench.py`` has rows
look; a rival that is not there says so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from plain import (
    EPOCH,
    Done,
    Long,
    Watch,
    bce,
    divergence,
    loader,
    plain_gvae,
    plain_vaegan,
    plain_wgan_gp,
    sampled,
)
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.runtime.device import autocast


def pythae_vaegan(model: Any, x: Tensor, batch: int, precision: str, watch: Watch) -> None:
    """pythae's VAEGAN and its trainer with three optimisers, on medaug's networks."""
    import tempfile

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAEGAN as Theirs
    from pythae.models import VAEGANConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
    from pythae.trainers import (
        CoupledOptimizerAdversarialTrainer,
        CoupledOptimizerAdversarialTrainerConfig,
    )
    from pythae.trainers.training_callbacks import TrainingCallback

    device = next(model.parameters()).device

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.encoder

        def forward(self, x: Tensor) -> Any:
            with autocast(device, precision):
                mu, logvar = self.network(x, None).chunk(2, 1)
            return ModelOutput(embedding=mu.float(), log_covariance=logvar.float().clamp(-10, 10))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.decoder

        def forward(self, z: Tensor) -> Any:
            with autocast(device, precision):
                made = self.network(z, None)
            return ModelOutput(reconstruction=made.float().tanh())

    class Discriminator(BaseDiscriminator):
        depth = 1

        def __init__(self) -> None:
            super().__init__()
            self.network = model.discriminator

        def forward(self, x: Tensor, output_layer_levels: Any = None) -> Any:
            with autocast(device, precision):
                logits, features = self.network(x, None)
            embedding = logits.float().sigmoid()
            return ModelOutput(embedding=embedding, embedding_layer_1=features[-1].float())

    class Clock(TrainingCallback):
        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            watch.step()

    class Repeated(BaseDataset):
        def __len__(self) -> int:
            return EPOCH * batch

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index % len(x))

    shape, latent = tuple(x.shape[1:]), model.noise_shape[0]
    theirs = Theirs(
        VAEGANConfig(input_dim=shape, latent_dim=latent, reconstruction_layer=1),
        Encoder(),
        Decoder(),
        Discriminator(),
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
                self.divergence = divergence(mu, logvar.clamp(-10, 10))
                z = sampled(mu, logvar.clamp(-10, 10))
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
    pairs = Long(x, batch, lambda image: {"image": image, "label": image})
    trainer = AdversarialTrainer(
        device=device,
        max_epochs=10**6,
        train_data_loader=loader(pairs, batch, device),
        g_network=generator,
        g_optimizer=torch.optim.RMSprop(generator.parameters(), lr=1e-5, alpha=0.9),
        g_loss_function=lambda logits: bce(logits, True),
        recon_loss_function=error,
        d_network=judge,
        d_optimizer=torch.optim.RMSprop(judge.parameters(), lr=1e-5, alpha=0.9),
        d_loss_function=lambda real, fake: bce(real, True) + bce(fake, False),
        decollate=False,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: watch.step())
    trainer.run()


Loop = Callable[[Any, Tensor, int, str, Watch], None]
RIVALS: dict[str, dict[str, Loop]] = {
    "vaegan": {"plain": plain_vaegan, "pythae": pythae_vaegan, "monai": monai_adversarial},
    "wgan_gp": {"plain": plain_wgan_gp},
    "gvae": {"plain": plain_gvae},
}
SMALLER: dict[str, dict[str, Loop]] = {
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
