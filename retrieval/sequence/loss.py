"""The softmax over a catalogue as a loss, a few states at a time, so that no array of all logits is ever held."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOGITS_AT_ONCE = 1 << 20  # 4 MiB, which a processor's cache holds


def softmax_loss(states: Tensor, table: Tensor, bias: Tensor, targets: Tensor, drawn: Tensor, n_items: int) -> Tensor:
    """Mean cross-entropy of the items that came next, under a softmax over the catalogue.

    Args:
        states: (N, dim).
        table: (I, dim) representations of all items.
        bias: (I,) added to each item's logit.
        targets: (N,) what came next.
        drawn: (S,) distinct items, drawn evenly from those that the softmax is over; each counts ``n_items`` / S times,
            so that their sum is right on average. A state's own target is taken by itself, and never as one of them.
        n_items: How many the softmax is over; drawing all of them gives the exact loss.

    Returns:
        A scalar with a gradient to states, table and bias.
    """
    loss: Tensor = _SoftmaxLoss.apply(states, table, bias, targets, drawn, n_items)  # type: ignore[no-untyped-call]
    return loss


class _SoftmaxLoss(torch.autograd.Function):
    """Takes the gradient in the forward pass, while a block's logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, bias: Tensor, targets: Tensor, drawn: Tensor, n_items: int
    ) -> Tensor:
        n_states = len(states)
        others, own = table[drawn], table[targets]
        offset = bias[drawn] + math.log(n_items / len(drawn))
        place = torch.full((len(table),), -1, device=drawn.device)
        place[drawn] = torch.arange(len(drawn), device=drawn.device)
        to_states, to_others = torch.empty_like(states), torch.zeros_like(others)
        to_offset, to_own = torch.zeros_like(offset), states.new_empty(n_states)
        total = states.new_zeros(())
        size = max(1, LOGITS_AT_ONCE // len(drawn))
        for rows in (slice(start, start + size) for start in range(0, n_states, size)):
            block, at = states[rows], place[targets[rows]]
            among = torch.nonzero(at >= 0)[:, 0]
            own_logit = (block * own[rows]).sum(dim=1) + bias[targets[rows]]
            logits = torch.addmm(offset, block, others.T)
            logits[among, at[among]] = -torch.inf
            log_sum = torch.logaddexp(logits.logsumexp(dim=1), own_logit)
            total += (log_sum - own_logit).sum()
            shares = logits.sub_(log_sum[:, None]).exp_()
            to_own[rows] = (own_logit - log_sum).exp() - 1
            to_states[rows] = shares @ others + to_own[rows, None] * own[rows]
            to_others.addmm_(shares.T, block)
            to_offset += shares.sum(dim=0)
        to_table = torch.zeros_like(table).index_add_(0, drawn, to_others)
        to_table.index_add_(0, targets, to_own[:, None] * states)
        to_bias = torch.zeros_like(bias).index_add_(0, drawn, to_offset).index_add_(0, targets, to_own)
        ctx.save_for_backward(to_states / n_states, to_table / n_states, to_bias / n_states)
        return total / n_states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * part for part in ctx.saved_tensors), None, None, None
