"""prune(): the exact share, on a copy, in a plain model."""

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from hf_shrink.pruning.calibration import input_products, mean_loss
from hf_shrink.pruning.criteria.sparsegpt import eliminate
from hf_shrink.pruning.one_shot import prune
from hf_shrink.pruning.targets import find_targets
from tests.architectures.models import answer, tiny_inputs, tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.pruning.test_calibration import LENGTHS, sample, seq2seq_labels
from tests.pruning.training import rows, train

IGNORE = ["re:.*classifier.*"]
FAMILIES = ["bert", "gpt2", "llama", "t5", "vit"]
CALIBRATED = {"calibration_dataset": rows(), "processing_class": tiny_tokenizer()}


def zeros(model):
    """How many of the targets' weights are zero, and how many there are."""
    weights = [module.weight for module in find_targets(model, ["Linear"], IGNORE).values()]
    return sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)


def calibration(model):
    """Rows that a tiny model of a family reads, and how."""
    kind = model.config.model_type
    if kind == "vit":
        return {"calibration_dataset": sample(model, labels=[0, 1, 0, 1, 0])}
    labels = {"labels": seq2seq_labels(LENGTHS)} if kind == "t5" else {}
    return {"calibration_dataset": sample(model, **labels), "processing_class": tiny_tokenizer()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny BERT that has learnt its rows, and their loss as a function of a model."""
    folder = tmp_path_factory.mktemp("trained")
    model = train(folder, max_steps=100, learning_rate=3e-3, save_strategy="no").model
    data = read_rows(model, model, rows(), RowOptions(processing_class=tiny_tokenizer()), labelled=True)
    return model, lambda pruned: mean_loss(pruned, data)


@pytest.mark.parametrize("method", ["magnitude", "random", "wanda", "taylor", "fisher", "sparsegpt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_share_is_exact_and_the_given_model_untouched(family, method, tmp_path):
    model = tiny_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = prune(model, method=method, sparsity=0.37, **calibration(model))
    found, total = zeros(pruned)
    assert found == round(0.37 * total)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert type(pruned) is type(model)
    assert pruned.state_dict().keys() == before.keys()
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]

    inputs = tiny_inputs(model)
    expected = answer(pruned, **inputs)
    assert not torch.equal(expected, answer(model, **inputs))
    pruned.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(answer(loaded, **inputs), expected)
    assert zeros(loaded) == (found, total)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_pattern_sets_its_own_share(family, method):
    model = tiny_model(family)
    pruned = prune(model, method=method, structure="2:4", **calibration(model))
    for module in find_targets(pruned, ["Linear"], IGNORE).values():
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        assert ((weight.unflatten(1, (-1, 4)) != 0).sum(-1) == 2).all()


@pytest.mark.parametrize("scope", ["global", "local", "rows"])
def test_scopes(scope):
    model = tiny_model("gpt2")
    pruned = prune(model, sparsity=0.5, scope=scope)
    assert zeros(pruned)[0] == round(0.5 * zeros(pruned)[1])
    modules = find_targets(pruned, ["Linear"], IGNORE).values()
    shares = torch.tensor([(module.weight == 0).double().mean() for module in modules])
    by_output = torch.cat([(module.weight == 0).double().mean(0) for module in modules])  # Conv1D
    assert (shares.max() - shares.min() < 2e-3) == (scope != "global")
    assert (by_output.max() - by_output.min() < 0.05) == (scope == "rows")


def test_wanda_compares_within_outputs_and_of_whole_neurons_all():
    model = tiny_bert_classifier()
    pruned = prune(model, method="wanda", sparsity=0.5, **CALIBRATED)
    for module in find_targets(pruned, ["Linear"], IGNORE).values():
        assert ((module.weight == 0).sum(1) == module.in_features // 2).all()
    structured = prune(model, method="wanda", structure="neurons", sparsity=0.5, **CALIBRATED)
    gone = [(layer.intermediate.dense.weight == 0).all(1).sum().item() for layer in structured.bert.encoder.layer]
    assert sum(gone) == 4 * 64 // 2


def test_structures_are_applied_one_after_the_other():
    model = tiny_model("llama")
    options = {"method": "wanda", "sparsity": 0.5, **calibration(model)}
    both = prune(model, structure=["neurons", "heads"], **options)
    after = prune(prune(model, structure="neurons", **options), structure="heads", **options)
    assert all(torch.equal(a, b) for a, b in zip(both.state_dict().values(), after.state_dict().values(), strict=True))
    layers = both.model.layers
    assert sum(int((layer.mlp.down_proj.weight == 0).all(0).sum()) for layer in layers) == 4 * 40 // 2
    assert sum(int((layer.self_attn.k_proj.weight == 0).all(1).sum()) for layer in layers) == 4 * 2 * 10 // 2


def test_what_is_zero_already_counts():
    # A lot, or gradients of zero, would take living weights in its place and prune more than was asked for.
    model = tiny_bert_classifier()
    half = prune(model, sparsity=0.5)
    for method in ("random", "taylor", "wanda", "sparsegpt"):
        pruned = prune(
            half, method=method, sparsity=0.6, scope=None if method == "sparsegpt" else "global", **CALIBRATED
        )
        assert zeros(pruned)[0] >= round(0.6 * zeros(pruned)[1])
        if method != "sparsegpt":  # block by block
            assert zeros(pruned)[0] == round(0.6 * zeros(pruned)[1])
        for name, module in find_targets(half, ["Linear"], IGNORE).items():
            assert (pruned.get_submodule(name).weight[module.weight == 0] == 0).all()


def test_living_weights_do_not_tie_with_zeros():
    half = prune(tiny_bert_classifier(), sparsity=0.5)
    pruned = prune(half, method=lambda weight, signal: torch.zeros_like(weight), sparsity=0.5)
    assert all(torch.equal(one, other) for one, other in zip(pruned.parameters(), half.parameters(), strict=True))


def test_a_function_is_its_own_method():
    model = tiny_bert_classifier()
    largest_first = prune(model, method=lambda weight, signal: -weight.abs(), sparsity=0.2)
    survivors = torch.cat([m.weight.flatten() for m in find_targets(largest_first, ["Linear"], IGNORE).values()])
    dense = torch.cat([m.weight.flatten() for m in find_targets(model, ["Linear"], IGNORE).values()])
    assert survivors.abs().max() <= dense.abs().quantile(0.81)


def test_a_folder_serves_and_a_mode_is_kept(tmp_path):
    model = tiny_bert_classifier()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model.train()
    model.bert.eval()
    from_folder = prune(str(tmp_path), method="wanda", sparsity=0.5, calibration_dataset=rows())
    from_instance = prune(model, method="wanda", sparsity=0.5, **CALIBRATED)
    assert [m.training for m in from_instance.modules()] == [m.training for m in model.modules()]
    assert not from_folder.training
    for one, other in zip(from_folder.parameters(), from_instance.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_same_seed_prunes_the_same():
    model = tiny_bert_classifier()
    options = {"method": "taylor", "sparsity": 0.5, "calibration_size": 6, **CALIBRATED}
    first, again, other = (prune(model, seed=seed, **options).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_no_module_loses_more_than_it_may():
    model = tiny_bert_classifier()
    with torch.no_grad():
        model.bert.encoder.layer[2].output.dense.weight *= 1e-3
    free = prune(model, sparsity=0.5)
    held = prune(model, sparsity=0.5, max_module_sparsity=0.6)
    shares = [(m.bert.encoder.layer[2].output.dense.weight == 0).double().mean() for m in (free, held)]
    assert shares[0] == 1
    assert shares[1] <= 0.6
    assert zeros(free) == zeros(held)


@pytest.mark.parametrize("method", ["wanda", "taylor", "fisher", "sparsegpt", "magnitude"])
def test_it_costs_less_than_pruning_by_lot(trained, method):
    model, loss = trained
    lots = [loss(prune(model, method="random", sparsity=0.3, seed=seed)) for seed in range(3)]
    assert loss(model) < 0.6  # of 1.1, a guess among three
    assert loss(prune(model, method=method, sparsity=0.3, **CALIBRATED)) < 0.7 * min(lots)


def test_sparsegpt_reads_what_the_pruned_layers_before_give():
    model = tiny_bert_classifier()
    data = read_rows(model, model, rows(), RowOptions(processing_class=tiny_tokenizer()), labelled=False, size=256)
    pruned = prune(model, method="sparsegpt", sparsity=0.5, **CALIBRATED)
    name = "bert.encoder.layer.1.attention.self.query"
    start = prune(
        model, method="sparsegpt", sparsity=0.5, ignore=[*IGNORE, "re:.*layer.[123]", "re:.*pooler"], **CALIBRATED
    )
    found = []
    for source in (start, model):
        products = input_products(source, {"": source.get_submodule(name)}, data)[""]
        found.append(eliminate(source.get_submodule(name).weight, products, count=512))
    torch.testing.assert_close(pruned.get_submodule(name).weight.detach(), found[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found[1], found[0], rtol=1e-3, atol=1e-4)


REFUSED = [
    ({"method": "movement", "sparsity": 0.5}, "PruningCallback"),
    ({"method": "wand", "sparsity": 0.5}, "Did you mean 'wanda'"),
    ({}, "`sparsity` must be given"),
    ({"structure": ["2:4", "neurons"]}, "`sparsity` must be given for structure 'neurons'"),
    ({"structure": []}, "at least one structure"),
    ({"structure": "rows", "sparsity": 0.5}, "`structure` must be one of"),
    ({"sparsity": 1.0}, "`sparsity` must be in \\[0, 1\\)"),
    ({"sparsity": float("nan")}, "`sparsity` must be in \\[0, 1\\)"),
    ({"structure": "2:4", "sparsity": 0.6}, "at most 0.5"),
    ({"method": "sparsegpt", "structure": "2:4", "sparsity": 0.3, **CALIBRATED}, "left out for 'sparsegpt'"),
    ({"method": "sparsegpt", "structure": "neurons", "sparsity": 0.5, **CALIBRATED}, "must not be 'sparsegpt' but"),
    ({"method": "sparsegpt", "scope": "global", "sparsity": 0.5, **CALIBRATED}, "must not be 'sparsegpt' but"),
    ({"method": "wanda", "sparsity": 0.5}, "`calibration_dataset` must be given for method 'wanda'"),
    ({"method": "taylor", "sparsity": 0.5}, "`calibration_dataset` must be given for method 'taylor'"),
    ({"sparsity": 0.5, "scope": "layer"}, "`scope` must be one of"),
    ({"sparsity": 0.5, "scope": "rows", "structure": "neurons"}, "whose units span outputs"),
    ({"sparsity": 0.5, "max_module_sparsity": 0.4}, "must be in \\[0.5, 1\\]"),
    ({"method": "wanda", "sparsity": 0.5, **CALIBRATED, "calibration_size": 0}, "`calibration_size` must be at least"),
    (
        {"method": "fisher", "sparsity": 0.5, **CALIBRATED, "calibration_dataset": rows().remove_columns("labels")},
        "`label_column` must be given, because none",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_done_is_refused(options, message):
    with pytest.raises(ShrinkError, match=message):
        prune(tiny_bert_classifier(), **options)


def test_a_structure_that_does_not_fit_is_refused_before_rows_are_read():
    class NoRows:
        pass

    with pytest.raises(ShrinkError, match="3:7"):
        prune(tiny_bert_classifier(), method="wanda", structure="3:7", calibration_dataset=NoRows())


def test_inputs_that_are_not_finite_are_refused():
    model = tiny_bert_classifier()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[6] = float("inf")
    for method in ("wanda", "sparsegpt"):
        with pytest.raises(ShrinkError, match="NaN|finite"):
            prune(model, method=method, sparsity=0.5, **CALIBRATED)


def test_an_adapters_base_is_pruned_and_the_adapter_left():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_bert_classifier(), LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    pruned = prune(model, method="wanda", sparsity=0.5, **CALIBRATED)
    assert zeros(pruned)[0] == round(0.5 * zeros(pruned)[1])
    for (name, one), other in zip(pruned.named_parameters(), model.parameters(), strict=True):
        if "lora_" in name:
            assert torch.equal(one, other)
    assert type(pruned) is type(model)


def test_a_plain_module_needs_no_transformers():
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    assert zeros(prune(model, sparsity=0.25)) == (20, 80)
    with pytest.raises(ShrinkError, match="`task` must be given"):
        prune(model, method="wanda", sparsity=0.25, calibration_dataset=Dataset.from_dict({"x": [1]}))
