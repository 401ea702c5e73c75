"""What the loss says of whole units, against row by row in double precision."""

import copy

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.calibration import loss_of
from hf_shrink.pruning.dead_units import find_blocks
from hf_shrink.pruning.gates import read_gates
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier
from tests.pruning.calibrating import LENGTHS, read, sample
from tests.pruning.training import rows

TOKEN_LABELS = [[-100, *[i % 2 for i in range(n - 2)], -100] for n in LENGTHS]  # as many as a row has tokens, or less
DECODED = [[7, 9, 8], [6, 7, 11, 12, 5, 9, 10], [5, 6], [8, 9, 10, 11], [14, 12, 13, 9, 6, 7]]
CASES = {
    "bert": ("SequenceClassification", {"labels": [0, 1, 0, 1, 1]}),
    "roberta": ("TokenClassification", {"labels": TOKEN_LABELS}),
    "llama": (None, {}),
    "gpt2": (None, {}),
    "gated-t5": (None, {"labels": DECODED}),  # whose activation has no kink that rounding steps over
    "vit": (None, {"labels": [0, 1, 0, 1, 1]}),
}


def square(factors, gradients):
    assert (factors == 1).all()
    return gradients.square()


def blocks_of(model):
    return [block for kind in ("ffn", "heads") for _, block in find_blocks(model, kind)]


def by_hand(model, data):
    """Scores and products of rows that come alone, without padding."""
    model, found = copy.deepcopy(model).double().eval(), {}
    blocks = blocks_of(model)
    for block in blocks:
        size = len(block.live) * block.pieces[-1].width
        found[block.name] = [torch.zeros(len(block.live)).double(), torch.zeros(size, size).double()]
    inputs, outputs = {}, {}

    def keep(name, module, args, output):
        inputs[name], outputs[name] = args[0], output
        args[0].retain_grad(), output.retain_grad()

    for block in blocks:
        module = model.get_submodule(block.name)
        module.register_forward_hook(lambda *given, name=block.name: keep(name, *given))
    count = 0
    for batch in data.batches():
        count += 1
        if "labels" in batch and not (batch["labels"] != -100).any():
            continue
        loss_of(model, batch).backward()
        for block in blocks:
            x, of_x, of_y = (t[0] for t in (inputs[block.name], inputs[block.name].grad, outputs[block.name].grad))
            gradient = (x * of_x).sum(0).reshape(len(block.live), -1).sum(1)
            found[block.name][0] += gradient.detach().square()
            weights = of_y.square().sum(-1) / of_y.square().sum()
            found[block.name][1] += (x.T @ (weights[:, None] * x)).detach()
    return {name: (scores / count, products) for name, (scores, products) in found.items()}


@pytest.mark.parametrize("family", CASES)
def test_gradients_and_products_by_hand_whatever_the_batches(family):
    head, labels = CASES[family]
    model, tokenizer = tiny_model(family, head), family != "vit"
    options = {"labelled": True, "tokenizer": tokenizer}
    expected = by_hand(model, read(model, sample(model, **labels), batch_size=1, **options))
    assert len(expected) == {"gated-t5": 7 + 4 + 2 * 3}.get(family, 8)
    for size in (1, 4):
        data = read(model, sample(model, **labels), batch_size=size, **options)
        gates = read_gates(model, blocks_of(model), data, square)
        assert gates.scores.keys() == gates.products.keys() == expected.keys()
        for name, (scores, products) in expected.items():
            assert scores.min() > 0
            torch.testing.assert_close(gates.scores[name].double(), scores, rtol=2e-3, atol=1e-4 * scores.max().item())
            torch.testing.assert_close(
                gates.products[name].double(), products, rtol=2e-3, atol=1e-4 * products.max().item()
            )


def test_units_under_grouped_queries_are_whole_groups():
    model = tiny_model("llama")
    blocks = [block for _, block in find_blocks(model, "heads")]
    gates = read_gates(model, blocks, read(model, sample(model), labelled=True), square)
    assert {tuple(scores.shape) for scores in gates.scores.values()} == {(2,)}
    assert {tuple(products.shape) for products in gates.products.values()} == {(40, 40)}


def test_rows_without_a_label_count_for_nothing_and_are_counted():
    model = tiny_model("bert", "TokenClassification")
    bare = [
        [-100] * n if i in (1, 2) else labels for i, (n, labels) in enumerate(zip(LENGTHS, TOKEN_LABELS, strict=True))
    ]
    dataset = sample(model, labels=bare)
    expected = by_hand(model, read(model, dataset, labelled=True, batch_size=1))
    for size in (1, 2, 5):
        gates = read_gates(model, blocks_of(model), read(model, dataset, labelled=True, batch_size=size), square)
        for name, (scores, products) in expected.items():
            torch.testing.assert_close(gates.scores[name].double(), scores, rtol=2e-3, atol=1e-4 * scores.max().item())
            torch.testing.assert_close(
                gates.products[name].double(), products, rtol=2e-3, atol=1e-4 * products.max().item()
            )


def test_the_model_comes_back_as_it_was():
    model = tiny_bert_classifier().train()
    model.bert.encoder.layer[1].eval()
    model.bert.embeddings.requires_grad_(False)
    weights, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    trains = [parameter.requires_grad for parameter in model.parameters()]
    data = read(model, rows(1), labelled=True)
    with torch.no_grad():
        gates = read_gates(model, blocks_of(model), data, square)
    assert not any(tensor.requires_grad for tensor in (*gates.scores.values(), *gates.products.values()))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trains
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_hooks_are_gone_after_an_error():
    model = tiny_bert_classifier()
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    with pytest.raises(ShrinkError, match="finite loss"):
        read_gates(model, blocks_of(model), read(model, rows(1), labelled=True), square)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_block_that_has_no_part_in_the_loss_is_refused():
    # Its units would seem worthless, and all go first.
    model = tiny_bert_classifier()
    model.bert.encoder.layer[2].output.forward = lambda hidden, residual: residual
    with pytest.raises(ShrinkError, match="1 had no part in the model's outputs .bert.encoder.layer.2.output.dense"):
        read_gates(model, blocks_of(model), read(model, rows(1), labelled=True), square)


def test_half_precision_is_summed_in_single():
    model = tiny_bert_classifier().bfloat16()
    data = read(model, rows(1), labelled=True)
    gates = read_gates(model, blocks_of(model), data, square)
    exact = by_hand(model, read(model, rows(1), labelled=True, batch_size=1))
    for name, (scores, products) in exact.items():
        assert gates.scores[name].dtype == gates.products[name].dtype == torch.float32
        torch.testing.assert_close(gates.scores[name].double(), scores, rtol=0.3, atol=0.1 * scores.max().item())
        assert gates.products[name].trace().item() == pytest.approx(products.trace().item(), rel=0.2)
