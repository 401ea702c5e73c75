import pytest
from transformers import AutoConfig, GenerationConfig

from hf_shrink.pruning.vocabulary.token_ids import configs_of, needed_ids, renumber
from tests.architectures.models import tiny_model

NEW = {0: 0, 4: 1, 7: 2, 9: 3}


def generation(**fields):
    config = GenerationConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("pad_token_id", 4, 1),
        ("pad_token_id", 50256, None),  # a default of the class, beyond any row
        ("pad_token_id", -1, -1),
        ("eos_token_id", [7, 9], [2, 3]),
        ("eos_token_id", [7, 50256], [2]),
        ("decoder_start_token_id", 0, 0),
        ("forced_bos_token_id", 9, 3),
        ("forced_decoder_ids", [[1, 9], [2, None]], [[1, 3], [2, None]]),
        ("suppress_tokens", [4, 5, 6, 7], [1, 2]),
        ("begin_suppress_tokens", [5, 6], None),
        ("bad_words_ids", [[4, 7], [4, 5], [9]], [[1, 2], [3]]),
        ("sequence_bias", [[[4, 9], 2.0], [[5], 1.0]], [[[1, 3], 2.0]]),
        ("lang_to_id", {"<|en|>": 7}, {"<|en|>": 2}),
    ],
)
def test_ids_follow(field, old, new):
    config = generation(**{field: old})
    renumber(config, NEW)
    assert vars(config)[field] == new


def test_what_must_stay():
    config = generation(
        eos_token_id=[7, 9], suppress_tokens=[5], bad_words_ids=[[6]], forced_decoder_ids=[[1, 4]], pad_token_id=-1
    )
    assert needed_ids([config]) == {7, 9, 4}


def test_settings_of_tasks():
    config = AutoConfig.for_model("bert", pad_token_id=0)
    config.task_specific_params = {"summary": {"bad_words_ids": [[4]], "eos_token_id": 9, "num_beams": 4}}
    assert {0, 9} <= needed_ids([config])
    renumber(config, NEW)
    assert config.task_specific_params == {"summary": {"bad_words_ids": [[1]], "eos_token_id": 3, "num_beams": 4}}


def test_all_configs_of_a_model():
    model = tiny_model("t5")
    found = configs_of(model)
    assert {id(model.config), id(model.generation_config), id(model.encoder.config)} <= {id(c) for c in found}
