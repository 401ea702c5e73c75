import copy
import json
import logging
import re

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertModel, GenerationMixin, ModernBertConfig, ModernBertModel, T5EncoderModel

from hf_shrink.architectures import architecture_of
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.dead_units import find_widths
from hf_shrink.pruning.sparse_files import load_sparse, save_sparse
from hf_shrink.pruning.sparsity import sparsity_report
from hf_shrink.pruning.targets import as_rows
from tests.architectures.models import FAMILIES, HEADS, answer, auto_class, tiny_inputs, tiny_model
from tests.pruning.silencing import GROUPED, LIVE, SINGLE, kill_heads, kill_units, layers_of
from tests.stock import run_stock

GENERATORS = tuple(family for family in FAMILIES if HEADS[family][0] in ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq"))
HEAD_FAMILIES = tuple(family for family in FAMILIES if "heads" in architecture_of(tiny_model(family, "")).cuts)


def load(model, folder, family):
    model.save_pretrained(folder)
    loaded, report = auto_class(HEADS[family][0]).from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return loaded


def numbers_of(model):
    """The modules' own numbers, such as `out_features`."""
    return {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def snapshot(model):
    return copy.deepcopy(model.state_dict()), model.config.to_dict(), numbers_of(model)


def assert_unchanged(model, before):
    weights, config, numbers = before
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert model.config.to_dict() == config
    assert numbers_of(model) == numbers


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def units_of(model):
    """FFN parameters of one unit, over all layers."""
    total = 0
    for stack, _, layer in layers_of(model):
        paths = [path for path in (stack.feed_forward.up, stack.feed_forward.gate) if path]
        for path in paths:
            module = layer.get_submodule(path)
            total += as_rows(module, module.weight).shape[1] + (module.bias is not None)
        total += as_rows(down := layer.get_submodule(stack.feed_forward.down), down.weight).shape[0]
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_units_of_every_family(family, tmp_path):
    model = kill_units(tiny_model(family))
    before, expected = snapshot(model), answer(model)
    smaller = compact(model)
    assert smaller is not model
    assert_unchanged(model, before)
    assert torch.allclose(answer(smaller), expected, atol=1e-5)
    assert count(model) - count(smaller) == (40 - 22) * units_of(model)
    for field in {stack.ffn_field for stack in architecture_of(model).stacks}:
        assert getattr(smaller.config, field) == 22
    loaded = load(smaller, tmp_path, family)
    assert torch.allclose(answer(loaded), answer(smaller), atol=1e-6)
    assert numbers_of(loaded) == numbers_of(smaller)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in smaller.parameters()}


@pytest.mark.parametrize("family", HEAD_FAMILIES)
def test_heads_of_every_family_that_can(family, tmp_path):
    (stack, *_) = architecture_of(tiny_model(family, "")).stacks
    live, queries, groups = GROUPED if stack.key_value_heads_field else SINGLE
    model = kill_units(kill_heads(tiny_model(family), live))
    before, expected = snapshot(model), answer(model)
    smaller = compact(model)
    assert_unchanged(model, before)
    assert torch.allclose(answer(smaller), expected, atol=1e-5)
    size = as_rows(layer := layers_of(model)[0][2].get_submodule(stack.attention.query), layer.weight).shape[0] // 4
    config = smaller.config.to_dict()
    assert (config[stack.heads_field], config[stack.head_dim_field], config[stack.ffn_field]) == (queries, size, 22)
    if stack.key_value_heads_field:
        assert config[stack.key_value_heads_field] == groups
    assert count(smaller) < count(model)
    loaded = load(smaller, tmp_path, family)
    assert torch.allclose(answer(loaded), answer(smaller), atol=1e-6)
    assert numbers_of(loaded) == numbers_of(smaller)


def test_each_layer_keeps_its_own_units_and_heads():
    model = kill_heads(kill_units(tiny_model("llama")), [[0], [1], [1], [0]])
    smaller = compact(model)
    for index, (layer, other) in enumerate(zip(model.model.layers, smaller.model.layers, strict=True)):
        live = (layer.mlp.down_proj.weight != 0).any(0)
        cut = other.mlp.down_proj.weight
        assert torch.equal(cut[:, (cut != 0).any(0)], layer.mlp.down_proj.weight[:, live])
        assert int((cut == 0).all(0).sum()) == 22 - LIVE[index]  # the widest layer needs 22
        group = [0, 1, 1, 0][index]
        assert torch.equal(
            other.self_attn.o_proj.weight, layer.self_attn.o_proj.weight[:, 20 * group : 20 * group + 20]
        )
        assert torch.equal(other.self_attn.k_proj.weight, layer.self_attn.k_proj.weight[10 * group : 10 * group + 10])


def test_t5_keeps_the_same_heads_in_all_layers_that_share_positions():
    """Encoder, decoder and cross-attention may choose apart: the cross-attention has no positions."""
    encoder, decoder, cross = [[0, 2], [2], [0], [2]], [[1, 3], [3], [1]], [[0], [1, 2], [3]]
    live = encoder + [heads for pair in zip(decoder, cross, strict=True) for heads in pair]
    model = kill_heads(tiny_model("t5"), live)
    smaller = compact(model)
    assert torch.allclose(answer(smaller), answer(model), atol=1e-5)
    for name, kept in (("encoder", [0, 2]), ("decoder", [1, 3])):
        table, whole = (
            getattr(m, name).block[0].layer[0].SelfAttention.relative_attention_bias.weight for m in (smaller, model)
        )
        assert torch.equal(table, whole[:, kept])
        block, old = (getattr(m, name).block[1].layer[0].SelfAttention.o.weight for m in (smaller, model))
        assert torch.equal(block, old.unflatten(1, (4, 10))[:, kept].flatten(1))
    for config in (smaller.config, smaller.encoder.config, smaller.decoder.config):
        assert (config.num_heads, config.d_kv) == (2, 10)
    # one more head in one layer of the decoder: three everywhere
    live[4] = [0, 1, 3]
    smaller = compact(kill_heads(tiny_model("t5"), live))
    assert smaller.config.num_heads == 3


def test_a_number_of_heads_that_the_config_refuses_is_passed_over():
    live = [[0, 1, 2]]
    llama = kill_heads(tiny_model("llama", num_key_value_heads=4), live)
    with pytest.warns(UserWarning, match="Nothing was cut"):
        assert compact(llama) is llama  # 3 does not divide 32
    mistral = kill_heads(tiny_model("mistral", num_key_value_heads=4), live)
    assert compact(mistral).config.num_attention_heads == 3


def test_half_a_group_stays():
    model = kill_units(tiny_model("llama"))
    for layer in model.model.layers:
        with torch.no_grad():
            layer.self_attn.o_proj.weight[:, :10] = 0  # the first of the two heads of a group
    smaller = compact(model)
    assert (smaller.config.num_attention_heads, smaller.config.intermediate_size) == (4, 22)


def test_never_down_to_nothing():
    model = kill_heads(kill_units(tiny_model("qwen3"), live=(0, 0, 0, 0)), [[]])
    smaller = compact(model)
    config = smaller.config
    assert (config.intermediate_size, config.num_attention_heads, config.num_key_value_heads) == (1, 2, 1)
    assert torch.allclose(answer(smaller), answer(model), atol=1e-5)


def test_whisper_stacks_have_widths_of_their_own():
    model = tiny_model("whisper")
    with torch.no_grad():
        for stack, live in ((model.model.encoder, 22), (model.model.decoder, 5)):
            for layer in stack.layers:
                layer.fc2.weight[:, live:] = 0
    smaller = compact(model)
    assert (smaller.config.encoder_ffn_dim, smaller.config.decoder_ffn_dim) == (22, 5)


@pytest.mark.parametrize("family", GENERATORS)
def test_generators_write_the_same_tokens(family, tmp_path):
    (stack, *_) = architecture_of(tiny_model(family, "")).stacks
    model = kill_units(tiny_model(family))
    if family in HEAD_FAMILIES:
        kill_heads(model, GROUPED[0] if stack.key_value_heads_field else SINGLE[0])
    inputs = tiny_inputs(model)
    inputs.pop("decoder_input_ids", None)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.full((2, 1), model.config.decoder_start_token_id)

    def generate(one):  # past Whisper's own generate, which calls this one with deprecated arguments
        return GenerationMixin.generate(one, **inputs, do_sample=False, max_new_tokens=6, min_new_tokens=6)

    smaller = compact(model)
    tokens = generate(model)
    assert torch.equal(generate(smaller), tokens)
    assert torch.equal(generate(load(smaller, tmp_path, family)), tokens)


STOCK = """
import json, torch, transformers
answers = []
for auto, folder, inputs in json.loads(sys.argv[1]):
    auto = getattr(transformers, auto)
    model, report = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    with torch.no_grad():
        answers.append(model(**{name: torch.tensor(ids) for name, ids in inputs.items()}).logits.tolist())
print(json.dumps(answers))
"""


def test_stock_transformers_loads_them_in_a_fresh_process(tmp_path):
    models = {
        "gpt2": kill_units(tiny_model("gpt2")),
        "qwen3": kill_heads(kill_units(tiny_model("qwen3")), GROUPED[0]),
        "t5": kill_heads(kill_units(tiny_model("t5")), SINGLE[0]),
    }
    jobs = []
    for family, model in models.items():
        compact(model).save_pretrained(tmp_path / family)
        inputs = {name: ids.tolist() for name, ids in tiny_inputs(model).items()}
        jobs.append((auto_class(HEADS[family][0]).__name__, str(tmp_path / family), inputs))
    answers = run_stock(STOCK, json.dumps(jobs), cwd=tmp_path)
    for model, logits in zip(models.values(), answers, strict=True):
        assert torch.allclose(torch.tensor(logits), answer(model), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "head"),
    [
        *(("bert", head) for head in ("", "SequenceClassification", "QuestionAnswering")),
        *(("t5", head) for head in ("", "SequenceClassification")),
        *(("whisper", head) for head in ("", "AudioClassification", "CausalLM")),
        ("llama", "TokenClassification"),
    ],
)
def test_other_heads(family, head, tmp_path):
    model = kill_units(tiny_model(family, head))
    smaller = compact(model)
    assert torch.allclose(answer(smaller), answer(model), atol=1e-5)
    smaller.save_pretrained(tmp_path)
    loaded = auto_class(head).from_pretrained(tmp_path)
    assert torch.allclose(answer(loaded), answer(model), atol=1e-5)


def test_ties_dtype_mode_and_what_is_frozen_stay():
    model = kill_units(tiny_model("t5").to(torch.bfloat16)).train()
    model.encoder.block[0].layer[1].DenseReluDense.wi.weight.requires_grad_(False)
    smaller = compact(model)
    assert smaller.training
    assert smaller.dtype == torch.bfloat16
    assert smaller.lm_head.weight is smaller.shared.weight is smaller.encoder.embed_tokens.weight
    frozen = [name for name, parameter in smaller.named_parameters() if not parameter.requires_grad]
    assert frozen == ["encoder.block.0.layer.1.DenseReluDense.wi.weight"]


def test_nan_counts_as_live():
    model = kill_units(tiny_model("bert"), live=(4, 4, 4, 4))
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0] = float("nan")
    with pytest.warns(UserWarning, match="Nothing was cut"):
        compact(model)


def test_a_part_of_the_config_may_have_no_layers():
    """The encoder alone, with a config that speaks of a decoder too."""
    model = kill_units(T5EncoderModel(tiny_model("t5").config).eval())
    smaller = compact(model)
    assert smaller.config.d_ff == 22
    inputs = {"input_ids": torch.arange(3, 9)[None]}
    assert torch.allclose(answer(smaller, **inputs), answer(model, **inputs), atol=1e-5)


def test_a_model_without_its_optional_parts():
    model = BertModel(tiny_model("bert").config, add_pooling_layer=False).eval()
    smaller = compact(kill_units(model))
    assert smaller.pooler is None
    assert torch.allclose(answer(smaller), answer(model), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_it_does_what_the_report_says(family):
    model = kill_units(tiny_model(family))
    if family in HEAD_FAMILIES:
        kill_heads(model, SINGLE[0] if family == "t5" else GROUPED[0])
    report, smaller = sparsity_report(model), compact(model)
    assert all(getattr(smaller.config, units.field) == units.smallest < units.width for units in report.dead_units)
    after = sparsity_report(smaller)
    assert "compact() could cut nothing" in after.to_markdown()
    assert after.prunable.share < report.prunable.share


def test_what_was_cut_is_logged(caplog):
    with caplog.at_level(logging.INFO, "hf_shrink"):
        compact(kill_heads(kill_units(tiny_model("llama")), GROUPED[0]))
    units, heads = (record.getMessage() for record in caplog.records if record.name.startswith("hf_shrink"))
    assert units == "Cut `intermediate_size` from 40 to 22 in each of 4 blocks: 99 of 160 FFN units were dead."
    assert heads == "Cut `num_attention_heads` from 4 to 2 in each of 4 blocks: 4 of 8 groups of heads were dead."


# In mid-run


def train_step(model, optimizer, step, masks=()):
    torch.manual_seed(step)
    ids = torch.randint(3, 60, (2, 7))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    outputs = model(**inputs)
    outputs.logits.pow(2).mean().backward()
    optimizer.step()
    with torch.no_grad():
        for parameter, mask in masks:
            parameter.mul_(mask)
    optimizer.zero_grad()


def masks_of(model):
    """A mask for every parameter that has zeros: they are to stay."""
    return [(parameter, parameter != 0) for parameter in model.parameters() if (parameter == 0).any()]


def trained(family, make, dtype=torch.float32):
    model = tiny_model(family).to(dtype)  # in evaluation mode: without dropout
    optimizer = make(model)
    for step in range(3):
        train_step(model, optimizer, step)
    kill_units(model)
    if family in HEAD_FAMILIES:
        kill_heads(model, SINGLE[0] if family == "t5" else GROUPED[0])
    for parameter, mask in masks_of(model):  # as the callback does with what it prunes
        for value in optimizer.state[parameter].values():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value.mul_(mask)
    return model, optimizer


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def live_of(dense, widths):
    """The dense parameters with the units that stay, by identity: cut by the plan itself."""
    kept = {}
    for width in widths:
        for block, chosen in width.kept():
            for piece in block.pieces:
                index = chosen.repeat_interleave(piece.width).nonzero().flatten()
                kept[id(piece.parameter)] = (piece.axis, index)
    return [p.detach().index_select(*kept[id(p)]) if id(p) in kept else p.detach().clone() for p in dense.parameters()]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_training_goes_on_as_with_masks(family):
    # In float64: a key's bias has no gradient but rounding, which Adam would blow up to whole steps.
    dense, dense_optimizer = trained(family, adamw, torch.float64)
    model, optimizer = trained(family, adamw, torch.float64)
    parameters = list(model.parameters())
    widths = find_widths(dense)
    assert compact(model, optimizer=optimizer) is model
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert count(model) < count(dense)
    for parameter in model.parameters():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    masks, smaller_masks = masks_of(dense), masks_of(model)
    for step in range(3, 6):
        train_step(dense, dense_optimizer, step, masks)
        train_step(model, optimizer, step, smaller_masks)
        for expected, parameter in zip(live_of(dense, widths), model.parameters(), strict=True):
            assert torch.allclose(parameter, expected, atol=1e-9, rtol=0)


def test_gradients_that_are_there_go_along():
    model, optimizer = trained("bert", adamw)
    inputs = tiny_inputs(model)
    model(**inputs).logits.pow(2).mean().backward()
    layer = model.bert.encoder.layer[1]
    live = (layer.output.dense.weight != 0).any(0)
    gradient = layer.output.dense.weight.grad.clone()
    compact(model, optimizer=optimizer)
    kept = (layer.output.dense.weight != 0).any(0)
    assert torch.equal(layer.output.dense.weight.grad[:, kept], gradient[:, live])
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
    optimizer.step()


def test_the_model_cut_in_place_is_the_one_that_loads(tmp_path):
    model, optimizer = trained("t5", adamw)
    copied = compact(copy.deepcopy(model))
    compact(model, optimizer=optimizer)
    assert numbers_of(model) == numbers_of(copied)
    assert model.config.to_dict() == copied.config.to_dict()
    assert all(map(torch.equal, model.parameters(), copied.parameters()))
    loaded = load(model, tmp_path, "t5")
    assert torch.allclose(answer(loaded), answer(model), atol=1e-6)


def test_the_optimizer_that_accelerate_prepared():
    model, optimizer = trained("bert", lambda model: Accelerator(cpu=True).prepare(adamw(model)))
    assert type(optimizer).__name__ == "AcceleratedOptimizer"
    compact(model, optimizer=optimizer)
    assert all(optimizer.state[p]["exp_avg_sq"].shape == p.shape for p in model.parameters())
    train_step(model, optimizer, 9)


def test_momentum_and_parameters_without_state():
    model = kill_units(tiny_model("gpt2"))
    some = torch.optim.SGD(model.transformer.h[0].parameters(), lr=1e-3, momentum=0.9)
    train_step(model, some, 0, masks_of(model))
    compact(model, optimizer=some)
    assert all(some.state[p]["momentum_buffer"].shape == p.shape for p in model.transformer.h[0].parameters())
    train_step(model, some, 1)


def test_optimizers_that_are_refused():
    model = kill_units(tiny_model("bert"))
    with pytest.raises(ShrinkError, match="`optimizer` must be the torch optimizer"):
        compact(model, optimizer="adamw")
    with pytest.raises(ShrinkError, match="got one of another model"):
        compact(model, optimizer=adamw(tiny_model("bert")))
    factored = torch.optim.Adafactor(model.parameters())
    train_step(model, factored, 0)
    kill_units(model)
    before = snapshot(model)
    with pytest.raises(ShrinkError, match=r"weight by weight.*Compact after training"):
        compact(model, optimizer=factored)
    assert_unchanged(model, before)
    quantized = adamw(model)
    quantized.state[model.bert.encoder.layer[0].output.dense.weight]["state1"] = torch.zeros(32, 40, dtype=torch.uint8)
    with pytest.raises(ShrinkError, match=r"state1 of shape \(32, 40\) and torch.uint8"):
        compact(model, optimizer=quantized)
    assert_unchanged(model, before)


# What cannot be cut


def test_unstructured_zeros_cannot_be_cut():
    model = tiny_model("bert")
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[torch.rand(32, 40) < 0.5] = 0
    with pytest.warns(UserWarning, match=r"single zeros cannot be cut out of a matrix.*save_sparse\(\)") as caught:
        assert compact(model) is model
    share = float(re.search(r"([\d.]+) %", str(caught[0].message)).group(1))
    assert 0 < share < 50
    assert caught[0].filename == __file__


def test_one_full_layer_keeps_all_wide():
    model = kill_units(tiny_model("bert"), live=(3, 3, 3, 40))
    with pytest.warns(UserWarning, match="111 of 160 FFN units are dead, but one layer at least needs them all"):
        assert compact(model) is model


def test_models_that_are_refused():
    with pytest.raises(ShrinkError, match="`model` must be a transformers model"):
        compact(nn.Linear(2, 2))
    config = ModernBertConfig(
        **{"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"intermediate_size": 40, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2},
        **{"bos_token_id": 1, "eos_token_id": 2},
    )
    with pytest.raises(ShrinkError, match=r"of a family that hf_shrink knows.*modernbert"):
        compact(ModernBertModel(config))
    with pytest.raises(ShrinkError, match="on the meta device"):
        compact(tiny_model("bert").to("meta"))
    quantized = tiny_model("bert")
    quantized.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ShrinkError, match="quantized BertForMaskedLM"):
        compact(quantized)


def test_adapters_are_merged_first():
    model = kill_units(tiny_model("llama"))
    expected = answer(model)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ShrinkError, match="merge_and_unload"):
        compact(adapted)
    with pytest.raises(ShrinkError, match="Merge adapters"):
        compact(adapted.base_model.model)
    smaller = compact(adapted.merge_and_unload())
    assert smaller.config.intermediate_size == 22
    assert torch.allclose(answer(smaller), expected, atol=1e-5)


def test_unequal_layers_are_refused():
    model = kill_units(tiny_model("bert"))
    layer = model.bert.encoder.layer[1]
    layer.intermediate.dense, layer.output.dense = nn.Linear(32, 20), nn.Linear(20, 32)
    with pytest.raises(ShrinkError, match="equally wide layers"):
        compact(model)


def test_a_compact_model_still_packs(tmp_path):
    smaller = compact(kill_units(tiny_model("bert")))
    save_sparse(smaller, tmp_path)  # the units that fill up are zeros
    assert torch.equal(answer(load_sparse(tmp_path)), answer(smaller))
    assert load_sparse(tmp_path).config.intermediate_size == 22
