from dataclasses import replace

import pytest
from torch import nn
from transformers import AlbertConfig, BertConfig, PretrainedConfig, T5Config

from hf_shrink.architectures import (
    Architecture,
    Attention,
    FeedForward,
    LayerStack,
    architecture_of,
    known,
    register_architecture,
)
from hf_shrink.architectures.bert import BERT
from hf_shrink.architectures.t5 import GATED_T5, T5
from hf_shrink.distillation import make_student
from hf_shrink.errors import ShrinkError
from tests.architectures.models import CONFIGS, FAMILIES, tiny_config, tiny_model


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(known, "_KNOWN", list(known._KNOWN))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_and_its_config_lead_to_one_description(family):
    architecture = architecture_of(tiny_config(family))
    assert architecture is architecture_of(tiny_model(family, ""))
    assert CONFIGS[family]["model_type"] in architecture.model_types


def test_config_fields_tell_siblings_apart():
    assert architecture_of(T5Config()) is T5
    assert architecture_of(T5Config(feed_forward_proj="gated-gelu")) is GATED_T5


def test_an_unknown_family_is_named_with_the_call_to_add_it():
    with pytest.raises(ShrinkError, match=r"\(bert, .*\), got model_type 'albert'.*register_architecture\(") as e:
        architecture_of(AlbertConfig())
    assert "Architecture(model_types=('albert',)" in str(e.value)
    with pytest.raises(ShrinkError, match="`model` must be a transformers model or a config, got Linear"):
        architecture_of(nn.Linear(1, 1))


class OwnConfig(BertConfig):
    model_type = "own-bert"


def test_a_registered_family_works_like_the_others():
    with pytest.raises(ShrinkError, match="own-bert"):
        architecture_of(OwnConfig())
    register_architecture(replace(BERT, model_types=("own-bert",)))
    teacher = tiny_model("bert")
    teacher.config.__class__ = OwnConfig
    assert make_student(teacher, 2).config.hf_shrink_layers == {"encoder": [0, 3]}


def test_the_latest_registration_wins():
    other = replace(BERT, output_layers=())
    register_architecture(other)
    assert architecture_of(BertConfig()) is other
    register_architecture(BERT)
    assert architecture_of(BertConfig()) is BERT


def test_a_minimal_description_needs_little():
    stack = LayerStack(
        name="decoder",
        path="blocks",
        depth_fields=("depth",),
        heads_field="heads",
        ffn_field="inner",
        attention=Attention(query="q", key="k", value="v", output="o"),
        feed_forward=FeedForward(up="up", down="down"),
    )
    own = Architecture(model_types=("own",), stacks=(stack,), hidden_field="width", cuts=frozenset({"layers"}))
    register_architecture(own)

    class Config(PretrainedConfig):
        model_type = "own"

    assert architecture_of(Config()) is own


def test_a_description_without_substance_is_refused():
    with pytest.raises(ShrinkError, match="`architecture` must be an Architecture, got str"):
        register_architecture("bert")
    with pytest.raises(ShrinkError, match="must name its model types"):
        register_architecture(replace(BERT, model_types=()))
    with pytest.raises(ShrinkError, match="must name its model types and its stacks"):
        register_architecture(replace(BERT, stacks=()))
