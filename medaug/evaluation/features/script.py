"""Take features with a network that the user brings as a TorchScript file.

Inception, RadImageNet or DINO are such networks.  TorchScript is a program, so such a file is code
that the user chooses to run.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from medaug.core.errors import ConfigError, WeightsError
from medaug.core.types import HU
from medaug.evaluation.features.extractor import blocks, windowed


class Script:
    """Features of a TorchScript file: (n, 3, y, x) float32 in [0, 1] in, (n, d) out.

    The three channels hold the same grey values.  What else the network needs (another size, its
    own mean and deviation) belongs in the script.  A pickle of weights is refused, unread.

    Args:
        path: file written by ``torch.jit.save``; its stem names the feature space.
        window_hu: (low, high), mapped to 0 and 1.
        device: where the network runs.

    Raises:
        WeightsError: no such file, or no TorchScript.
    """

    def __init__(
        self, path: Path, window_hu: tuple[float, float], device: str | torch.device = "cpu"
    ) -> None:
        self.path, self.window_hu, self.device = Path(path), window_hu, device
        try:
            self.version = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
        self.name = self.path.stem
        try:
            self.network = torch.jit.load(str(self.path), map_location=device).eval()
        except (IndexError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path}: not a TorchScript file; a feature extractor is what torch.jit.save wrote"
            ) from error

    @torch.inference_mode()
    def __call__(self, images: HU) -> Tensor:
        """Features float32 (n, d) of slices in HU (n, y, x).

        Raises:
            ConfigError: the script refuses the slices, or does not give (n, d).
        """
        rows = []
        for part in blocks(images):
            x = windowed(part, self.window_hu).expand(-1, 3, -1, -1).to(self.device)
            try:
                found = self.network(x)
            except RuntimeError as error:
                last = str(error).strip().splitlines()[-1]
                raise ConfigError(
                    f"{self.path}: does not take slices {tuple(x.shape)} ({last})"
                ) from error
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(part):
                raise ConfigError(
                    f"{self.path}: gives {shape} for {len(part)} slices; wanted are features (n, d)"
                )
            rows.append(found.float().cpu())
        return torch.cat(rows).clone()
