"""The rise of the loss without a layer: that of the model from which it is dropped."""

import math

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import drop_layers, layer_importance
from hf_shrink.pruning.calibration import mean_loss
from tests.architectures.models import tiny_model
from tests.models import tiny_tokenizer
from tests.pruning.calibrating import read, sample
from tests.pruning.test_calibration import seq2seq_labels

READ = {"method": "loss", "processing_class": tiny_tokenizer()}


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "t5"])
def test_it_is_the_rise_of_the_smaller_model(family):
    model = tiny_model(family)
    data = sample(model, **({"labels": seq2seq_labels([3, 9, 2, 4, 6])} if family == "t5" else {}))
    rows = read(model, data, labelled=True)
    whole = mean_loss(model, rows)
    for stack, rises in layer_importance(model, data, **READ).items():
        for index, rise in enumerate(rises):
            dropped = mean_loss(drop_layers(model, **{f"{stack}_layers": [index]}), rows)
            assert rise == pytest.approx(dropped - whole, abs=1e-5)


def test_a_loss_that_is_not_finite():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(ShrinkError, match="finite loss on the calibration rows, got nan"):
        layer_importance(model, sample(model), **READ)
