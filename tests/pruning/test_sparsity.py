import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import count_parameters
from hf_shrink.pruning.sparsity import ZeroCount, sparsity_report
from hf_shrink.pruning.targets import as_rows, find_targets
from tests.architectures.models import FAMILIES, tiny_model
from tests.models import tiny_bert_classifier

UNSTRUCTURED = "change neither its bytes nor the time that the model takes, unless a sparse format"


def targets_of(model):
    return find_targets(model, ("Linear",), ("re:.*classifier.*",))


@torch.no_grad()
def keep_n_of_m(model, n, m):
    """Keep the first n of every m inputs, in one order for all."""
    for module in targets_of(model).values():
        rows = as_rows(module, module.weight)
        rows.unflatten(1, (-1, m))[..., n:] = 0
    return model


def share(report):
    return report.prunable.share, report.embeddings.share, report.total.share


def test_counts_by_hand():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.ones(5, 4).tril())
        model[1].weight.copy_(torch.tensor([[0.0, -0.0, 1, 2], [3, 4, 5, float("nan")], [6, 7, 8, 9]]))
        model[1].bias.fill_(0)
        model[2].weight.fill_(1)
    report = sparsity_report(model)
    assert report.prunable == ZeroCount(2, 18)  # negative zero is zero, NaN is not
    assert report.embeddings == ZeroCount(6, 20)
    assert report.total == ZeroCount(2 + 6 + 3, 18 + 20 + 3)
    assert [(m.name, m.kind, m.count) for m in report.modules] == [
        ("1", "prunable", ZeroCount(2, 12)),
        ("2", "prunable", ZeroCount(0, 6)),
        ("0", "embedding", ZeroCount(6, 20)),
    ]
    assert report.pattern is None
    assert report.dead_units is None
    assert "What compact() could cut is not known" in report.to_markdown()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    model = tiny_model(family)
    with torch.no_grad():
        for module in targets_of(model).values():
            module.weight[torch.rand(module.weight.shape) < 0.7] = 0
    report = sparsity_report(model)
    assert report.total.total == count_parameters(model)
    assert {m.name for m in report.modules if m.kind == "prunable"} == set(targets_of(model))
    assert report.prunable.share == pytest.approx(0.7, abs=0.03)
    assert report.total.share < report.prunable.share
    parts = [(m.kind, m.count) for m in report.modules]
    for kind, whole in (("prunable", report.prunable), ("embedding", report.embeddings)):
        assert sum(count.zeros for each, count in parts if each == kind) == whole.zeros
        assert sum(count.total for each, count in parts if each == kind) == whole.total


def test_tied_weights_count_once():
    model = tiny_model("bert")
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.fill_(0)
    report = sparsity_report(model)
    assert report.embeddings == ZeroCount(60 * 32, (60 + 48 + 2) * 32)
    assert report.prunable.zeros == 0
    assert report.total.zeros == 60 * 32


def test_the_ignored_are_not_prunable():
    model = tiny_bert_classifier()
    with torch.no_grad():
        model.classifier.weight.fill_(0)
    assert sparsity_report(model).prunable.zeros == 0
    assert sparsity_report(model, targets=["classifier"], ignore=()).prunable == ZeroCount(96, 96)
    assert sparsity_report(model, targets=["re:.*attention"]).prunable.total == 4 * 4 * 32 * 32


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize(("n", "m", "pattern"), [(2, 4, "2:4"), (4, 8, "4:8"), (3, 8, "4:8"), (5, 8, None)])
def test_patterns(family, n, m, pattern):
    model = keep_n_of_m(tiny_model(family), n, m)
    report = sparsity_report(model)
    assert report.pattern == pattern
    assert {module.pattern for module in report.modules if module.kind == "prunable"} == {pattern}
    assert ("consecutive inputs are not zero" in report.to_markdown()) == (pattern is not None)
    if pattern:
        weight = next(iter(targets_of(model).values())).weight
        with torch.no_grad():
            weight[:8, :8] = 1  # one block of one matrix that does not keep it
        assert sparsity_report(model).pattern is None


def test_the_weakest_of_two_patterns_holds_for_all():
    model = keep_n_of_m(tiny_model("bert"), 2, 4)
    first = next(iter(targets_of(model).values()))
    with torch.no_grad():
        first.weight[0, :4] = 1
        first.weight[0, 4:8] = 0
    report = sparsity_report(model)
    assert report.pattern == "4:8"
    assert [m.pattern for m in report.modules if m.kind == "prunable"][:2] == ["4:8", "2:4"]


@torch.no_grad()
def kill(model, live):
    for layer, count in zip(model.bert.encoder.layer, live, strict=True):
        layer.output.dense.weight[:, count:] = 0
    return model


def test_it_says_what_compact_could_cut():
    model = kill(tiny_model("bert"), (22, 9, 17, 13))
    report = sparsity_report(model)
    (units,) = report.dead_units
    assert (units.field, units.dead, units.total) == ("intermediate_size", 160 - 61, 160)
    assert (units.width, units.smallest) == (40, 22)
    assert "compact() could cut `intermediate_size` from 40 to 22" in report.to_markdown()


def test_it_says_that_single_zeros_stay_where_they_are():
    model = tiny_model("llama")
    with torch.no_grad():
        for module in targets_of(model).values():
            module.weight[torch.rand(module.weight.shape) < 0.5] = 0
    text = sparsity_report(model).to_markdown()
    assert UNSTRUCTURED in text
    assert "compact() could cut nothing: no FFN unit or head is dead as a whole" in text
    assert UNSTRUCTURED in sparsity_report(tiny_model("llama")).to_markdown()


def test_heads_are_told_in_the_numbers_of_the_config():
    model = tiny_model("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:, :20] = 0
    _, heads = sparsity_report(model).dead_units
    assert (heads.field, heads.width, heads.smallest) == ("num_attention_heads", 4, 2)
    assert (heads.dead, heads.total, heads.unit) == (4, 8, "groups of heads")


def test_the_three_shares_stand_together():
    text = sparsity_report(kill(tiny_model("bert"), (22, 9, 17, 13))).to_markdown()
    lines = text.splitlines()
    assert lines[0] == "| Sparsity | Zeros | Weights | Share |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| Prunable weights", "| Embeddings", "| All parameters"]
    assert "| Embeddings | 32 | 3,520 | 0.9 % |" in lines  # the padding row
    assert "| `bert.encoder.layer.0.output.dense` | 576 | 1,280 | 45.0 % | prunable | – |" in lines


def test_json():
    report = sparsity_report(kill(tiny_model("bert"), (22, 9, 17, 13)))
    values = json.loads(json.dumps(report.to_dict()))
    assert values["prunable"] == {
        "zeros": report.prunable.zeros,
        "total": report.prunable.total,
        "share": report.prunable.share,
    }
    assert values["dead_units"][0]["smallest"] == 22
    assert len(values["modules"]) == len(report.modules)
    assert any(UNSTRUCTURED in note for note in values["notes"])


def test_a_folder_serves(tmp_path):
    model = kill(tiny_model("bert"), (22, 9, 17, 13))
    model.save_pretrained(tmp_path / "pruned")
    report = sparsity_report(tmp_path / "pruned")
    assert share(report) == share(sparsity_report(model))
    assert report.model == "pruned"


def test_under_an_adapter_the_base_is_counted():
    model = kill(tiny_model("bert"), (22, 9, 17, 13))
    alone = sparsity_report(model)
    adapted = sparsity_report(get_peft_model(model, LoraConfig(target_modules=["query", "output.dense"])))
    assert adapted.prunable == alone.prunable
    assert adapted.total.total > alone.total.total
    assert adapted.dead_units is None  # the adapter may revive them


def test_what_is_refused():
    with pytest.raises(ShrinkError, match="`targets` must match"):
        sparsity_report(tiny_model("bert"), targets=["Conv2d"])
    with pytest.raises(ShrinkError, match="meta device"):
        sparsity_report(tiny_model("bert").to("meta"))
    with pytest.raises(ShrinkError, match="`model` must be"):
        sparsity_report(3)


def test_nothing_has_no_share():
    assert ZeroCount(0, 0).share == 0
