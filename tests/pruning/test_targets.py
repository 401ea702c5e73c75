"""Which modules are pruned, under which names, and what is refused."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import prune
from transformers import BertModel
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.targets import as_rows, find_targets
from tests.architectures.models import FAMILIES, HEADS, tiny_config, tiny_model

DEFAULT_IGNORE = ["re:.*classifier.*"]
QUERIES = {"bert": "query", "gpt2": "c_attn", "llama": "q_proj"}


def bert(head="SequenceClassification", **changes):
    return tiny_model("bert", head, **changes)


def names(model, targets=("Linear",), ignore=()):
    return list(find_targets(model, list(targets), list(ignore)))


def with_lora(model, **options):
    return get_peft_model(model, LoraConfig(r=2, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_map_but_the_heads_and_what_is_tied_to_an_embedding(family):
    model = tiny_model(family)
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    heads = {"lm_head", "lm_head.decoder", "cls.predictions.decoder", "vocab_projector", "proj_out", "classifier"}
    expected = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and name not in heads and id(module.weight) not in tied
    ]
    found = find_targets(model, ["Linear"], [])
    assert list(found) == expected
    assert all(found[name] is model.get_submodule(name) for name in found)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "t5", "distilbert"])
def test_heads_are_left_alone_until_they_are_named(family):
    model = tiny_model(family, "SequenceClassification")
    head = {"gpt2": "score", "llama": "score", "roberta": "classifier.out_proj"}.get(family, "classifier")
    head = "classification_head.out_proj" if family == "t5" else head
    assert head not in names(model)
    assert head not in names(model, [type(model.get_submodule(head)).__name__])
    assert names(model, [head]) == [head]
    assert head in names(model, ["Linear", f"re:.*{head}"])
    assert head not in names(model, ["Linear", head], [head])


def test_dense_layers_within_a_head_are_no_logits():
    assert "classifier.dense" in names(tiny_model("roberta", "SequenceClassification"))


def test_an_untied_head_can_be_named_and_a_tied_one_cannot():
    assert names(tiny_model("llama", tie_word_embeddings=False), ["lm_head"]) == ["lm_head"]
    with pytest.raises(ShrinkError, match="lm_head cannot be pruned: tied to an embedding"):
        names(tiny_model("llama", tie_word_embeddings=True), ["lm_head"])


def test_patterns_are_classes_names_and_regular_expressions():
    model = bert()
    first = "bert.encoder.layer.0.output.dense"
    assert names(model, [first]) == [first]
    assert names(model, ["re:bert.encoder.layer.[01].output"]) == [first, first.replace("0", "1")]
    assert names(model, ["re:encoder", first]) == [first]  # matched from the start of the name
    assert "bert.pooler.dense" not in names(model, ignore=["re:.*pooler"])
    assert names(model, ignore=["bert.pooler.dense"]) == names(model, ignore=["re:.*pooler"])
    assert set(names(model, ["Linear"], ["re:.*attention"])).isdisjoint(names(model, ["re:.*attention"]))


def test_linear_stands_for_conv1d_and_conv1d_for_itself():
    model = tiny_model("gpt2", "SequenceClassification")
    assert names(model) == names(model, ["Conv1D"])
    assert len(names(model)) == 16
    assert names(bert(), ["Linear", "Conv1D"]) == names(bert())


def test_subclasses_go_by_the_name_of_their_parents():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(4, 4), nn.Linear(4, 4))
    assert names(model) == ["0", "1"]
    assert names(model, ["Own"]) == ["0"]
    assert names(model, ignore=["Own"]) == ["1"]


def test_a_shared_weight_counts_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert names(model) == ["0", "1"]


def test_an_entry_that_hits_nothing_is_pointed_out(caplog):
    with caplog.at_level(logging.WARNING, logger="hf_shrink"):
        names(bert(), ["Linear", "bert.encoder.layr"])
    assert [record.args for record in caplog.records] == [("bert.encoder.layr",)]


@pytest.mark.parametrize("family", QUERIES)
def test_under_an_adapter_the_base_is_pruned_and_not_the_adapter(family):
    plain = tiny_model(family, "SequenceClassification")
    expected = {name: module for name, module in plain.named_modules() if name in names(plain)}
    model = with_lora(plain, target_modules=[QUERIES[family]], task_type="SEQ_CLS")
    found = find_targets(model, ["Linear"], [])
    assert list(found.values()) == list(expected.values())
    adapted = [name for name in found if name.endswith(f".{QUERIES[family]}.base_layer")]
    assert len(adapted) == 4
    assert all(name.startswith("base_model.model.") for name in found)
    assert set(found) < set(dict(model.named_modules()))
    assert {f"{name}.weight" for name in found} < set(dict(model.named_parameters()))


def test_under_an_adapter_plain_names_serve():
    model = with_lora(bert(), target_modules=["query"])
    plain = "bert.encoder.layer.1.attention.self.query"
    full = f"base_model.model.{plain}.base_layer"
    for pattern in (plain, full, rf"re:{plain}$", f"re:{full}$"):
        assert names(model, [pattern]) == [full]
        assert full not in names(model, ignore=[pattern])


def test_a_head_that_trains_beside_an_adapter_is_a_head_still():
    model = with_lora(bert(), target_modules=["query"], modules_to_save=["classifier"])
    assert not [name for name in names(model) if "classifier" in name]
    assert names(model, ["classifier"]) == ["base_model.model.classifier.modules_to_save.default"]


def test_of_a_module_that_trains_beside_an_adapter_the_copy_in_use_is_pruned():
    model = with_lora(bert(), target_modules=["query"], modules_to_save=["pooler"])
    pooler = [name for name in names(model) if "pooler" in name]
    assert pooler == ["base_model.model.bert.pooler.modules_to_save.default.dense"]


def test_an_adapter_cannot_be_named():
    model = with_lora(bert(), target_modules=["query"])
    with pytest.raises(ShrinkError, match="`targets` must match"):
        names(model, ["re:.*lora_A"])


def test_unknown_families_and_plain_modules_have_no_heads():
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "classifier": nn.Linear(4, 2)})
    assert names(model) == ["body", "classifier"]
    assert names(model, ignore=DEFAULT_IGNORE) == ["body"]


@pytest.mark.parametrize(("module", "shape"), [(nn.Linear(3, 2), (2, 3)), (Conv1D(2, 3), (2, 3))])
def test_rows_are_outputs(module, shape):
    rows = as_rows(module, module.weight)
    assert rows.shape == shape
    assert rows.data_ptr() == module.weight.data_ptr()
    assert torch.equal(as_rows(module, rows), module.weight)
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(module(inputs), inputs @ rows.T + module.bias)


def refused(model, targets=("Linear",), ignore=()):
    """The error's text; the model stays as it is."""
    before = {name: (weight.dtype, weight._version) for name, weight in model.named_parameters()}
    with pytest.raises(ShrinkError) as error:
        find_targets(model, list(targets), list(ignore))
    assert {name: (weight.dtype, weight._version) for name, weight in model.named_parameters()} == before
    return str(error.value)


def test_nothing_matched_lists_what_there_is():
    text = refused(bert(), ["encoder"], DEFAULT_IGNORE)
    assert text.startswith("`targets` must match linear maps that `ignore` leaves, got targets=['encoder']")
    assert "Linear (26), such as bert.encoder.layer.0.attention.self.query, " in text
    assert "Conv1D (16)" in refused(tiny_model("gpt2"), ["nothing"])
    assert "ignore=['Linear']" in refused(bert(), ignore=["Linear"])
    assert "no linear map to prune in Embedding" in refused(nn.Embedding(3, 3))


def test_a_broken_pattern_is_named():
    assert refused(bert(), ["re:*dense"]).startswith("`targets` and `ignore` must hold regular expressions after re:")
    assert "'re:('" in refused(bert(), ignore=["re:("])


def test_weights_on_the_meta_device_are_refused():
    with torch.device("meta"):
        model = BertModel(tiny_config("bert"))
    assert refused(model).startswith("`model` must be in memory to prune, got a BertModel")


def quantized_by_config():
    model = bert()
    model.config.quantization_config = {"quant_method": "gptq"}
    return model


def whole_numbers():
    model = bert()
    dense = model.bert.pooler.dense
    dense.weight = nn.Parameter(dense.weight.detach().to(torch.int8), requires_grad=False)
    return model


def eight_bit_floats():
    model = bert()
    dense = model.bert.pooler.dense
    dense.weight = nn.Parameter(dense.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    return model


def bitsandbytes_before_it_packs():
    from bitsandbytes.nn import Linear8bitLt

    return nn.Sequential(Linear8bitLt(8, 8, has_fp16_weights=False), nn.Linear(8, 8))


def adapter_over_quantized():
    return with_lora(quantized_by_config(), target_modules=["query"])


@pytest.mark.parametrize(
    "make",
    [quantized_by_config, whole_numbers, eight_bit_floats, bitsandbytes_before_it_packs, adapter_over_quantized],
)
def test_quantized_weights_are_refused(make):
    assert refused(make()).startswith("`model` must have float weights to prune, got a quantized ")


def test_weights_that_are_computed_are_refused():
    model = bert()
    prune.identity(model.bert.pooler.dense, "weight")
    assert "is computed in bert.pooler.dense" in refused(model)
    assert len(names(model, ignore=["bert.pooler.dense"])) == 24


def test_what_is_no_module_is_refused():
    with pytest.raises(ShrinkError, match="`model` must be a torch module to prune, got str"):
        find_targets("bert-base-uncased", ["Linear"], [])


def test_all_heads_of_all_families_are_known():
    """A head's logits never count among the targets, whichever head it is."""
    for family, heads in HEADS.items():
        for head in heads:
            model = tiny_model(family, head)
            outputs = [name for name, module in find_targets(model, ["Linear"], []).items() if is_last(name)]
            assert outputs == [], (family, head)


def is_last(name):
    return name.split(".")[-1] in {"classifier", "qa_outputs", "score", "lm_head", "proj_out", "seq_relationship"}
