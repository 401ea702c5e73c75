"""layer_importance: what it takes, and what it refuses."""

import pytest
from torch import nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import layer_importance
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.pruning.calibrating import sample
from tests.pruning.training import rows

READ = {"processing_class": tiny_tokenizer()}


def test_a_function_is_its_own_method():
    seen = []

    def depth(model, stacks, rows):
        seen.extend(rows.rows["input_ids"])
        return {name: [float(i) for i in range(len(stack))] for name, stack in stacks.items()}

    found = layer_importance(tiny_model("t5"), rows(), method=depth, calibration_size=3, task="masked_lm", **READ)
    assert found == {"encoder": [0.0, 1.0, 2.0, 3.0], "decoder": [0.0, 1.0, 2.0]}
    assert len(seen) == 3


def test_a_model_may_be_a_folder_with_its_tokenizer(tmp_path):
    model = tiny_bert_classifier()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    for method in ("block_influence", "loss"):
        found = layer_importance(tmp_path, rows(), method=method)
        assert found["encoder"] == pytest.approx(layer_importance(model, rows(), method=method, **READ)["encoder"])


REFUSED = [
    ({"method": "influence"}, "`method` must be one of \\['block_influence', 'loss'\\], got 'influence'"),
    ({"method": "loss"}, "`label_column` must be given"),
    ({"calibration_size": 0}, "`calibration_size` must be"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_done_is_refused(options, message):
    with pytest.raises(ShrinkError, match=message):
        layer_importance(tiny_bert_classifier(), sample(tiny_bert_classifier()), **READ, **options)


def test_only_transformers_models_have_layers():
    with pytest.raises(ShrinkError, match="`model` must be a transformers model, got Linear"):
        layer_importance(nn.Linear(2, 2), rows(), **READ)
