"""merge_adapters: PEFT's merge, but for the zeros."""

import logging

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.adapters import merge_adapters
from hf_shrink.pruning.one_shot import prune
from tests.architectures.models import answer, tiny_inputs, tiny_model
from tests.models import tiny_bert_classifier

TARGETS = {"bert": ["query", "dense"], "gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "down_proj"]}


def adapted(base, targets=("query", "dense"), **options):
    """A LoRA that says something, over a base model."""
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=list(targets), **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return model


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
@pytest.mark.parametrize("family", list(TARGETS))
def test_zeros_stay_and_all_else_is_pefts_merge(family, options, caplog):
    base = prune(tiny_model(family), sparsity=0.6)
    dense = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    model = adapted(base, TARGETS[family], **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.WARNING, logger="hf_shrink"):
        merged = merge_adapters(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expected = dict(model.merge_and_unload().named_parameters())

    filled = 0
    for name, weight in merged.named_parameters():
        zeros = dense[name] == 0 if weight.ndim == 2 and any(t in name for t in TARGETS[family]) else False
        wanted = expected[name].masked_fill(torch.as_tensor(zeros), 0)
        assert torch.equal(weight, wanted)
        filled += int(((expected[name] != 0) & (weight == 0)).sum())
    assert type(merged) is type(base)
    assert list(merged.state_dict()) == list(tiny_model(family).state_dict())
    assert filled > 1000
    assert f"{filled} of " in caplog.text


def test_it_saves_and_loads_as_a_plain_model(tmp_path):
    merged = merge_adapters(adapted(prune(tiny_bert_classifier(), sparsity=0.6)))
    merged.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    inputs = tiny_inputs(merged, vocabulary=20)
    assert torch.equal(answer(loaded, **inputs), answer(merged, **inputs))
    share = (loaded.bert.encoder.layer[0].output.dense.weight == 0).double().mean()
    assert 0.2 < share < 0.99


def test_nothing_is_said_of_a_dense_base(caplog):
    model = adapted(tiny_bert_classifier())
    with caplog.at_level(logging.WARNING, logger="hf_shrink"):
        merged = merge_adapters(model)
    inputs = tiny_inputs(merged, vocabulary=20)
    torch.testing.assert_close(answer(merged, **inputs), answer(model.eval(), **inputs), rtol=1e-4, atol=1e-4)
    assert not caplog.records


def test_models_without_adapters_are_refused():
    for model in (tiny_bert_classifier(), None, "folder"):
        with pytest.raises(ShrinkError, match="`model` must be a PeftModel"):
            merge_adapters(model)
    prompt = get_peft_model(
        tiny_bert_classifier(), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2, num_attention_heads=4)
    )
    with pytest.raises(ShrinkError, match="`model` must be a PeftModel"):
        merge_adapters(prompt)


def test_an_adapter_that_is_merged_already_is_refused():
    # The zeros are filled: what was pruned cannot be told any more.
    model = adapted(prune(tiny_bert_classifier(), sparsity=0.6))
    model.merge_adapter()
    with pytest.raises(ShrinkError, match="unmerged"):
        merge_adapters(model)
