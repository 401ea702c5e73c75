"""What the column "current" writes, read by Optimum's classes in the column "optimum".

`.ci/run` names the other column's Python by CURRENT_COLUMN_PYTHON; where it does, nothing here is left out.
"""

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from hf_shrink.hub.usage import is_onnx
from hf_shrink.quantization import QUANTIZERS
from tests.quantization.texts import inputs

OTHER = os.environ.get("CURRENT_COLUMN_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("optimum.onnxruntime") is None, reason="this is not the column that reads"),
    pytest.mark.skipif(OTHER is None, reason="CURRENT_COLUMN_PYTHON does not name the column that writes"),
]
METHODS = [name for name in QUANTIZERS if is_onnx(name) and QUANTIZERS[name].facts["extra"] == "onnx"]
KINDS = {"classifier": "ORTModelForSequenceClassification", "language model": "ORTModelForCausalLM"}
WRITE = """
import json, sys
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from hf_shrink import quantize
from hf_shrink.quantization import QUANTIZERS
from tests.models import randomize, tiny_bert_classifier, tiny_tokenizer
from tests.quantization.texts import TEXTS, inputs

folder, *methods = sys.argv[1:]
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=25, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=64, max_position_embeddings=256, initializer_range=0.1, bos_token_id=2, eos_token_id=3,
    pad_token_id=0,
)
small = tiny_bert_classifier(num_hidden_layers=1)
models = {"classifier": small, "language model": randomize(LlamaForCausalLM(config))}
rows = Dataset.from_dict({"text": TEXTS})
answers = {}
for kind, model in models.items():
    for method in methods:
        reads = {"calibration_dataset": rows, "calibration_size": 4} if QUANTIZERS[method].facts["calibrated"] else {}
        target = f"{folder}/{method} {kind}"
        made = quantize(model, method, output_dir=target, processing_class=tiny_tokenizer(), **reads)
        loaded, row = made.load(), inputs(TEXTS[:1])
        answers[f"{method} {kind}"] = {"logits": loaded(**row).logits.tolist()}
        if kind == "language model":
            tokens = loaded.generate(row["input_ids"], max_new_tokens=8, do_sample=False, eos_token_id=None)
            answers[f"{method} {kind}"]["tokens"] = tokens.tolist()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Where the folders are, and what their models answered there."""
    folder = tmp_path_factory.mktemp("written")
    done = subprocess.run(
        [str(OTHER), "-c", WRITE, str(folder), *METHODS],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_optimum_reads_what_the_other_column_wrote(written, method, kind):
    import optimum.onnxruntime

    folder, answers = written
    expected = answers[f"{method} {kind}"]
    model = getattr(optimum.onnxruntime, KINDS[kind]).from_pretrained(folder / f"{method} {kind}")
    row = inputs(["my card is lost"])
    row = row if kind == "classifier" else {name: row[name] for name in ("input_ids", "attention_mask")}
    logits = torch.tensor(expected["logits"])
    torch.testing.assert_close(model(**row).logits, logits, atol=1e-4 * float(logits.abs().max()), rtol=0)
    if kind == "language model":
        tokens = model.generate(**row, max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert tokens.tolist() == expected["tokens"]
