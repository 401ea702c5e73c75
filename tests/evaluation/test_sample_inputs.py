import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    RobertaConfig,
    T5Config,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from hf_shrink.evaluation.sample_inputs import clip_length, main_input, sample_inputs
from hf_shrink.inputs.positions import max_positions
from tests.evaluation.builders import classifier, tiny_gpt2


def test_same_shape_same_inputs_without_special_ids():
    model = classifier()
    first, second = (sample_inputs(model, batch_size=3, sequence_length=40) for _ in range(2))
    assert first["input_ids"].shape == first["attention_mask"].shape == (3, 40)
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert (first["input_ids"] != model.config.pad_token_id).all()
    assert first["input_ids"].max() < model.config.vocab_size


def test_length_is_cut_to_the_positions():
    assert sample_inputs(classifier(), sequence_length=500)["input_ids"].shape == (1, 64)
    assert clip_length(tiny_gpt2(), 500) == 64
    assert clip_length(tiny_gpt2(), 8) == 8
    assert max_positions(T5Config()) is None


def test_roberta_has_fewer_positions_than_rows_in_its_table():
    config = RobertaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
        pad_token_id=1,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    assert max_positions(config) == 32
    model(**sample_inputs(model, sequence_length=100))  # 33 tokens would be out of the table
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 33), 5))


def test_sound_models_get_a_spectrogram():
    config = WhisperConfig(
        vocab_size=60,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=10,
        num_mel_bins=8,
        decoder_start_token_id=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = WhisperForConditionalGeneration(config).eval()
    assert main_input(model) == "input_features"
    assert model(**sample_inputs(model, batch_size=2)).logits.shape == (2, 1, 60)
