"""Projections caught under SDPA: the attention made of them is the eager one, in every family that says so."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTForImageClassification,
)

from hf_shrink.distillation.attention_capture import AttentionCapture, attention_layout, watching
from hf_shrink.distillation.attention_match import attention_scores, relation_heads, relation_scores
from hf_shrink.errors import ShrinkError
from tests.models import randomize

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
WIDE = {"initializer_range": 0.3}  # at the usual 0.02 attention is the same everywhere
GPT2_SIZES = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
BERT = (BertForSequenceClassification, BertConfig(vocab_size=50, **SIZES, **WIDE))
GPT2 = (GPT2LMHeadModel, GPT2Config(vocab_size=50, **GPT2_SIZES, **WIDE))
LLAMA = (LlamaForCausalLM, LlamaConfig(vocab_size=50, num_key_value_heads=2, head_dim=6, **SIZES, **WIDE))
PLAIN = {
    "bert": BERT,
    "roberta": (RobertaModel, RobertaConfig(vocab_size=50, **SIZES, **WIDE)),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(vocab_size=50, dim=32, n_layers=3, n_heads=4, hidden_dim=64, **WIDE),
    ),
    "vit": (ViTForImageClassification, ViTConfig(image_size=8, patch_size=4, **SIZES, **WIDE)),
    "gpt2": GPT2,
}
LAYERS = (0, 2, 2)


def build(model_class, config, implementation="sdpa"):
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config._attn_implementation = implementation
    model = randomize(model_class(config))
    assert model.config._attn_implementation == implementation
    return model


def inputs_of(model):
    """Two rows, the second padded by two tokens."""
    if model.config.model_type == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    ids = torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def capture_of(model, layers=LAYERS):
    return AttentionCapture(attention_layout(model.config, "model", "relation_weight"), layers)


def caught(model, **inputs):
    with capture_of(model).watch(model) as found:
        model(**(inputs or inputs_of(model)))
    return found


@pytest.mark.parametrize("family", PLAIN)
def test_attention_under_sdpa_is_the_eager_one(family):
    model, eager = build(*PLAIN[family]), build(*PLAIN[family], implementation="eager")
    inputs = inputs_of(model)
    with torch.no_grad():
        found, expected = caught(model), eager(**inputs, output_attentions=True).attentions
    layout = capture_of(model).layout
    assert layout.plain
    assert layout.causal == (family == "gpt2")
    for layer, projected in zip(LAYERS, found, strict=True):
        attention = torch.softmax(attention_scores(projected, inputs.get("attention_mask"), layout), dim=-1)
        torch.testing.assert_close(attention, expected[layer], atol=1e-6, rtol=1e-5)
        assert attention.amax() > 0.5


SCALED = {
    "by the layer": {"scale_attn_by_inverse_layer_idx": True},
    "not at all": {"scale_attn_weights": False},
}


@pytest.mark.parametrize("case", SCALED)
def test_another_scale_is_known_to_be_other_attention(case):
    config = GPT2Config(vocab_size=50, **GPT2_SIZES, **SCALED[case])
    assert not attention_layout(config, "model", "attention_weight").plain
    assert attention_layout(GPT2[1], "model", "attention_weight").plain
    assert not attention_layout(LLAMA[1], "model", "attention_weight").plain


def test_three_that_lie_side_by_side_are_told_apart():
    model = build(*GPT2)
    states = model(**inputs_of(model), output_hidden_states=True).hidden_states
    for layer, projected in zip(LAYERS, caught(model), strict=True):
        block = model.transformer.h[layer]
        both = block.attn.c_attn(block.ln_1(states[layer]))
        for place, part in enumerate(projected):
            torch.testing.assert_close(part, both[..., 32 * place : 32 * (place + 1)])


def test_shared_keys_and_values_are_narrower():
    model = build(*LLAMA)
    states = model(**inputs_of(model), output_hidden_states=True).hidden_states
    for layer, projected in zip(LAYERS, caught(model), strict=True):
        block = model.model.layers[layer]
        states_in = block.input_layernorm(states[layer])
        for name, part, width in zip("qkv", projected, (24, 12, 12), strict=True):
            assert part.shape == (2, 7, width)
            torch.testing.assert_close(part, getattr(block.self_attn, f"{name}_proj")(states_in))
    layout = capture_of(model).layout
    assert layout.widths == (24, 12, 12)
    assert relation_heads(layout, layout) == 4
    assert relation_scores(caught(model)[0], None, 4).shape == (2, 3, 4, 7, 7)


HEADS = {  # heads, key and value heads, head size: of student and teacher
    "the student's": ((4, 4, 8), (8, 8, 8), 4),
    "wider teacher": ((12, 12, 32), (16, 16, 64), 4),
    "shared": ((6, 2, 8), (4, 4, 10), 2),
    "none in common": ((3, 3, 8), (4, 4, 8), 1),
}


@pytest.mark.parametrize("case", HEADS)
def test_relation_heads_divide_all_widths(case):
    *models, expected = HEADS[case]
    layouts = [
        attention_layout(
            LlamaConfig(
                hidden_size=heads * size, num_attention_heads=heads, num_key_value_heads=shared, head_dim=size
            ),
            "model",
            "relation_weight",
        )
        for heads, shared, size in models
    ]
    assert relation_heads(*layouts) == expected
    assert all(width % expected == 0 for layout in layouts for width in layout.widths)


def gradient_of(model):
    model.zero_grad()
    with capture_of(model).watch(model) as found:
        model(**inputs_of(model))
    sum(part.square().sum() for projected in found for part in projected).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_reach_all_that_made_the_projections():
    gradient = gradient_of(build(*BERT))
    below = {name for name in gradient if gradient[name].abs().max() > 0}
    assert {f"bert.encoder.layer.2.attention.self.{part}.weight" for part in ("query", "key", "value")} <= below
    assert {"bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.output.dense.weight"} <= below
    assert not any("layer.2.output" in name or "classifier" in name for name in below)


def checkpoint(model, **options):
    with warnings.catch_warnings():  # the name of transformers 5 comes when transformers 4 goes
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(options)


def test_checkpoints_leave_the_gradient_as_it_is():
    model, plain = build(*BERT).train(), gradient_of(build(*BERT).train().apply(without_dropout))
    model.apply(without_dropout)
    checkpoint(model, use_reentrant=False)
    checkpointed = gradient_of(model)
    assert checkpointed.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value)


def without_dropout(module):
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
    elif hasattr(module, "dropout_prob"):
        module.dropout_prob = 0.0


def test_reentrant_checkpoints_which_lose_the_gradient_are_refused():
    model = build(*BERT).train()
    checkpoint(model, use_reentrant=True)
    model.enable_input_require_grads()
    with pytest.raises(ShrinkError, match="`gradient_checkpointing_kwargs`"):
        gradient_of(model)


def test_an_adapter_on_a_projection_counts():
    model = build(*BERT)
    plain = caught(model)[0]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)).eval()
    with AttentionCapture(attention_layout(model.config, "model", "relation_weight"), (0,)).watch(adapted) as found:
        adapted(**inputs_of(model))
    assert (found[0].query - plain.query).abs().max() > 1e-3
    torch.testing.assert_close(found[0].key, plain.key)


def test_no_hook_stays_behind():
    model = build(*BERT)
    caught(model)
    with pytest.raises(KeyError), capture_of(model).watch(model):
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())


def test_a_projection_that_does_not_run_is_an_error_and_no_zero():
    model = build(*BERT)
    with pytest.raises(ShrinkError, match="projection attention.self.key of layer 0"), capture_of(model).watch(model):
        pass


def test_nothing_is_watched_where_nothing_is_wanted():
    model = build(*BERT)
    with watching(model, None) as found:
        model(**inputs_of(model))
        assert not any(module._forward_hooks for module in model.modules())
    assert found == []
