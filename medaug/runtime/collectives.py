"""What models and losses need of samples that other processes hold; alone, all of it is free.

Each process plays a turn on its own rows of one batch and averages its gradients with the others.
A term of single samples is right by that average.  Whatever looks at a batch as a whole (a gate, a
running mean, batch norm, a distance of two sets of codes) asks here for the whole batch, and what
flows back is the gradient of the sum of all processes' losses.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from medaug.core.errors import TrainingError
from medaug.runtime.distributed import BUCKET_BYTES, Ranks, together


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, to any order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.add(values.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradient, ctx.ranks), None


def global_count(count: int) -> int:
    """How many rows the whole batch has where this process has ``count``."""
    ranks = together()
    return count if ranks is None else count * ranks.world


def global_rows(count: int, device: torch.device) -> Tensor:
    """The numbers of this process's ``count`` rows in the whole batch."""
    ranks = together()
    start = 0 if ranks is None else count * ranks.rank
    return torch.arange(start, start + count, device=device)


def all_mean(values: Tensor) -> Tensor:
    """The mean of ``values`` over all processes, element by element; differentiable."""
    ranks = together()
    return values if ranks is None else _Sum.apply(values, ranks) / ranks.world


def all_gather(values: Tensor) -> Tensor:
    """The rows (b, ...) of all processes in the order of the whole batch; differentiable."""
    ranks = together()
    if ranks is None:
        return values
    before, count = ranks.rank * len(values), len(values)
    after = (ranks.world - 1 - ranks.rank) * count
    zeros = values.new_zeros(1, *values.shape[1:])
    parts = [zeros.expand(before, *zeros.shape[1:]), values, zeros.expand(after, *zeros.shape[1:])]
    return _Sum.apply(torch.cat(parts), ranks)


def all_min(values: Tensor) -> Tensor:
    """The least of ``values`` over all processes."""
    ranks = together()
    return values if ranks is None else ranks.lowest(values)


def average_gradients(steps: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
    """Every player's gradients, averaged over all processes in as few messages as will do."""
    ranks = together()
    if ranks is None:
        return {player: list(gradients) for player, gradients in steps.items()}
    every = [gradient for gradients in steps.values() for gradient in gradients]
    done: list[Tensor] = []
    for bucket in buckets(every):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        parts = (ranks.add(flat) / ranks.world).split([gradient.numel() for gradient in bucket])
        done += [part.view(like.shape) for part, like in zip(parts, bucket, strict=True)]
    result, start = {}, 0
    for player, gradients in steps.items():
        result[player] = done[start : start + len(gradients)]
        start += len(gradients)
    return result


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """``tensors`` in their order, in pieces of about ``BUCKET_BYTES``."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.nbytes for each in bucket) >= BUCKET_BYTES:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


class SharedNorm(_BatchNorm):
    """Batch norm whose statistics are those of the whole batch, over any number of dimensions.

    It takes the place of torch's own under several processes: the same weights by the same names.
    torch's `SyncBatchNorm` does the same on GPUs alone.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x = input.float()
        others = [0, *range(2, x.ndim)]
        spread, centre = torch.var_mean(x, others, correction=0)
        centre, spread = centre.double(), spread.double()  # nothing is lost by the difference below
        moments = all_mean(torch.stack([centre, spread + centre.square()]))
        variance = (moments[1] - moments[0].square()).clamp_min(0).float()
        centre = moments[0].float()
        self._remember(centre.detach(), variance.detach(), global_count(x.numel() // x.shape[1]))
        scale, shift = (variance + self.eps).rsqrt(), -centre
        if self.affine:
            scale = scale * self.weight
        view = (1, -1, *[1] * (x.ndim - 2))
        y = (x + shift.view(view)) * scale.view(view)
        return (y + self.bias.view(view) if self.affine else y).to(input.dtype)

    @torch.no_grad()
    def _remember(self, centre: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.momentum is not None
        self.running_mean.lerp_(centre, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def share_norms(network: nn.Module) -> None:
    """Have every batch norm below ``network`` see the whole batch, in place."""
    for name, module in list(network.named_children()):
        if isinstance(module, _BatchNorm):
            twin = SharedNorm(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
            )
            twin.weight, twin.bias = module.weight, module.bias
            for buffer, value in module.named_buffers(recurse=False):
                twin.register_buffer(buffer, value)
            setattr(network, name, twin.train(module.training))
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
"""Draws whose rows belong to no sample as far as one can tell."""


class _OwnRows(TorchFunctionMode):
    """Draws what one process would for the whole batch, and keeps the rows of this one.

    ``count`` rows are a turn's batch here.  A draw for m of them a sample, such as for real and
    drawn images stacked, is taken apart into m draws of the whole batch.
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
        """``sizes`` of a draw, for the whole batch."""
        first = int(sizes[0])
        if first % self.count:
            raise TrainingError(
                f"a draw of {first} rows in a turn on {self.count} cannot be shared by "
                f"{self.ranks.world} processes; draw for every row of the batch"
            )
        return first * self.ranks.world, *map(int, sizes[1:])

    def template(self, like: Tensor) -> Tensor:
        """Memory as ``like`` has it, for the whole batch."""
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
    """Draws inside a turn on ``count`` rows are those of one process on the whole batch."""
    ranks = together()
    if ranks is None:
        yield
        return
    with _OwnRows(ranks, count):
        yield
