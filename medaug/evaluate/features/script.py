"""A feature space that the user brings: Inception, RadImageNet or DINO as a TorchScript file."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from medaug.errors import ConfigError, WeightsError
from medaug.evaluate.features.extractor import blocks, windowed
from medaug.evaluate.features.trust import check_script
from medaug.types import HU


class Script:
    """Features of a TorchScript file: (n, 3, y, x) float32 in [0, 1] in, (n, d) out.

    The three channels are the same grey window.  What else the network needs (another size, a mean
    and deviation of its own) belongs into the script.  A pickle of weights is refused: it could run
    anything when it is loaded; so is a script that reaches beyond tensors, see `check_script`.

    Args:
        path: what ``torch.jit.save`` wrote; its stem is the name of the space.
        window_hu: what is seen.
        device: where it runs.

    Raises:
        WeightsError: no such file, or no TorchScript.
    """

    def __init__(
        self, path: Path, window_hu: tuple[float, float], device: str | torch.device = "cpu"
    ) -> None:
        self.path, self.window_hu, self.device = Path(path), window_hu, device
        try:
            check_script(self.path)
            self.version = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
        self.name = self.path.stem
        try:
            self.network = torch.jit.load(str(self.path), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path}: not a TorchScript file; a feature extractor is what torch.jit.save wrote"
            ) from error

    @torch.inference_mode()
    def __call__(self, images: HU) -> Tensor:
        """Features float32 (n, d) of slices in HU (n, y, x).

        Raises:
            ConfigError: the script refuses the slices, or gives something else than (n, d).
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
