import numpy as np
import pytest
import torch
from torch import nn

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.activation_histograms import BINS, VALUES, collect_histograms, histogram_of, largest_inputs
from tests.models import tiny_bert_classifier
from tests.quantization.texts import TEXTS, inputs


def modules_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def collect(model, batches, **options):
    modules = modules_of(model)
    ones = {name: torch.ones(module.in_features) for name, module in modules.items()}
    return collect_histograms(model, modules, batches, ones, **options)


def met(histogram):
    return {float(VALUES[i]): histogram.counts[i] for i in np.flatnonzero(histogram.counts)}


def test_a_bin_holds_what_is_within_half_a_percent_of_it():
    values = torch.tensor([[1.0, 1.0, -3.3], [1e-30, 2e6, 0.0]])
    histogram = histogram_of(values)
    assert (histogram.low, histogram.high) == (pytest.approx(-3.3), 2e6)
    assert len(histogram.counts) == BINS
    for value, bin_value in zip(sorted({*values.flatten().tolist()}), sorted(met(histogram)), strict=True):
        assert bin_value == pytest.approx(value, rel=0.004, abs=1e-38)
    assert sorted(met(histogram).values()) == [1, 1, 1, 1, 2]


def test_channels_count_what_they_are_worth():
    histogram = histogram_of(torch.tensor([[1.0, 8.0], [1.0, 2.0]]), torch.tensor([3.0, 0.5]))
    assert sorted(met(histogram).values()) == [0.5, 0.5, 6.0]


def test_sums_are_those_of_both():
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, 5.0]])
    both, whole = histogram_of(first) + histogram_of(second), histogram_of(torch.cat([first, second]))
    assert np.array_equal(both.counts, whole.counts)
    assert (both.low, both.high) == (whole.low, whole.high) == (-2.0, 5.0)


def test_a_long_tail_takes_no_more_bins():
    """ONNX Runtime's calibrator fails here: its bins have one width, and it counts with "Too many bins"."""
    values = torch.cat([torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([[1e12]])])
    histogram = histogram_of(values)
    assert histogram.high == pytest.approx(1e12)
    within = [value for value in met(histogram) if abs(value) < 4]
    assert len(within) > 200  # the others are told apart as well as without it


def test_padding_is_not_counted():
    model = tiny_bert_classifier(num_hidden_layers=2)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[0] = 50.0  # the padding's, far from all words
        model.bert.embeddings.word_embeddings.weight[0, ::2] = -50.0
    padded = inputs(TEXTS)
    alone = [inputs([text]) for text in TEXTS]
    assert not padded["attention_mask"].all()
    one, many = collect(model, [padded]), collect(model, alone)
    largest, by_row = (largest_inputs(model, modules_of(model), batches) for batches in ([padded], alone))
    tokens = int(padded["attention_mask"].sum())
    for name in one:
        assert one[name].low == pytest.approx(many[name].low, abs=1e-4)
        assert one[name].high == pytest.approx(many[name].high, abs=1e-4)
        torch.testing.assert_close(largest[name], by_row[name], atol=1e-4, rtol=1e-4)
    width = model.config.hidden_size
    assert one["bert.encoder.layer.1.intermediate.dense"].counts.sum() == tokens * width
    assert one["classifier"].counts.sum() == len(TEXTS) * width  # which no token stands behind


def test_values_are_multiplied_before_they_are_counted():
    model = tiny_bert_classifier(num_hidden_layers=1)
    modules = {"classifier": model.classifier}
    plain = collect_histograms(model, modules, [inputs()], {"classifier": torch.ones(32)})["classifier"]
    double = collect_histograms(model, modules, [inputs()], {"classifier": torch.full((32,), 2.0)})["classifier"]
    assert (double.low, double.high) == (2 * plain.low, 2 * plain.high)


def test_the_model_is_as_before_also_after_an_error():
    model = tiny_bert_classifier(num_hidden_layers=1)
    model.train()
    with torch.no_grad():
        model.bert.pooler.dense.bias[0] = float("nan")
    with pytest.raises(ShrinkError, match="`calibration_dataset` must give finite values .* 'classifier' .* NaN"):
        largest_inputs(model, modules_of(model), [inputs()])
    with pytest.raises(ValueError, match="input_ids"):
        largest_inputs(model, modules_of(model), [{}])
    assert model.training
    assert not [name for name, module in model.named_modules() if module._forward_pre_hooks]
