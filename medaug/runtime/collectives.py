"""Collective operations for losses under distributed training; no-ops with one process.

Each process plays a turn on its own rows of one batch and averages its gradients with the others.
For terms of single samples that average is right by itself.  Whatever looks at a batch as a whole
(a gate, a running mean, batch norm, a distance between two sets of codes) gets the whole batch
here; its gradient is that of the sum of all processes' losses.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from medaug.core.errors import TrainingError
from medaug.runtime.distributed import Ranks, current_ranks

BUCKET_BYTES = 32 * 2**20
"""Gradients are sent in pieces of about this size, so that no copy of all of them is made."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, to any order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.all_sum(values.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradient, ctx.ranks), None


def global_count(count: int) -> int:
    """The number of rows of the whole batch, of which this process has ``count``."""
    ranks = current_ranks()
    return count if ranks is None else count * ranks.world


def global_rows(count: int, device: torch.device) -> Tensor:
    """The indices (count,) of this process's rows in the whole batch."""
    ranks = current_ranks()
    start = 0 if ranks is None else count * ranks.rank
    return torch.arange(start, start + count, device=device)


def all_mean(values: Tensor) -> Tensor:
    """The mean of ``values`` over all processes, element by element; differentiable."""
    ranks = current_ranks()
    return values if ranks is None else _Sum.apply(values, ranks) / ranks.world


def all_gather(values: Tensor) -> Tensor:
    """The rows (b, ...) of all processes in the order of the whole batch; differentiable."""
    ranks = current_ranks()
    if ranks is None:
        return values
    before, count = ranks.rank * len(values), len(values)
    after = (ranks.world - 1 - ranks.rank) * count
    zeros = values.new_zeros(1, *values.shape[1:])
    parts = [zeros.expand(before, *zeros.shape[1:]), values, zeros.expand(after, *zeros.shape[1:])]
    return _Sum.apply(torch.cat(parts), ranks)


def all_min(values: Tensor) -> Tensor:
    """The minimum of ``values`` over all processes, element by element."""
    ranks = current_ranks()
    return values if ranks is None else ranks.all_min(values)


def average_gradients(gradients: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
    """Average each player's gradients over all processes, many of them in one message."""
    ranks = current_ranks()
    if ranks is None:
        return {player: list(own) for player, own in gradients.items()}
    averaged: list[Tensor] = []
    for bucket in buckets([gradient for own in gradients.values() for gradient in own]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        parts = (ranks.all_sum(flat) / ranks.world).split([g.numel() for g in bucket])
        averaged += [part.view(like.shape) for part, like in zip(parts, bucket, strict=True)]
    rest = iter(averaged)
    return {player: [next(rest) for _ in own] for player, own in gradients.items()}


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Split ``tensors``, in their order, into lists of about ``BUCKET_BYTES``."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.nbytes for each in bucket) >= BUCKET_BYTES:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


class SharedNorm(nn.BatchNorm1d):
    """Batch norm over the batch of all processes, for inputs (b, c, ...) of any dimension.

    It takes the place of torch's own under several processes, with the same weights under the same
    names.  torch's `SyncBatchNorm` does the same on GPUs alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x = input.float()
        others = [0, *range(2, x.ndim)]
        spread, centre = torch.var_mean(x, others, correction=0)
        centre, spread = centre.double(), spread.double()  # the difference below loses no digits
        moments = all_mean(torch.stack([centre, spread + centre.square()]))
        variance = (moments[1] - moments[0].square()).clamp_min(0).float()
        centre = moments[0].float()
        self._update_running(
            centre.detach(), variance.detach(), global_count(x.numel() // x.shape[1])
        )
        scale, shift = (variance + self.eps).rsqrt(), -centre
        if self.affine:
            scale = scale * self.weight
        view = (1, -1, *[1] * (x.ndim - 2))
        y = (x + shift.view(view)) * scale.view(view)
        return (y + self.bias.view(view) if self.affine else y).to(input.dtype)

    @torch.no_grad()
    def _update_running(self, centre: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.momentum is not None
        self.running_mean.lerp_(centre, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def share_norms(network: nn.Module) -> None:
    """Replace every batch norm below ``network`` by one over the whole batch, in place."""
    for name, module in list(network.named_children()):
        if isinstance(module, BATCH_NORMS):
            shared = SharedNorm(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
            )
            shared.weight, shared.bias = module.weight, module.bias
            for buffer, value in module.named_buffers(recurse=False):
                shared.register_buffer(buffer, value)
            setattr(network, name, shared.train(module.training))
        else:
            share_norms(module)


LIKE = {torch.randn_like, torch.rand_like}
SIZED = {torch.randn, torch.rand}
DROPPING = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}
UNSHARED = {
    torch.bernoulli, torch.normal, torch.randint_like, torch.randperm, torch.multinomial,
    torch.poisson, torch.dropout, torch.feature_dropout, torch.alpha_dropout, F.alpha_dropout,
    F.feature_alpha_dropout, F.gumbel_softmax, F.rrelu, Tensor.normal_, Tensor.uniform_,
    Tensor.bernoulli_, Tensor.random_, Tensor.exponential_, Tensor.cauchy_, Tensor.geometric_,
    Tensor.log_normal_, Tensor.multinomial, Tensor.bernoulli,
}  # fmt: skip
"""Random functions that are refused, since their rows cannot be assigned to samples."""


class _OwnRows(TorchFunctionMode):
    """Draw random numbers for the whole batch, as one process would, and keep this one's rows.

    A draw of m rows a sample, such as for real and generated images stacked, is split into m draws
    for the whole batch.

    Args:
        ranks: the processes that train together.
        count: rows of a turn's batch in this process.
    """

    def __init__(self, ranks: Ranks, count: int) -> None:
        super().__init__()
        self.ranks, self.count = ranks, count

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in SIZED:
            sizes = named.pop("size", None) or (args[0] if not isinstance(args[0], int) else args)
            return self.mine(func(self.all(sizes), **named))
        if func is torch.randint:
            low, high, sizes = self._bounds(args, named)
            return self.mine(func(low, high, self.all(sizes), **named))
        if func in LIKE:
            return self.mine(func(self.template(args[0]), *args[1:], **named))
        if func in UNSHARED:
            raise TrainingError(
                f"a turn draws by {func.__name__}, which {self.ranks.world} processes cannot "
                "share; draw by torch.randn, rand, randint, randn_like, rand_like or dropout"
            )
        if func in DROPPING:
            return self._dropout(func, *args, **named)
        return func(*args, **named)

    @staticmethod
    def _bounds(args: Sequence[Any], named: dict[str, Any]) -> tuple[int, int, Sequence[int]]:
        given = [*args]
        sizes = named.pop("size", None) or given.pop()
        low, high = given if len(given) == 2 else (named.pop("low", 0), given[0])
        return low, high, sizes

    def _dropout(self, func: Any, input: Tensor, p: float = 0.5, training: bool = True,
                 inplace: bool = False) -> Tensor:  # fmt: skip
        if not training or p == 0:
            return input
        of = input
        if func is not F.dropout:  # whole channels are dropped
            of = input.flatten(2)[:, :, :1].view(*input.shape[:2], *[1] * (input.ndim - 2))
        return input * self.mine(func(torch.ones_like(self.template(of)), p, True))

    def all(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes of a draw of ``sizes`` for the whole batch."""
        first = int(sizes[0])
        if first % self.count:
            raise TrainingError(
                f"a draw of {first} rows in a turn on {self.count} cannot be shared by "
                f"{self.ranks.world} processes; draw for every row of the batch"
            )
        return first * self.ranks.world, *map(int, sizes[1:])

    def template(self, like: Tensor) -> Tensor:
        """An empty tensor laid out as ``like``, for the whole batch."""
        last = not torch.empty_like(like, device="meta").is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        return torch.empty(
            self.all(like.shape), dtype=like.dtype, device=like.device, memory_format=layout
        )

    def mine(self, drawn: Tensor) -> Tensor:
        """This process's rows of a draw for the whole batch."""
        stacked = drawn.unflatten(0, (-1, self.ranks.world, self.count))
        return stacked[:, self.ranks.rank].flatten(0, 1)


@contextmanager
def shared_draws(count: int) -> Iterator[None]:
    """Let a turn on ``count`` rows draw the random numbers of one process on the whole batch."""
    ranks = current_ranks()
    if ranks is None:
        yield
        return
    with _OwnRows(ranks, count):
        yield
