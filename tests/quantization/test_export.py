import subprocess
import sys

import numpy as np
import pytest
import torch

import hf_shrink.quantization.export as export
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import size_on_disk
from hf_shrink.quantization import QUANTIZERS, QuantizedArtifact, quantize
from tests.models import tiny_bert_classifier, tiny_tokenizer

TEXTS = ["my card is lost", "help", "where is the money please", "top up failed with pending cash transfer"]


def real_proportions(**config):
    """Embeddings are half of the weights, as in MiniLM, so a table left in float shows in the size."""
    return tiny_bert_classifier(vocab_size=30000, hidden_size=64, intermediate_size=256, num_hidden_layers=4, **config)


def inputs():
    return tiny_tokenizer()(TEXTS, padding=True, return_tensors="pt")


def logits(model, **batch):
    with torch.no_grad():
        return model(**(batch or inputs())).logits


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "model"
    return quantize(real_proportions(), "onnx-int8", output_dir=folder, processing_class=tiny_tokenizer())


@pytest.mark.parametrize("method", list(QUANTIZERS))
def test_contract_every_quantizer_names_its_source_and_its_extra(method):
    entry = QUANTIZERS[method]
    assert entry.paper.startswith(("arXiv:", "https://"))
    assert entry.summary.endswith(".")
    assert entry.facts["extra"]


@pytest.mark.parametrize("method", list(QUANTIZERS))
def test_contract_every_quantizer_keeps_the_answers_and_saves_bytes(method, tmp_path):
    model = real_proportions()
    model.save_pretrained(tmp_path / "float")
    made = quantize(tmp_path / "float", method, output_dir=tmp_path / "small", processing_class=tiny_tokenizer())
    float_logits, small_logits = logits(model), logits(made.load())
    assert (float_logits.argmax(-1) == small_logits.argmax(-1)).all()
    assert (float_logits - small_logits).abs().max() < 0.1 * float_logits.abs().max()
    assert not torch.equal(float_logits, small_logits)  # a float copy under another name would be
    assert made.size_bytes < 0.35 * size_on_disk(tmp_path / "float")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("shape", [(1, 3), (2, 16), (5, 31)])
def test_batch_and_length_are_free(artifact, shape):
    ids = torch.randint(5, 20, shape, generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected, answer = logits(real_proportions(), **batch), logits(artifact.load(), **batch)
    assert answer.shape == (shape[0], 3)
    assert (expected - answer).abs().max() < 0.25 * expected.abs().max()


def test_padding_does_not_change_an_answer(artifact):
    model = artifact.load()
    alone = tiny_tokenizer()(TEXTS[:1], return_tensors="pt")
    # activations are quantized with one range a batch, so the answers are near, not equal
    assert (logits(model, **alone)[0] - logits(model)[0]).abs().max() < 0.2


def test_dropout_is_off_in_the_graph_of_a_training_model(tmp_path):
    model = real_proportions().train()
    made = quantize(model, "onnx-int8", output_dir=tmp_path / "out")
    assert torch.equal(logits(made.load()), logits(made.load()))
    assert (logits(made.load()) - logits(model.eval())).abs().max() < 0.1 * logits(model).abs().max()


def test_a_half_precision_model_is_exported_in_fp32(tmp_path):
    model = real_proportions()
    half = real_proportions().to(torch.bfloat16)
    made = quantize(half, "onnx-int8", output_dir=tmp_path / "out")
    assert next(half.parameters()).dtype == torch.bfloat16  # the caller's model is left as it is
    assert (logits(made.load()).argmax(-1) == logits(model).argmax(-1)).all()


def test_it_is_found_again(artifact):
    again = QuantizedArtifact.from_pretrained(artifact.path)
    assert (again.method, again.source, again.size_bytes) == ("onnx-int8", artifact.source, artifact.size_bytes)
    assert torch.equal(logits(again.load()), logits(artifact.load()))


STOCK = """
import sys
import numpy as np
import onnxruntime
from transformers import AutoTokenizer
folder, text = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(folder)([text], return_tensors="np")
session = onnxruntime.InferenceSession(folder + "/model.onnx")
names = [node.name for node in session.get_inputs()]
feed = {name: batch.get(name, np.zeros_like(batch["input_ids"])).astype(np.int64) for name in names}
try:
    from optimum.onnxruntime import ORTModelForSequenceClassification
except ImportError:
    ORTModelForSequenceClassification = None
answer = session.run(None, feed)[0]
if ORTModelForSequenceClassification is not None:
    stock = ORTModelForSequenceClassification.from_pretrained(folder)
    assert np.allclose(stock(**{k: v for k, v in feed.items()}).logits, answer, atol=1e-5)
assert not [name for name in sys.modules if name.startswith("hf_shrink")]
print(*answer[0])
"""


def test_the_runtimes_own_classes_load_it_without_us(artifact, tmp_path):
    command = [sys.executable, "-c", STOCK, str(artifact.path), TEXTS[0]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = tiny_tokenizer()(TEXTS[:1], return_tensors="pt")
    expected = logits(artifact.load(), **alone)[0]
    np.testing.assert_allclose([float(x) for x in done.stdout.split()], expected, atol=1e-5)


def refuse(match, **changes):
    given = {"model": tiny_bert_classifier(), "method": "onnx-int8", "processing_class": tiny_tokenizer(), **changes}
    with pytest.raises(ShrinkError, match=match):
        quantize(given.pop("model"), **given)


def test_bad_input_is_refused_and_nothing_is_written(tmp_path, artifact):
    target = tmp_path / "out"
    refuse("`method`", method="onnx-int9", output_dir=target)
    refuse("`task`", task="causal_lm", output_dir=target)
    refuse("float", model=artifact.path, output_dir=target)
    assert not list(tmp_path.iterdir())
    target.mkdir()
    (target / "mine.txt").write_text("keep me")
    refuse("`output_dir`", output_dir=target)
    assert [path.name for path in target.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(artifact):
        raise ShrinkError("`model` must answer.")

    monkeypatch.setattr(export, "_prove", fail)
    refuse("must answer", output_dir=tmp_path / "out")
    assert not list(tmp_path.iterdir())
