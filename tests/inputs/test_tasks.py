import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, PretrainedConfig, T5Config
from transformers.models.auto import modeling_auto

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import TASKS, find_task
from tests.models import tiny_bert_classifier

MAPPINGS = {
    "single_label_classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "token_classification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "question_answering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    "image_classification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "audio_classification": modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
}


def classifier_config(**settings):
    return BertConfig(architectures=["BertForSequenceClassification"], **settings)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_each_task_names_a_class_of_transformers(task):
    assert hasattr(getattr(transformers, task.auto_class), "from_pretrained")


@pytest.mark.parametrize("task", MAPPINGS)
def test_heads_of_all_architectures_are_found(task):
    others = {"CLIPForImageClassification"}
    for names in MAPPINGS[task].values():
        for name in [names] if isinstance(names, str) else names:
            if name not in others and name.endswith(("Classification", "Answering", "AnsweringSimple", "Teacher")):
                assert find_task(PretrainedConfig(architectures=[name], num_labels=3)) == task, name


@pytest.mark.parametrize(
    ("settings", "task"),
    [
        ({"num_labels": 3}, "single_label_classification"),
        ({"num_labels": 2}, "single_label_classification"),
        ({"num_labels": 1}, "regression"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "multi_label_classification"),
        ({"num_labels": 3, "problem_type": "regression"}, "regression"),
    ],
)
def test_classifiers_are_told_apart(settings, task):
    assert find_task(classifier_config(**settings)) == task
    assert find_task(tiny_bert_classifier(**settings)) == task


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (BertConfig(architectures=["BertModel"]), "feature_extraction"),
        (BertConfig(architectures=["BertForMaskedLM"]), "masked_lm"),
        (GPT2Config(architectures=["GPT2LMHeadModel"]), "causal_lm"),
        (PretrainedConfig(architectures=["LlamaForCausalLM"]), "causal_lm"),
        (T5Config(architectures=["T5ForConditionalGeneration"]), "seq2seq_lm"),
        (PretrainedConfig(architectures=["XLMWithLMHeadModel"]), "masked_lm"),
    ],
)
def test_other_heads(config, task):
    assert find_task(config) == task


@pytest.mark.parametrize("name", ["GPT2DoubleHeadsModel", "BertForNextSentencePrediction", "BertPreTrainedModel"])
def test_other_class_names_are_refused(name):
    with pytest.raises(ShrinkError, match=f"`task` must be given.*{name}"):
        find_task(PretrainedConfig(architectures=[name]))


def test_multimodal_decoder_is_no_seq2seq_model():
    with pytest.raises(ShrinkError, match="`task` must be given"):
        find_task(PretrainedConfig(architectures=["LlavaForConditionalGeneration"], is_encoder_decoder=False))


def test_subclass_is_found_by_its_parent():
    class MyClassifier(BertForSequenceClassification):
        pass

    config = tiny_bert_classifier().config
    assert find_task(MyClassifier(config)) == "single_label_classification"


def test_instance_tells_more_than_the_config_that_it_was_made_from():
    config = tiny_bert_classifier().config
    config.architectures = ["BertForMaskedLM"]
    assert find_task(BertForSequenceClassification(config)) == "single_label_classification"


def test_peft_adapter_is_looked_through():
    adapted = get_peft_model(tiny_bert_classifier(), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    assert find_task(adapted) == "single_label_classification"


def test_named_task_wins_and_is_checked():
    assert find_task(tiny_bert_classifier(), "multi_label_classification") == "multi_label_classification"
    with pytest.raises(ShrinkError, match="`task` must be one of .*'token_classification'.*, got 'ner'"):
        find_task(tiny_bert_classifier(), "ner")


def test_plain_module_is_refused():
    with pytest.raises(ShrinkError, match="`task` must be given.*Linear"):
        find_task(nn.Linear(2, 2))
    with torch.device("meta"), pytest.raises(ShrinkError, match="no class name"):
        find_task(BertConfig())
