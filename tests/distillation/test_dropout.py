import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    LlamaConfig,
    ViTConfig,
)

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.distillation.dropout import disable_dropout
from tests.models import tiny_bert_classifier

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "bert": (lambda: tiny_bert_classifier(), {"input_ids": torch.arange(5, 17)[None]}),
    "llama": (
        lambda: AutoModelForCausalLM.from_config(
            LlamaConfig(**SMALL, vocab_size=40, num_key_value_heads=2, attention_dropout=0.5)
        ),
        {"input_ids": torch.arange(5, 17)[None]},
    ),
    "vit": (
        lambda: AutoModelForImageClassification.from_config(
            ViTConfig(**SMALL, image_size=8, patch_size=4, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
        ),
        {"pixel_values": torch.rand(1, 3, 8, 8)},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_training_gives_the_same_answer_twice(name):
    build, inputs = MODELS[name]
    model = build().train()
    with torch.no_grad():
        assert not torch.equal(model(**inputs).logits, model(**inputs).logits)
        disable_dropout(model)
        assert torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_the_saved_model_has_its_dropout_again(tmp_path):
    model = tiny_bert_classifier()
    disable_dropout(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.hidden_dropout_prob == 0.1
    assert {m.p for m in again.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize("given", ["model", "model_init"])
def test_the_trainer_does_it_when_asked(tmp_path, given):
    for disabled in (False, True):
        args = DistillationTrainingArguments(
            output_dir=str(tmp_path), disable_dropout=disabled, report_to=[], use_cpu=True
        )
        student = tiny_bert_classifier() if given == "model" else lambda: tiny_bert_classifier()
        trainer = DistillationTrainer(**{given: student, "args": args})
        assert {m.p for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)} == {0.0 if disabled else 0.1}
