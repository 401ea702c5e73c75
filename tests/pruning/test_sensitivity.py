"""pruning_sensitivity: one module at a time, and the model as it was."""

import json
import math

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from hf_shrink.pruning import sensitivity
from hf_shrink.pruning.calibration import mean_loss
from hf_shrink.pruning.one_shot import prune
from hf_shrink.pruning.sensitivity import SensitivityTable, pruning_sensitivity
from hf_shrink.pruning.targets import find_targets
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.pruning.test_calibration import LENGTHS, sample, seq2seq_labels
from tests.pruning.training import rows

IGNORE = ["re:.*classifier.*"]
READ = {"processing_class": tiny_tokenizer()}
TABLE = SensitivityTable(
    method="magnitude",
    structure="unstructured",
    sparsities=(0.3, 0.9),
    modules=("first", "second", "third"),
    rises=((0.01, 0.5), (-0.02, 0.1), (0.0, math.nan)),
    dense_loss=1.25,
    dataset="rows",
    rows=1200,
)


def model_of(layers=2):
    return tiny_bert_classifier(num_hidden_layers=layers)


@pytest.mark.parametrize(
    ("method", "structure", "sparsity"),
    [
        ("magnitude", "unstructured", 0.5),
        ("wanda", "unstructured", 0.5),
        ("taylor", "unstructured", 0.5),
        ("wanda", "2:4", 0.5),
        ("sparsegpt", "unstructured", 0.5),
        ("magnitude", "neurons", 0.5),
    ],
)
def test_a_rise_is_that_of_the_module_pruned_alone(method, structure, sparsity):
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = pruning_sensitivity(model, rows(), method=method, structure=structure, sparsities=[0.25, sparsity], **READ)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    data = read_rows(model, model, rows(), RowOptions(**READ), labelled=True)
    assert table.dense_loss == mean_loss(model, data)
    chosen = "bert.encoder.layer.1.output.dense"
    alone = {"neurons": ["re:.*layer.1.intermediate", chosen]}.get(structure, [chosen])
    options = {"calibration_dataset": rows(), "calibration_size": None, "targets": alone, **READ}
    pruned = prune(model, method=method, structure=structure, sparsity=sparsity, **options)
    expected = mean_loss(pruned, data) - table.dense_loss
    assert expected != 0
    assert table.rises[table.modules.index(chosen)][1] == pytest.approx(expected, abs=1e-5)
    if structure != "neurons":
        assert table.modules == tuple(find_targets(model, ["Linear"], IGNORE))


def test_weights_are_put_back_after_an_error(monkeypatch):
    model = model_of()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = iter([1.0, 2.0, 3.0])

    def fails_in_the_end(*_):
        changed = sum(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        seen.append(changed)
        return next(losses)

    for method in ("magnitude", "sparsegpt"):
        losses, seen = iter([1.0, 2.0, 3.0]), []
        monkeypatch.setattr(sensitivity, "mean_loss", fails_in_the_end)
        with pytest.raises(StopIteration):
            pruning_sensitivity(model, rows(), method=method, **READ)
        assert seen == [0, 1, 1, 1]
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert model.training


def test_fragile_modules_are_named_as_ignore_takes_them():
    model = model_of()
    table = pruning_sensitivity(model, rows(), sparsities=[0.9], **READ)
    worst = max(row[0] for row in table.rises)
    [name] = table.fragile(0.9, sorted(row[0] for row in table.rises)[-2])
    assert table.rises[table.modules.index(name)][0] == worst
    kept = prune(model, sparsity=0.9, ignore=[*IGNORE, name])
    assert torch.equal(kept.get_submodule(name).weight, model.get_submodule(name).weight)
    assert table.fragile(0.9, math.inf) == []
    assert set(table.fragile(0.9, -math.inf)) == set(table.modules)


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("structure", ["neurons", "heads"])
def test_a_block_is_left_out_by_the_name_that_stands_for_it(family, structure):
    # T5's heads are one set over all layers, which no module is named after.
    model = tiny_model(family)
    data = sample(model, labels=seq2seq_labels(LENGTHS)) if family == "t5" else sample(model)
    table = pruning_sensitivity(model, data, structure=structure, sparsities=[0.5], **READ)
    for name in table.modules:
        others = [other for other in table.modules if other != name]
        dense = model.get_submodule(name).weight
        if others:
            pruned = prune(model, structure=structure, sparsity=0.5, ignore=[*IGNORE, name])
            assert torch.equal(pruned.get_submodule(name).weight, dense)
        else:
            with pytest.raises(ShrinkError):
                prune(model, structure=structure, sparsity=0.5, ignore=[*IGNORE, name])


def test_fragile_by_hand():
    assert TABLE.fragile(0.9, 0.2) == ["third", "first"]
    assert TABLE.fragile(0.3, 0.0) == ["first"]
    with pytest.raises(ShrinkError, match="`sparsity` must be one of \\[0.3, 0.9\\]"):
        TABLE.fragile(0.5, 0.1)


def test_the_table_as_words_and_values():
    words = TABLE.to_markdown()
    assert "| Module | 30 % | 90 % |" in words
    assert "| `second` | -0.02 | +0.1 |" in words
    assert "1,200 rows of rows (dense: 1.25)" in words
    assert json.loads(json.dumps(TABLE.to_dict()))["rises"][0] == [0.01, 0.5]


def test_the_picture_shows_a_loss_that_is_no_number(tmp_path):
    from matplotlib import image

    path = TABLE.plot(tmp_path / "map.png")
    pixels = image.imread(path)
    assert pixels.shape[0] > 100
    assert len({tuple(pixel) for pixel in pixels[::7, ::7, :3].reshape(-1, 3).tolist()}) > 20


REFUSED = [
    ({"sparsities": []}, "`sparsities` must hold at least one"),
    ({"sparsities": [1.0]}, "`sparsity` must be in"),
    ({"structure": "2:4"}, "at most 0.5"),
    ({"method": "movement"}, "PruningCallback"),
    ({"method": "sparsegpt", "structure": "neurons"}, "must not be 'sparsegpt'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_done_is_refused(options, message):
    with pytest.raises(ShrinkError, match=message):
        pruning_sensitivity(model_of(), rows(), **{**READ, **options})


def test_labels_are_needed():
    with pytest.raises(ShrinkError, match="`label_column` must be given, because none"):
        pruning_sensitivity(model_of(), rows().remove_columns("labels"), **READ)
