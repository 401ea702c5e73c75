from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.predicted_size import predict_bytes
from tests.models import tiny_bert_classifier

INT8 = Format(bits=8, group_size=None, symmetric=True, embedding_bits=8, activations=None)


def parts(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)}


def test_every_row_has_a_scale_and_the_rest_is_float():
    model = tiny_bert_classifier()
    weights = [module.weight for module in parts(model).values()]
    packed = sum(weight.numel() for weight in weights)
    rest = sum(p.numel() for p in model.parameters()) - packed
    assert predict_bytes(model, INT8) == packed + 4 * sum(len(weight) for weight in weights) + 4 * rest


def test_groups_and_zero_points_count():
    model = nn.Sequential(nn.Linear(64, 10, bias=False))
    int4 = Format(bits=4, group_size=32, symmetric=False, embedding_bits=4, activations=None)
    assert predict_bytes(model, int4) == 640 // 2 + 20 * 4 + 20 // 2


def test_embeddings_in_more_bits_have_a_scale_a_row():
    model = nn.Sequential(nn.Embedding(100, 64))
    int4 = Format(bits=4, group_size=32, symmetric=False, embedding_bits=8, activations=None, scale_bits=16)
    assert predict_bytes(model, int4) == 6400 + 100 * (2 + 1)


def test_what_is_ignored_stays_whole():
    model = tiny_bert_classifier()
    name = "bert.encoder.layer.0.output.dense"
    weight = parts(model)[name].weight
    more = predict_bytes(model, INT8, ignore=(name,)) - predict_bytes(model, INT8)
    assert more == 3 * weight.numel() - 4 * len(weight)


def test_a_tied_weight_counts_as_often_as_it_is_stored():
    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    with torch.device("meta"):
        tied = GPT2LMHeadModel(config)
    tied.tie_weights()
    assert tied.lm_head.weight is tied.transformer.wte.weight
    table = 50 * 8 + 50 * 4
    alone = sum(
        module.weight.numel() + 4 * (module.weight.shape[0] if name.endswith("wpe") else module.nf)
        for name, module in tied.named_modules()
        if name.endswith(("c_attn", "c_proj", "c_fc", "wpe"))
    )
    rest = sum(p.numel() for n, p in tied.named_parameters() if "ln_" in n or n.endswith("bias"))
    assert predict_bytes(tied, INT8) == table + alone + 4 * rest
    assert predict_bytes(tied, replace(INT8, tied_once=False)) == 2 * table + alone + 4 * rest


@pytest.mark.parametrize("bits", [16, 32])
def test_embeddings_in_float(bits):
    model = nn.Sequential(nn.Embedding(10, 4))
    numbers = Format(bits=8, group_size=None, symmetric=True, embedding_bits=bits, activations=None)
    assert predict_bytes(model, numbers) == 40 * bits // 8
