"""What is gathered over calibration rows: the same whatever the padding, the batches and the processes."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_shrink.architectures import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.calibration import (
    input_norms,
    input_products,
    mean_loss,
    mean_scores,
    run_order,
)
from hf_shrink.pruning.criteria.taylor import taylor
from hf_shrink.pruning.layer_scores.block_influence import block_influence
from hf_shrink.pruning.targets import LINEAR
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier
from tests.processes import leave, run_processes
from tests.pruning.calibrating import LENGTHS, read, sample
from tests.pruning.training import rows


def linears(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, LINEAR)}


def seq2seq_labels(lengths):
    return [torch.randint(5, 20, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]


CASES = [
    ("bert", "TokenClassification"),
    ("gpt2", None),
    ("llama", None),
    ("bert", "SequenceClassification"),
    ("vit", None),
]


@pytest.mark.parametrize(("family", "head"), CASES)
def test_padding_does_not_count(family, head):
    model = tiny_model(family, head)
    model.train()
    options = {"tokenizer": family != "vit"}
    padded, alone = (read(model, sample(model), batch_size=size, **options) for size in (5, 1))
    training = [module.training for module in model.modules()]
    for gather in (input_norms, input_products):
        one, other = gather(model, linears(model), padded), gather(model, linears(model), alone)
        assert one.keys() == linears(model).keys()
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-3)
    assert [module.training for module in model.modules()] == training


@pytest.mark.parametrize("lengths", [[3, 9, 2, 4, 6], [2, 5, 3, 7, 4]])  # in the first as long as the encoder's rows
def test_a_decoders_padding_is_its_own(lengths):
    model = tiny_model("t5")
    dataset = sample(model, labels=seq2seq_labels(lengths))
    padded, alone = (read(model, dataset, batch_size=size) for size in (5, 1))
    one, other = input_norms(model, linears(model), padded), input_norms(model, linears(model), alone)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("family", "shape"), [("gpt2", (32, 1)), ("llama", (32,))])
def test_norms_by_hand_in_both_layouts(family, shape):
    model = tiny_model(family)
    found = linears(model)
    name = next(iter(found))
    seen = []
    handle = found[name].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    ids = sample(model)["input_ids"][:]
    with torch.no_grad():
        for row in ids:
            model(input_ids=torch.tensor([row]))
    handle.remove()
    inputs = torch.cat([each[0] for each in seen]).double()
    norms = input_norms(model, {name: found[name]}, read(model, sample(model)))[name]
    assert norms.shape == shape
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms.flatten().double(), inputs.norm(dim=0), rtol=1e-4, atol=1e-4)
    assert (norms * found[name].weight).shape == found[name].weight.shape
    products = input_products(model, {name: found[name]}, read(model, sample(model)))[name]
    torch.testing.assert_close(products.double(), inputs.T @ inputs, rtol=1e-3, atol=1e-3)


def test_half_precision_is_summed_in_single():
    # In bfloat16 a sum stands still once it is 256 times what is added.
    model = tiny_bert_classifier().bfloat16()
    found = input_norms(model, linears(model), read(model, rows(200), batch_size=8))
    once = input_norms(model, linears(model), read(model, rows(1), batch_size=8))
    for name, norm in found.items():
        assert norm.dtype == torch.float32
        torch.testing.assert_close(norm, once[name] * 200**0.5, rtol=2e-2, atol=1e-3)


def test_gradients_are_those_of_the_batches_and_leave_no_trace():
    model = tiny_bert_classifier()
    for parameter in model.bert.parameters():
        parameter.requires_grad_(False)
    names = [name for name, p in model.named_parameters() if p.ndim == 2 and "layer.1" in name]
    parameters = {name: p for name, p in model.named_parameters() if name in names}
    data = read(model, rows(2), labelled=True, batch_size=5)
    with torch.no_grad():
        found = mean_scores(model, parameters, data, taylor)
    assert [p.requires_grad for p in model.bert.parameters()] == [False] * len(list(model.bert.parameters()))
    assert all(p.requires_grad for p in model.classifier.parameters())
    assert all(p.grad is None for p in model.parameters())

    by_hand = dict.fromkeys(names, 0.0)
    model.requires_grad_(True)
    for batch in data.batches():
        model.zero_grad()
        model(**batch).loss.backward()
        for name in names:
            by_hand[name] = by_hand[name] + (parameters[name].grad * parameters[name]).abs().detach() / 3
    for name in names:
        torch.testing.assert_close(found[name], by_hand[name])


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_the_mean_loss_is_that_of_all_labels_at_once(family):
    # A mean of the batches' means would count the labels of short rows for more.
    model = tiny_model(family, "TokenClassification" if family == "bert" else None)
    labels = {
        "bert": {"labels": [[-100, *[i % 2 for i in range(n - 1)]] for n in LENGTHS]},
        "gpt2": {},
        "t5": {"labels": seq2seq_labels([3, 9, 2, 4, 6])},
    }
    data = sample(model, **labels[family])
    whole, parts = (mean_loss(model, read(model, data, labelled=True, batch_size=n)) for n in (5, 2))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_a_module_that_never_runs_is_refused():
    # All of its weights would seem worthless, and go first.
    model = tiny_bert_classifier()
    model.spare = nn.Linear(4, 4)
    with pytest.raises(ShrinkError, match="1 had no part in the model's outputs \\(spare\\)"):
        input_norms(model, linears(model), read(model, rows()))
    with pytest.raises(ShrinkError, match="spare"):
        mean_scores(model, {"spare.weight": model.spare.weight}, read(model, rows(), labelled=True), taylor)


def test_a_loss_that_is_not_finite_is_refused():
    model = tiny_bert_classifier()
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    with pytest.raises(ShrinkError, match="finite loss"):
        mean_scores(model, dict(model.named_parameters()), read(model, rows(), labelled=True), taylor)


def test_hooks_are_gone_after_an_error():
    model = tiny_bert_classifier()
    model.train()

    def broken(features):
        raise RuntimeError("no batch today")

    with pytest.raises(RuntimeError, match="no batch today"):
        input_norms(model, linears(model), read(model, rows(), data_collator=broken))
    assert model.training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_modules_come_in_the_order_in_which_they_run():
    model = tiny_model("t5")
    data = read(model, sample(model, labels=seq2seq_labels(LENGTHS)))
    order = run_order(model, dict(reversed(linears(model).items())), data)
    stems = [name.split(".")[0] for name in order]
    assert stems == sorted(stems, key=["encoder", "decoder", "lm_head"].index)
    assert order[0] == "encoder.block.0.layer.0.SelfAttention.q"


def gathered():
    """Every kind of sum, over rows that two processes may share."""
    model = tiny_bert_classifier()
    data = read(model, rows(1), labelled=True, batch_size=1)
    names = {f"{name}.weight": module for name, module in linears(model).items()}
    return {
        "norms": input_norms(model, names, data),
        "scores": mean_scores(model, {name: module.weight for name, module in names.items()}, data, taylor),
        "loss": {"": torch.tensor(mean_loss(model, data))},
        "layers": {
            name: torch.tensor(found) for name, found in block_influence(model, find_layers(model), data).items()
        },
    }


@pytest.mark.slow
def test_two_processes_share_the_rows(tmp_path):
    run_processes(2, "tests.pruning.test_calibration", tmp_path)
    one, other = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    alone = gathered()
    for kind, tensors in alone.items():
        for name, value in tensors.items():
            assert torch.equal(one[kind][name], other[kind][name])
            torch.testing.assert_close(one[kind][name], value, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":  # one of the processes
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    torch.save(gathered(), Path(sys.argv[1]) / f"rank-{torch.distributed.get_rank()}.pt")
    leave()
