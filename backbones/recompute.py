"""Memory for time: a part's inner maps are thrown away after the forward pass and computed again in the backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_recomputed(part: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """run(x), a forward pass of `part`, with no map kept but `x` (Chen et al. 2016). `part` draws no random numbers.

    The same values and gradients, and the norms' running statistics move once, as without.
    """
    return checkpoint(
        run,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(part)),
    )


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training and do not move their running statistics."""
    # Not by track_running_stats: autograd counts that the second pass saves just what the first did.
    norms = [norm for norm in part.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
