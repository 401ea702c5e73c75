"""Movement pruning against the paper's own way to write it: a mask in the forward pass, straight through backwards."""

import torch
from torch import nn

from hf_shrink.pruning import PruningConfig
from tests.pruning.loop import toy, toy_rows, train_toy

STEPS, RATE = 24, 5e-2
CONFIG = PruningConfig(
    "movement", final_sparsity=0.6, start_step=2, end_step=20, pruning_frequency=3, score_learning_rate=RATE
)


class Masked(torch.autograd.Function):
    """W ⊙ mask; the gradient of the scores is as if they had been multiplied in."""

    @staticmethod
    def forward(context, weight, scores, mask):
        context.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(context, gradient):
        weight, mask = context.saved_tensors
        return gradient * mask, gradient * weight, None


def by_hand(choose_at):
    """The toy, trained with masks in its forward pass; gives masked weights, dense ones and scores."""
    first, _, last = model = toy()
    scores = [nn.Parameter(torch.zeros_like(layer.weight)) for layer in (first, last)]
    masks = [torch.ones_like(score) for score in scores]
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01),
        torch.optim.AdamW(scores, lr=RATE, weight_decay=0.0),
    ]
    inputs, targets = toy_rows()
    for step in range(1, STEPS + 1):
        rows = slice(32 * ((step - 1) % 8), 32 * ((step - 1) % 8) + 32)
        for optimizer in optimizers:
            optimizer.zero_grad()
        hidden = nn.functional.linear(inputs[rows], Masked.apply(first.weight, scores[0], masks[0]), first.bias)
        out = nn.functional.linear(torch.tanh(hidden), Masked.apply(last.weight, scores[1], masks[1]), last.bias)
        nn.functional.mse_loss(out, targets[rows]).backward()
        optimizers[0].step()
        if step <= 20:  # then masks and scores are frozen
            optimizers[1].step()
        if step in choose_at:
            every = torch.cat([score.detach().flatten() for score in scores])
            pruned = round(choose_at[step] * every.numel())
            limit = every.sort(stable=True).values[pruned - 1] if pruned else -torch.inf
            masks = [(score.detach() > limit).float() for score in scores]
    dense = [layer.weight.detach() for layer in (first, last)]
    return [weight * mask for weight, mask in zip(dense, masks, strict=True)], dense, [s.detach() for s in scores]


def test_it_is_the_papers_forward_pass():
    cubic = {step: 0.6 - 0.6 * (1 - (step - 2) / 18) ** 3 for step in (2, 5, 8, 11, 14, 17, 20)}
    model, pruner, _ = train_toy(CONFIG, STEPS)
    masked, dense, scores = by_hand(cubic)
    for number, name in enumerate(("0.weight", "2.weight")):
        torch.testing.assert_close(dict(model.named_parameters())[name].detach(), masked[number], rtol=0, atol=2e-6)
        torch.testing.assert_close(pruner.worth.dense[name], dense[number], rtol=0, atol=2e-6)
        torch.testing.assert_close(pruner.worth.scores[name].detach(), scores[number], rtol=0, atol=2e-5)


def test_a_pruned_weight_comes_back():
    # Its silent failure: at a weight that is zero the score's gradient vanishes, and what is pruned never returns.
    _, pruner, _ = train_toy(CONFIG, STEPS, stop=8)
    early = pruner.masks
    _, later, _ = train_toy(CONFIG, STEPS)
    assert sum(int((later.masks[name] & ~mask).sum()) for name, mask in early.items()) > 0


def test_weights_that_shrink_go_before_small_ones_that_grow():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 0.1]]))
    config = PruningConfig("movement", final_sparsity=0.5, schedule="one_shot", start_step=5, score_learning_rate=0.1)
    from hf_shrink.pruning.pruner import Pruner

    pruner, optimizer = Pruner(model, config, 6), torch.optim.SGD(model.parameters(), lr=0.01)
    pruner.start()
    for _ in range(6):
        optimizer.zero_grad()
        (model.weight * torch.tensor([[1.0, -1.0]])).sum().backward()  # pulls the first to zero, the second from it
        pruner.before_step()
        optimizer.step()
        pruner.after_step(optimizer, skipped=False, rate=1.0)
    assert model.weight[0, 0] == 0
    assert model.weight[0, 1] > 0.1
