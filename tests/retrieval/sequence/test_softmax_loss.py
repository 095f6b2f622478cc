"""The loss: exact over all items, right on average over some of them."""

import pytest
import torch
from torch.nn import functional

from retrieval.sequence import loss
from retrieval.sequence.loss import softmax_loss


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    states, table, bias = torch.randn(13, 5), torch.randn(7, 5), torch.randn(7)
    return [tensor.requires_grad_() for tensor in (states, table, bias)], torch.randint(0, 7, (13,))


def gradients(value, inputs):
    return torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("at_once", [1, 14, 10_000])
def test_all_items_give_cross_entropy_and_its_gradient(inputs, monkeypatch, at_once) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    (states, table, bias), targets = inputs
    ours = softmax_loss(states, table, bias, targets, torch.randperm(7), 7)
    plain = functional.cross_entropy(states @ table.T + bias, targets)
    torch.testing.assert_close(ours, plain)
    for one, other in zip(gradients(3 * ours, inputs[0]), gradients(3 * plain, inputs[0]), strict=True):
        torch.testing.assert_close(one, other)


def test_drawn_items_stand_for_all_but_the_target(inputs) -> None:
    (states, table, bias), targets = inputs
    drawn = torch.tensor([4, 0, 6])
    ours = softmax_loss(states, table, bias, targets, drawn, 7)
    losses = []
    for state, target in zip(states, targets.tolist(), strict=True):
        logits = table @ state + bias
        others = sum(7 / 3 * logits[item].exp() for item in drawn.tolist() if item != target)
        losses.append(torch.log(logits[target].exp() + others) - logits[target])
    plain = torch.stack(losses).mean()
    torch.testing.assert_close(ours, plain)
    for one, other in zip(gradients(ours, inputs[0]), gradients(plain, inputs[0]), strict=True):
        torch.testing.assert_close(one, other)


def test_items_that_the_softmax_is_not_over_get_no_gradient(inputs) -> None:
    (states, table, bias), targets = inputs
    known = torch.tensor([0, 1, 2, 5])
    targets = known[targets % 4]
    ours = softmax_loss(states, table, bias, targets, known, 4)
    logits = (states @ table.T + bias)[:, known]
    torch.testing.assert_close(ours, functional.cross_entropy(logits, torch.searchsorted(known, targets)))
    to_table, to_bias = torch.autograd.grad(ours, [table, bias])
    assert not to_table[[3, 4, 6]].any()
    assert not to_bias[[3, 4, 6]].any()


def test_the_sum_over_what_is_drawn_is_right_on_average() -> None:
    torch.manual_seed(1)
    states, table, bias = torch.randn(1, 4), torch.randn(50, 4), torch.zeros(50)
    target = torch.tensor([3])
    exact = softmax_loss(states, table, bias, target, torch.arange(50), 50).exp() - 1  # others' sum over the target's
    drawn = torch.stack(
        [softmax_loss(states, table, bias, target, torch.randperm(50)[:10], 50).exp() - 1 for _ in range(4000)]
    )
    error = drawn.std() / len(drawn) ** 0.5
    assert abs(drawn.mean() - exact) < 4 * error
