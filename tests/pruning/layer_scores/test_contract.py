"""What every layer score does, the registered ones and those to come."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from hf_shrink.architectures import find_layers
from hf_shrink.pruning import LAYER_SCORES, drop_layers, layer_importance
from hf_shrink.pruning.calibration import mean_loss
from tests.architectures.models import tiny_config, tiny_model
from tests.models import tiny_tokenizer
from tests.pruning.calibrating import LENGTHS, read, sample
from tests.pruning.test_calibration import seq2seq_labels

READ = {"processing_class": tiny_tokenizer()}
CASES = ["bert", "gpt2", "llama", "gemma3_text", "vit", "t5"]


@pytest.fixture(params=list(LAYER_SCORES))
def method(request):
    return LAYER_SCORES[request.param]


def steps(rows, seed):
    """Numbers that rise by 1, 2 or 3, modulo 20: what comes next takes two tokens to tell."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(20, (rows, 1), generator=generator)
    rise = torch.randint(1, 4, (rows, 1), generator=generator)
    return 5 + (first + rise * torch.arange(16)) % 20


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    config = tiny_config("llama", num_hidden_layers=6, initializer_range=0.05)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(80):
        ids = steps(32, seed=1 + step)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model.eval(), Dataset.from_dict({"input_ids": steps(32, seed=0).tolist()})


def rows_for(model, family):
    labels = {
        "bert": {"labels": [[i % 2 for i in range(n)] for n in LENGTHS]},
        "vit": {"labels": [i % 2 for i in range(len(LENGTHS))]},
        "t5": {"labels": seq2seq_labels([3, 9, 2, 4, 6])},
    }
    return sample(model, **labels.get(family, {}))


@pytest.mark.parametrize("family", CASES)
def test_one_finite_number_a_layer_and_the_model_as_it_was(method, family):
    model = tiny_model(family, "TokenClassification" if family == "bert" else None).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    options = {"method": method.name, "processing_class": None if family == "vit" else tiny_tokenizer()}
    data = rows_for(model, family)
    found = layer_importance(model, data, **options, batch_size=5)
    assert {name: len(scores) for name, scores in found.items()} == {
        name: len(layers) for name, layers in find_layers(model).items()
    }
    for name, scores in found.items():
        assert torch.tensor(scores).isfinite().all()
        assert len(set(scores)) == len(scores)
        alone = layer_importance(model, data, **options, batch_size=1)[name]  # padding does not count
        assert scores == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_it_is_documented(method):
    assert method.paper.startswith("arXiv:")
    assert method.summary.endswith(").")
    assert isinstance(method.facts["labelled"], bool)


def test_the_layers_worth_least_are_missed_least(method, trained):
    model, data = trained
    rows, scores = (
        read(model, data, labelled=True),
        layer_importance(model, data, method=method.name, **READ)["decoder"],
    )
    ranked = sorted(range(6), key=scores.__getitem__)
    least, lot, most = (mean_loss(drop_layers(model, chosen), rows) for chosen in (ranked[:2], [0, 3], ranked[-2:]))
    assert least < 0.5 * lot
    assert least < 0.5 * most


def test_a_layer_that_adds_nothing_is_worth_nothing(method):
    model = tiny_model("llama")
    with torch.no_grad():
        for output in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
            output.weight.zero_()
    scores = layer_importance(model, sample(model), method=method.name, **READ)["decoder"]
    assert scores[2] == 0
    assert min(abs(score) for i, score in enumerate(scores) if i != 2) > 1e-3
