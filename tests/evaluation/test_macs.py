import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForImageClassification,
    BitsAndBytesConfig,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import count_macs, count_parameters
from hf_shrink.evaluation.macs import float_source, macs_note
from hf_shrink.evaluation.sample_inputs import sample_inputs
from hf_shrink.inputs import OnnxModel
from tests.evaluation.builders import classifier, tiny_gpt2
from tests.models import tiny_tokenizer

B, T, D, F, LAYERS, CLASSES = 2, 16, 32, 64, 2, 3


def bert_by_hand(rows=B, tokens=T):
    projections = 4 * tokens * D * D  # query, key, value, output
    attention = 2 * tokens * tokens * D  # scores and context, all heads together
    feed_forward = 2 * tokens * D * F
    head = D * D + D * CLASSES  # pooler and classifier, on the first token
    return rows * (LAYERS * (projections + attention + feed_forward) + head)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_is_the_closed_form(attention):
    model = classifier(attn_implementation=attention)
    assert count_macs(model, batch_size=B, sequence_length=T) == bert_by_hand()
    assert count_macs(model, sequence_length=T) == bert_by_hand(rows=1)


def test_fused_attention_would_count_as_nothing():
    model = classifier()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**sample_inputs(model, batch_size=B, sequence_length=T))
    assert counter.get_total_flops() // 2 == bert_by_hand() - B * LAYERS * 2 * T * T * D < bert_by_hand()


def test_decoder_counts_its_vocabulary():
    model = tiny_gpt2()
    layer = 4 * T * D * D + 2 * T * T * D + 2 * T * D * 4 * D
    assert count_macs(model, sequence_length=T) == LAYERS * layer + T * D * len(tiny_tokenizer())


def test_encoder_decoder_and_image_models_run():
    config = T5Config(vocab_size=40, d_model=D, d_kv=8, d_ff=F, num_layers=1, num_heads=4, decoder_start_token_id=0)
    t5 = T5ForConditionalGeneration(config)
    encoder = 4 * T * D * D + 2 * T * T * D + 2 * T * D * F
    decoder = encoder + 4 * T * D * D + 2 * T * T * D
    assert count_macs(t5, sequence_length=T) == encoder + decoder + T * D * 40
    vit = AutoModelForImageClassification.from_config(
        ViTConfig(
            image_size=8, patch_size=4, hidden_size=D, num_hidden_layers=1, num_attention_heads=4, intermediate_size=F
        )
    )
    patches, tokens = 4 * 3 * 4 * 4 * D, 5
    assert count_macs(vit) == patches + 4 * tokens * D * D + 2 * tokens * tokens * D + 2 * tokens * D * F + D * 2


def test_mode_and_random_numbers_stay_as_they_were():
    model = classifier().train()
    model.bert.encoder.layer[0].eval()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    count_macs(model, sequence_length=T)
    assert torch.rand(1) == expected
    assert model.training
    assert not model.bert.encoder.layer[0].training


def test_exported_graph_counts_its_float_source(graph_folder):
    model, graph = classifier(), OnnxModel(graph_folder)
    assert count_macs(graph, sequence_length=T) == bert_by_hand(rows=1)
    assert macs_note(graph) == "of the float source"
    assert macs_note(model) is None
    assert float_source(model) is model
    assert count_parameters(float_source(graph)) == count_parameters(model)


def test_quantized_module_counts_its_float_source():
    model = classifier()
    model.config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    source = float_source(model)
    assert source is not model
    assert macs_note(model) == "of the float source"
    assert count_macs(model, sequence_length=T) == bert_by_hand(rows=1)
    assert model.config.quantization_config.load_in_8bit


def test_a_module_without_config_needs_inputs():
    layer = torch.nn.Linear(4, 8)
    with pytest.raises(ShrinkError, match="`inputs` must be given for a Linear"):
        count_macs(layer)
    assert count_macs(layer, inputs={"input": torch.ones(5, 4)}) == 5 * 4 * 8
    with pytest.raises(ShrinkError, match="`model` must be a module or a GraphModel, got str"):
        count_macs("folder")
