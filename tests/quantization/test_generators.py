"""What every quantizer of language models must do: answer, go on from a cache, and serve `generate` and a pipeline."""

import inspect

import pytest
import torch
from datasets import Dataset
from transformers import pipeline

from hf_shrink.quantization import QUANTIZERS, quantize
from hf_shrink.quantization.automatic import usable_methods
from tests.architectures.models import tiny_model
from tests.models import WORDS, tiny_tokenizer

TEXTS = [" ".join(WORDS[i : i + 7]) for i in range(12)]


def language_model(layers):
    widths = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "vocab_size": 64}
    return tiny_model("llama", num_hidden_layers=layers, tie_word_embeddings=True, **widths)


@pytest.mark.slow
@pytest.mark.parametrize("method", usable_methods("causal_lm"))
def test_contract_every_quantizer_of_language_models_generates(method, tmp_path):
    tokenizer, bits = tiny_tokenizer(), QUANTIZERS[method].facts["format"].bits
    model = language_model(layers=2 if bits == 8 else 1)  # random weights have no room to spare for few levels
    rows = (
        {"calibration_dataset": Dataset.from_dict({"text": TEXTS})} if QUANTIZERS[method].facts["calibrated"] else {}
    )
    made = quantize(model, method, output_dir=tmp_path / "small", processing_class=tokenizer, **rows)
    assert made.record["proof"]["reload_difference"] <= 1e-2
    loaded = made.load()
    batch = tokenizer(TEXTS[:3], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        expected, found = model(**batch).logits, loaded(**batch).logits.float()
        half = loaded(**{name: values[:, :4] for name, values in batch.items()})
        rest = loaded(
            input_ids=batch["input_ids"][:, 4:],
            attention_mask=batch["attention_mask"],
            past_key_values=half.past_key_values,
        )
    error = (0.15 if bits == 8 else 0.5) * expected.norm()
    assert 0 < (found - expected).norm() < error
    assert (rest.logits.float() - expected[:, 4:]).norm() < error
    tokens = loaded.generate(**batch, min_new_tokens=5, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert torch.equal(tokens[:, : batch["input_ids"].shape[1]], batch["input_ids"])
    assert tokens.shape[1] == batch["input_ids"].shape[1] + 5
    (told,) = generator(loaded, tokenizer)(TEXTS[0], max_new_tokens=4, do_sample=False)
    assert told["generated_text"].startswith("my card")


def generator(model, tokenizer):
    """A pipeline; transformers 4 asks for the framework where it cannot see it by the model's class."""
    framework = {"framework": "pt"} if "framework" in inspect.signature(pipeline).parameters else {}
    return pipeline("text-generation", model=model, tokenizer=tokenizer, **framework)
