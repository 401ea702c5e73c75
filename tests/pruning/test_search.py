"""prune() with constraints: they hold for the model as stock transformers loads it, and the loss says which shape."""

import copy
import re
import sys
from pathlib import Path
from statistics import mean

import pytest
import torch
from datasets import Dataset
from transformers import DefaultDataCollator

from hf_shrink.architectures import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.macs import count_macs
from hf_shrink.evaluation.size import count_parameters
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from hf_shrink.pruning.calibration import mean_loss
from hf_shrink.pruning.costs import Cost, count_costs
from hf_shrink.pruning.dead_units import find_blocks, find_widths
from hf_shrink.pruning.one_shot import prune
from tests.architectures.models import FAMILIES, HEADS, answer, auto_class, tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.processes import leave, run_processes
from tests.pruning.calibrating import sample
from tests.pruning.training import rows, train

LENGTH = 7
DECODED = [[7, 9, 8], [6, 7, 11, 12, 5, 9, 10], [5, 6], [8, 9, 10, 11], [14, 12, 13, 9, 6, 7]]
CALIBRATED = {"calibration_dataset": rows(), "processing_class": tiny_tokenizer()}


def calibration(model):
    """Labelled rows that a tiny model of a family reads, and how."""
    kind, head = model.config.model_type, type(model).__name__
    if kind == "whisper":
        sound = torch.randn(4, 8, 40, generator=torch.Generator().manual_seed(0)).tolist()
        spoken = [[i + 3, i + 5, i + 4] for i in range(4)]
        dataset = Dataset.from_dict({"input_features": sound, "labels": spoken})
        return {"calibration_dataset": dataset, "data_collator": DefaultDataCollator(), "task": "seq2seq_lm"}
    if kind == "vit":
        return {"calibration_dataset": sample(model, labels=[0, 1, 0, 1, 0])}
    labels = {"labels": DECODED} if kind == "t5" else {}
    if head.endswith("SequenceClassification"):
        labels = {"labels": [0, 1, 0, 1, 0]}
    return {"calibration_dataset": sample(model, **labels), "processing_class": tiny_tokenizer()}


def macs(model, length=LENGTH):
    return count_macs(model, sequence_length=length)


def reload(model, family, folder):
    """What stock transformers makes of what is saved."""
    model.save_pretrained(folder)
    loaded, report = auto_class(HEADS[family][0]).from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return loaded


def settings_of(model):
    """Without what transformers notes in it with every loss."""
    return {name: value for name, value in model.config.to_dict().items() if name != "problem_type"}


def snapshot(model):
    return (
        copy.deepcopy(model.state_dict()),
        settings_of(model),
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
    )


def assert_unchanged(model, before):
    weights, config, trains, modes = before
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert settings_of(model) == config
    assert [parameter.requires_grad for parameter in model.parameters()] == trains
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def one_step(model, length=LENGTH):
    """What a unit of every feed-forward block costs together."""
    units = count_costs(model, length).units
    return sum((units[block.name] for _, block in find_blocks(model, "ffn")), Cost(0, 0, 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_of_every_family_go_just_as_far_as_they_must(family, tmp_path):
    model = tiny_model(family)
    model.train()
    before, share = snapshot(model), 0.9
    smaller = prune(
        model, structure="neurons", constraints={"macs": share}, sequence_length=LENGTH, **calibration(model)
    )
    assert_unchanged(model, before)
    assert all(module.training for module in smaller.modules())
    loaded, dense = reload(smaller, family, tmp_path), macs(model)
    assert torch.equal(answer(loaded), answer(smaller.eval()))
    assert share * dense - one_step(model).macs < macs(loaded) <= share * dense
    assert {name: len(layers) for name, layers in find_layers(loaded).items()} == {
        name: len(layers) for name, layers in find_layers(model).items()
    }


@pytest.mark.parametrize("family", ["bert", "mistral", "whisper"])
def test_every_kind_of_constraint_holds_for_what_is_loaded(family, tmp_path):
    model = tiny_model(family)
    options = calibration(model)
    smaller = prune(model, structure="neurons", constraints={"parameters": 0.9}, **options)
    dense = count_parameters(model)
    loaded = reload(smaller, family, tmp_path / "share")
    assert 0.9 * dense - one_step(model).parameters < count_parameters(loaded) <= 0.9 * dense

    count = int(0.93 * dense)
    smaller = prune(model, structure="neurons", constraints={"parameters": count}, **options)
    assert count - one_step(model).parameters < count_parameters(smaller) <= count

    megabytes = 0.93 * 4 * dense / 1e6
    smaller = prune(model, structure="neurons", constraints={"size_mb": megabytes, "macs": 0.95}, **options)
    loaded = reload(smaller, family, tmp_path / "size")
    size = (tmp_path / "size" / "model.safetensors").stat().st_size
    assert size <= 1e6 * megabytes
    length = 5  # the middle one of the calibration rows
    assert macs(loaded, length) <= 0.95 * macs(model, length)
    assert torch.equal(answer(loaded), answer(smaller))


@pytest.mark.parametrize(
    ("family", "structure"),
    [
        ("distilbert", None),
        ("mistral", None),
        ("mistral", "heads"),
        ("mistral", ["heads", "layers"]),
        ("gated-t5", "layers"),
        ("gated-t5", ["heads", "neurons"]),
    ],
    ids=str,
)
def test_only_what_is_named_goes(family, structure, tmp_path):
    model = tiny_model(family)
    named = {"layers", "heads", "neurons"}
    if structure is not None:
        named = {structure} if isinstance(structure, str) else set(structure)
    share = 0.85
    smaller = prune(
        model, structure=structure, constraints={"macs": share}, sequence_length=LENGTH, **calibration(model)
    )
    loaded = reload(smaller, family, tmp_path)
    assert macs(loaded) <= share * macs(model)
    assert torch.equal(answer(loaded), answer(smaller))
    old, new = ({w.field: w.units for w in find_widths(each)} for each in (model, loaded))
    gone = {
        "layers": any(len(layers) < len(find_layers(model)[name]) for name, layers in find_layers(loaded).items()),
        **{
            "neurons" if field in ("intermediate_size", "hidden_dim", "d_ff") else "heads": new[field] < units
            for field, units in old.items()
        },
    }
    assert {name for name, went in gone.items() if went} <= named
    assert any(gone.values())


def test_bert_keeps_its_heads_in_a_stock_model():
    model = tiny_bert_classifier()
    options = {"constraints": {"macs": 0.9}, **CALIBRATED}
    with pytest.warns(UserWarning, match="The heads of BertForSequenceClassification stay") as caught:
        smaller = prune(model, structure=["heads", "neurons"], **options)
    assert [Path(each.filename).name for each in caught if "heads of" in str(each.message)] == ["test_search.py"]
    assert smaller.config.num_attention_heads == 4
    assert smaller.config.intermediate_size < 64
    with pytest.raises(ShrinkError, match=r"can lose \(layers, neurons\), got \['heads'\]. .* uniform=False"):
        prune(model, structure="heads", **options)


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2"])
def test_uneven_blocks_meet_the_limit_once_dead_units_are_out(family):
    model = tiny_model(family)
    before, share = snapshot(model), 0.75
    pruned = prune(
        model,
        structure=["heads", "neurons"],
        constraints={"macs": share},
        uniform=False,
        sequence_length=LENGTH,
        **calibration(model),
    )
    assert_unchanged(model, before)
    assert {name: w.shape for name, w in pruned.state_dict().items()} == {
        name: w.shape for name, w in before[0].items()
    }
    left, table = macs(model), count_costs(model, LENGTH)
    blocks = [block for kind in ("ffn", "heads") for _, block in find_blocks(pruned, kind)]
    for block in blocks:
        assert block.live.any()
        left -= table.units[block.name].macs * int((~block.live).sum())
    largest = max(unit.macs for unit in table.units.values())
    assert share * macs(model) - 7 * largest < left <= share * macs(model)
    assert len({int(block.live.sum()) for block in blocks}) > 3
    for block in blocks:
        for piece in block.pieces:
            part = piece.parameter.narrow(piece.axis, piece.start, len(block.live) * piece.width)
            dead = (~block.live).repeat_interleave(piece.width).nonzero().flatten()
            assert (part.index_select(piece.axis, dead) == 0).all()


def test_layers_may_go_from_an_uneven_model():
    model = tiny_bert_classifier()
    pruned = prune(model, structure="layers", uniform=False, constraints={"macs": 0.6}, **CALIBRATED)
    assert pruned.config.num_hidden_layers == 2


def test_layers_that_do_nothing_go():
    model = tiny_model("llama")
    with torch.no_grad():
        for index in (0, 2):
            model.model.layers[index].self_attn.o_proj.weight.zero_()
            model.model.layers[index].mlp.down_proj.weight.zero_()
    share = (macs(model, 5) - 2 * count_costs(model, 5).layers["decoder"][0].macs) / macs(model, 5)
    own = model.generate(torch.arange(5, 17)[:, None], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    own_words = {"calibration_dataset": Dataset.from_dict({"input_ids": own.tolist()})}  # no layer can do harm there
    smaller = prune(model, constraints={"macs": share + 1e-6}, **{**calibration(model), **own_words})
    assert smaller.config.hf_shrink_layers == {"decoder": [1, 3]}
    assert smaller.config.intermediate_size == 40
    assert torch.allclose(answer(smaller), answer(model), atol=1e-6)


def test_a_met_constraint_changes_nothing():
    model = tiny_model("gpt2")
    same = prune(model, constraints={"macs": 1.0, "parameters": 10**9}, **calibration(model))
    assert same is not model
    assert same.config.to_dict() == model.config.to_dict()
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(
    ("constraint", "kind"), [({"macs": 0.01}, float), ({"parameters": 10}, int), ({"size_mb": 0.001}, float)], ids=str
)
def test_of_a_constraint_out_of_reach_the_nearest_is_named(constraint, kind, uniform):
    model = tiny_bert_classifier()
    options = {"structure": ["neurons", "layers"], "uniform": uniform, **CALIBRATED}
    (name, value), *_ = constraint.items()
    with pytest.raises(ShrinkError, match=f"`constraints` must be within reach .* got {name}={value}") as refused:
        prune(model, constraints=constraint, **options)
    nearest = kind(re.search(r"the least is ([\d.]+)\. Ask", str(refused.value)).group(1))
    pruned = prune(model, constraints={name: nearest}, **options)
    assert pruned.config.num_hidden_layers == 1
    (_, block), *_ = find_blocks(pruned, "ffn")
    assert int(block.live.sum()) <= 2


def test_of_several_constraints_the_one_farthest_off_is_named():
    with pytest.raises(ShrinkError, match="got parameters=0.001"):
        prune(tiny_bert_classifier(), constraints={"macs": 0.5, "parameters": 0.001}, **CALIBRATED)


def test_macs_are_counted_at_the_length_of_the_rows():
    model = tiny_model("gpt2")
    options = {"structure": "neurons", "constraints": {"macs": 0.8}, **calibration(model)}
    usual, same, long = (prune(model, sequence_length=length, **options) for length in (None, 5, 48))
    assert usual.config.n_inner == same.config.n_inner > long.config.n_inner  # attention grows with the square
    for smaller, length in ((usual, 5), (long, 48)):
        step = one_step(model, length).macs
        assert 0.8 * macs(model, length) - step < macs(smaller, length) <= 0.8 * macs(model, length)


@pytest.mark.parametrize("method", ["magnitude", "random", "taylor", "wanda", "fisher"])
def test_every_criterion_chooses_heads_that_share_relative_positions(method):
    model = tiny_model("t5")
    options = {"structure": ["heads", "neurons"], "uniform": False, "constraints": {"macs": 0.85}}
    pruned = prune(model, method=method, **options, **calibration(model))
    blocks = [block for kind in ("ffn", "heads") for _, block in find_blocks(pruned, kind)]
    assert not all(block.live.all() for block in blocks)


def test_the_same_comes_out_again():
    model = tiny_bert_classifier()
    first, again = (prune(model, constraints={"macs": 0.8}, **CALIBRATED) for _ in range(2))
    assert first.config.to_dict() == again.config.to_dict()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_criteria_choose_each_their_own_units():
    model = tiny_bert_classifier()
    options = {"structure": "neurons", "constraints": {"macs": 0.85}, "uniform": False, **CALIBRATED}

    def live(method):
        pruned = prune(model, method=method, reconstruct=False, **options)
        return torch.cat([block.live for _, block in find_blocks(pruned, "ffn")])

    methods = ("magnitude", "random", "taylor", "wanda", "fisher", lambda weight, signal: -weight.abs())
    found = [live(method) for method in methods]
    assert len({tuple(each.tolist()) for each in found}) == len(methods)
    assert (found[0] | found[-1]).all()  # the largest first and the smallest first


def test_the_seed_is_that_of_the_lot():
    model = tiny_bert_classifier()
    options = {"method": "random", "structure": "neurons", "constraints": {"macs": 0.85}, **CALIBRATED}
    first, other = (prune(model, seed=seed, calibration_size=None, **options) for seed in (0, 1))
    assert first.config.intermediate_size == other.config.intermediate_size
    assert not torch.equal(
        first.bert.encoder.layer[0].output.dense.weight, other.bert.encoder.layer[0].output.dense.weight
    )


def test_half_precision_and_folders(tmp_path):
    model = tiny_bert_classifier().bfloat16()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    options = {"structure": "neurons", "constraints": {"macs": 0.8}, "calibration_dataset": rows()}
    smaller = prune(model, processing_class=tiny_tokenizer(), **options)
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.bfloat16}
    assert smaller.config.intermediate_size < 64
    assert type(prune(str(tmp_path), **options)) is type(model)


# ---------------------------------------------------------------------- quality
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny BERT that has learnt its rows by heart, and their loss as a function of a model."""
    model = tiny_bert_classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    options = {"max_steps": 60, "learning_rate": 3e-3, "save_strategy": "no"}
    train(tmp_path_factory.mktemp("trained"), model=model, **options)
    data = read_rows(model, model, rows(), RowOptions(processing_class=tiny_tokenizer()), labelled=True)
    return model, lambda pruned: mean_loss(pruned, data)


SETTINGS = [
    {"structure": "neurons", "constraints": {"macs": 0.7}},
    {"structure": ["heads", "neurons"], "constraints": {"macs": 0.7}, "uniform": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["even", "uneven"])
def test_fisher_loses_less_than_lots_and_what_stays_makes_up_for_the_rest(trained, settings):
    model, loss = trained
    options = {**settings, **CALIBRATED}
    sliced = loss(prune(model, reconstruct=False, **options))
    lots = [loss(prune(model, method="random", seed=seed, reconstruct=False, **options)) for seed in range(4)]
    assert loss(model) < 0.05  # of 1.1, a guess among three
    assert sliced < mean(lots)
    assert loss(prune(model, **options)) < 0.5 * sliced


def test_the_shape_of_the_least_loss_is_taken(trained):
    model, loss = trained
    limit = {"macs": 0.7}
    best = loss(prune(model, constraints=limit, **CALIBRATED))
    for structure in ("layers", "neurons"):
        assert best <= loss(prune(model, structure=structure, constraints=limit, **CALIBRATED)) + 1e-6


# ---------------------------------------------------------------------- refusals
REFUSED = [
    ({"constraints": {"speed": 2}}, "`constraints` must name some of"),
    ({"constraints": {}}, "`constraints` must be a dictionary"),
    ({"sparsity": 0.5}, "`sparsity` must be left out with `constraints`"),
    ({"scope": "global"}, "`scope` must be left out with `constraints`"),
    ({"max_module_sparsity": 0.5}, "`max_module_sparsity` must be left out"),
    ({"targets": ["query"]}, "`targets` must be left out"),
    ({"ignore": ["re:.*pooler"]}, "`ignore` must be left out"),
    ({"structure": "unstructured"}, "`structure` must be some of layers, heads, neurons with constraints"),
    ({"structure": ["neurons", "2:4"]}, "`structure` must be some of layers, heads, neurons with constraints"),
    ({"structure": []}, "`structure` must be some of layers, heads, neurons with constraints"),
    ({"method": "sparsegpt"}, "`method` must not be 'sparsegpt' with constraints"),
    ({"method": "movement"}, "`method` must be one that needs no training"),
    ({"method": "fischer"}, "Did you mean 'fisher'"),
    ({"calibration_dataset": None}, "`calibration_dataset` must be given with `constraints`"),
    ({"sequence_length": 0}, "`sequence_length` must be at least 1"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_does_not_go_with_constraints_is_refused_before_anything_loads(options, message):
    settings = {"constraints": {"macs": 0.5}, "calibration_dataset": "no/such/rows", **options}
    with pytest.raises(ShrinkError, match=message):
        prune("no/such/model", **settings)


@pytest.mark.parametrize("option", [{"uniform": False}, {"sequence_length": 8}, {"reconstruct": False}], ids=str)
def test_what_only_constraints_heed_is_refused_without_them(option):
    with pytest.raises(ShrinkError, match="`constraints` must be given for"):
        prune("no/such/model", sparsity=0.5, **option)


def test_rows_without_labels_are_refused():
    with pytest.raises(ShrinkError, match="`label_column` must be given, because none"):
        prune(
            tiny_bert_classifier(),
            constraints={"macs": 0.5},
            **{**CALIBRATED, "calibration_dataset": rows().remove_columns("labels")},
        )


def test_only_plain_transformers_models_serve():
    from peft import LoraConfig, get_peft_model
    from torch import nn

    options = {"constraints": {"macs": 0.5}, **CALIBRATED}
    with pytest.raises(ShrinkError, match="`model` must be a transformers model, got Linear"):
        prune(nn.Linear(2, 2), **options)
    with pytest.raises(ShrinkError, match="`model` must be in memory"):
        prune(tiny_bert_classifier().to("meta"), **options)
    adapted = get_peft_model(tiny_bert_classifier(), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    with pytest.raises(ShrinkError, match="merge_and_unload"):
        prune(adapted, **options)


# ---------------------------------------------------------------------- processes
def pruned_together():
    """A model that is cut in each way, over rows that two processes may share."""
    model = tiny_bert_classifier()
    return {
        "even": prune(model, constraints={"macs": 0.85}, batch_size=3, **CALIBRATED),
        "uneven": prune(
            model,
            structure=["heads", "neurons"],
            constraints={"macs": 0.7},
            uniform=False,
            batch_size=3,
            **CALIBRATED,
        ),
    }


@pytest.mark.slow
def test_two_processes_give_the_same_model(tmp_path):
    run_processes(2, "tests.pruning.test_search", tmp_path)
    one, other = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    for kind, alone in pruned_together().items():
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(weight, other[kind][name]) for name, weight in one[kind].items())
        for name, weight in alone.state_dict().items():
            torch.testing.assert_close(one[kind][name], weight, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":  # one of the processes
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    states = {kind: model.state_dict() for kind, model in pruned_together().items()}
    torch.save(states, Path(sys.argv[1]) / f"rank-{torch.distributed.get_rank()}.pt")
    leave()
