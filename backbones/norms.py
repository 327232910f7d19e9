"""Convolution and batch norm: run as one, made constant, and with statistics over a whole set.

Legend of shape suffixes: N images, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

Pool = Callable[[Tensor, int], Tensor]  # a map NCHW, and every how many-th bin is wanted, to regions MCBB


def conv_norm(
    x_NCHW: Tensor, conv: nn.Conv2d, norm: nn.Module | None, *, relu: bool = False, pool: Pool | None = None
) -> Tensor:
    """ReLU(norm(conv(x))), the ReLU if `relu`; every network here runs its convolutions so.

    A norm that does not use the batch's statistics (frozen, or in evaluation) is only a scale and an offset:
    it is folded into the convolution, which saves a pass over the map forward, one backward, and the memory
    of one map. The weight that is trained, decayed and saved stays the unfolded one; its gradient passes
    through the scale.

    pool: of a 1x1 convolution, which then runs on the map that regions are pooled from: the mean of what it makes of
    cells is what it makes of their mean. So it reads a cell once, and not for each region around.
    """
    folds = isinstance(norm, nn.BatchNorm2d) and _can_fold(conv, norm)
    weight, bias = folded(conv, norm) if folds else (conv.weight, conv.bias)  # type: ignore[arg-type]
    if pool is not None:
        y = pool(F.conv2d(x_NCHW, weight), conv.stride[0])
        if bias is not None:  # not on the map, as samples outside it are 0
            y = y + bias.to(y.dtype).view(-1, 1, 1)
    else:
        y = conv._conv_forward(x_NCHW, weight, bias) if folds else conv(x_NCHW)
    if norm is not None and not folds:
        y = _normalised(y, norm)
    return F.relu(y, inplace=True) if relu else y


def _normalised(x_NCHW: Tensor, norm: nn.Module) -> Tensor:
    try:
        return norm(x_NCHW)  # type: ignore[no-any-return]
    except ValueError as error:
        if x_NCHW.numel() > x_NCHW.shape[1]:
            raise
        raise ValueError(
            "a batch norm in training has a single value a channel to take statistics of: one image, of which a map of "
            "1x1 is left; give each process 2 images or more a step, or larger images, or freeze the norms"
        ) from error


# Of each convolution: what its folded weight and bias were made of, these, the norm, and the memory of what they were
# made of. While that is held, no other tensor can come to lie at the place of one that is gone, and be taken for it.
_KEPT: WeakKeyDictionary[nn.Conv2d, tuple[tuple[Any, ...], tuple[Tensor, Tensor], nn.Module, list[Any]]]
_KEPT = WeakKeyDictionary()


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `conv` and then `norm` as a constant.

    Where no gradient passes they are kept, in autocast's format: to fold again takes eight kernels, which for one image
    are half of the host's work. Whatever changes the tensors makes them anew, except a write through `.data` or by a
    collective, of which torch keeps no count.
    """
    if torch.compiler.is_compiling():
        return _fold(conv, norm)
    learnt = [one for one in (conv.weight, conv.bias, norm.weight, norm.bias) if one is not None]
    # A norm's own update of its statistics counts in its counter alone.
    fixed = [one for one in (norm.running_mean, norm.running_var, norm.num_batches_tracked) if one is not None]
    made_of = None
    if not (torch.is_grad_enabled() and any(one.requires_grad for one in learnt)):
        made_of = _made_of([*learnt, *fixed], norm.eps)
    if made_of is None:
        _KEPT.pop(conv, None)
        return _fold(conv, norm)
    kept = _KEPT.get(conv)
    if kept is None or kept[0] != made_of:
        with torch.inference_mode(False), torch.no_grad():  # what is made in inference mode cannot serve in training
            weight, bias = (part.to(made_of[0]) for part in _fold(conv, norm))
        if type(weight) is not Tensor:  # a fake one, of a trace
            return weight, bias
        kept = _KEPT[conv] = made_of, (weight, bias), norm, [one.untyped_storage() for one in (*learnt, *fixed)]
    return kept[1]


def forget_folded() -> None:
    """Give back the memory of what `folded` keeps, of all networks; the next call makes it anew."""
    _KEPT.clear()


@torch.no_grad()
def fold_for_good(network: nn.Module, *inputs: Tensor) -> None:
    """Run the network, and write each norm that it folded into the convolution before it, in place: it is the same
    function with fewer parameters, and can no longer be trained or saved under its names."""
    network(*inputs)
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and conv in _KEPT:
            _, (weight, bias), norm, _ = _KEPT.pop(conv)
            conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
            norm._parameters.clear()
            norm._buffers.clear()
            norm.__class__ = nn.Identity


def _made_of(tensors: Sequence[Tensor], eps: float) -> tuple[Any, ...] | None:
    """Return the number format wanted, and what changes with any of the tensors, of which the first is the
    convolution's weight; None where that cannot be told."""
    dtype, device = tensors[0].dtype, tensors[0].device.type
    try:
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return (dtype, eps, *((one.data_ptr(), one._version) for one in tensors))
    except RuntimeError:  # tensors without storage (fake ones) or without a count of changes (made in inference mode)
        return None


def _count_changes(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Count a step as a change of the parameters: torch's fused optimisers do not."""
    torch.autograd.graph.increment_version([one for group in optimizer.param_groups for one in group["params"]])


register_optimizer_step_post_hook(_count_changes)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_var is not None and norm.running_mean is not None
    scale_C = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean_C = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * scale_C.view(-1, 1, 1, 1), norm.bias - mean_C * scale_C


def _can_fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    if norm.training or norm.running_mean is None or not norm.affine:
        return False
    # Hooks read the layers one by one (layer responses, activation statistics): let them see each.
    return not (norm._forward_hooks or norm._forward_pre_hooks or conv._forward_hooks or conv._forward_pre_hooks)


class _Frozen:
    """Mixed into a norm's class: it stays a constant scale and offset whatever mode the network is put in."""

    def train(self: Any, mode: bool = True) -> Any:
        return nn.Module.train(self, False)


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """Batch normalisation with fixed statistics, scale and offset; names in files as before."""


_FROZEN: dict[Any, Any] = {nn.BatchNorm2d: FrozenBatchNorm2d}  # a norm's class to the same class frozen


def _frozen_class(kind: Any) -> Any:
    if kind not in _FROZEN:
        _FROZEN[kind] = type(f"Frozen{kind.__name__}", (_Frozen, kind), {})
    return _FROZEN[kind]


def freeze_norms(module: nn.Module) -> None:
    """Make every batch norm in `module` a constant scale and offset, in training mode too, in place.

    Names in files do not change; objects that share the norm see it frozen. Norms of other kinds (which hold
    no statistics) are left as they are.
    """
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            if not isinstance(norm, _Frozen):
                norm.__class__ = _frozen_class(norm.__class__)
            norm.requires_grad_(False)
            norm.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's training flag is restored.

    no_grad and not inference_mode: what a module caches here (anchors) must still serve in training.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


@torch.no_grad()
def recompute_statistics(backbone: nn.Module, pixel_batches: Iterable[Tensor]) -> int:
    """Set all batch norms to the mean and variance over the given images; return how many there were.

    He et al. 2015, appendix A: "we compute the BN statistics (means and variances) for each layer on the
    ImageNet training set". Each layer normalises with its batch's statistics meanwhile, as in training; what
    is set are the exact population figures of its inputs (not a mean over batches of their variances, nor a
    moving average). A single value a channel (one image, a 1x1 map) has no variance of its own: such a batch is
    normalised with the batch before it, and counted. Frozen norms keep theirs.
    In a distributed group the sums of all processes are added, so each brings its share.

    pixel_batches: tensors as the network takes them; moved to its device. A network without batch norm reads
    none of them and returns 0.
    """
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    norms = [norm for norm in norms if not isinstance(norm, _Frozen)]
    if not norms:
        return 0
    device = next(backbone.parameters()).device
    momenta = [norm.momentum for norm in norms]
    sums = [_Sums(norm) for norm in norms]
    images = 0
    with evaluating(backbone):  # dropout and the like off, only the norms see their batch
        try:
            for norm in norms:
                norm.train()
                norm.momentum = 1.0  # running figures become the last batch's, which the kernel has computed anyway
            for pixels_NCHW in pixel_batches:
                backbone(pixels_NCHW.to(device))
                images += len(pixels_NCHW)
                for norm, one in zip(norms, sums):
                    one.add_last_batch()
                    norm.train()
        finally:
            for norm, momentum, one in zip(norms, momenta, sums):
                norm.momentum = momentum
                one.stop()
    if dist.is_available() and dist.is_initialized():
        images = _add_over_processes(sums, images, device)
    if images == 0:
        raise ValueError("Norm statistics cannot be computed over no images at all; give at least one batch.")
    for one in sums:
        one.write()
    return images


class _Sums:
    """Count, sum and sum of squares of one norm's inputs, per channel, in float64."""

    def __init__(self, norm: _BatchNorm) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        self.mean_C, self.var_C = norm.running_mean, norm.running_var
        self.before = {buffer: buffer.clone() for buffer in norm.buffers()}
        self.totals_3C = torch.zeros(3, len(self.mean_C), dtype=torch.float64, device=self.mean_C.device)
        self.batch_count = 0
        self.single_C: Tensor | None = None
        self._hook = norm.register_forward_pre_hook(self._count)

    def _count(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.batch_count = inputs[0].numel() // inputs[0].shape[1]
        self.single_C = inputs[0].flatten() if self.batch_count == 1 else None
        norm.train(self.batch_count > 1)  # torch refuses to take the variance of one value

    def add_last_batch(self) -> None:
        n = self.batch_count
        if self.single_C is None:
            mean_C, var_C = self.mean_C.double(), self.var_C.double()
        else:
            mean_C, var_C = self.single_C.double(), torch.zeros_like(self.mean_C).double()
        # The running variance is the unbiased one, over n - 1.
        square_sum_C = var_C * (n - 1) + n * mean_C.square()
        self.totals_3C += torch.stack([torch.full_like(mean_C, n), n * mean_C, square_sum_C])

    def stop(self) -> None:
        """Remove the hook and restore the statistics."""
        self._hook.remove()
        for buffer, value in self.before.items():
            buffer.copy_(value)

    def write(self) -> None:
        count_C, sum_C, square_sum_C = self.totals_3C
        mean_C = sum_C / count_C
        self.mean_C.copy_(mean_C)
        self.var_C.copy_((square_sum_C / count_C - mean_C.square()).clamp_(min=0))


def _add_over_processes(sums: list[_Sums], images: int, device: torch.device) -> int:
    flat = torch.cat([one.totals_3C.flatten() for one in sums] + [sums[0].totals_3C.new_tensor([images])])
    dist.all_reduce(flat)
    *totals, image_total = flat.split([one.totals_3C.numel() for one in sums] + [1])
    for one, total in zip(sums, totals):
        one.totals_3C = total.view(3, -1)
    return int(image_total.item())
