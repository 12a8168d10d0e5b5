"""Data parallelism over processes: every process takes its share of a batch and gradients are averaged.

Two single-threaded processes train this small model about twice as fast as one process with two threads. Without a
process group (`torch.distributed.init_process_group`) everything here does nothing.
"""

from __future__ import annotations

import torch
from torch import distributed, nn


def rank_and_world() -> tuple[int, int]:
    """Number of this process and number of processes; (0, 1) without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share_of_batch(step: int, images: int) -> tuple[int, int]:
    """First scene and number of scenes of this process at a step.

    Raises:
        ValueError: The batch cannot be split evenly.
    """
    rank, world = rank_and_world()
    if images % world:
        raise ValueError(f"images is {images}; allowed with {world} processes: a multiple of {world}")
    return step * images + rank * (images // world), images // world


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes."""
    world = rank_and_world()[1]
    if world == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
