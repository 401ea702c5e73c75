import json
import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import hf_shrink.quantization.export as export
from hf_shrink.errors import MissingExtraError, ShrinkError
from hf_shrink.evaluation import size_on_disk
from hf_shrink.inputs import find_task
from hf_shrink.inputs.tasks import TASKS
from hf_shrink.quantization import QUANTIZERS, quantize
from hf_shrink.quantization.automatic import Preference, usable_methods
from hf_shrink.quantization.job import Made
from hf_shrink.quantization.predicted_size import predict_bytes
from hf_shrink.registry import Method
from tests.models import randomize, tiny_bert_classifier, tiny_tokenizer
from tests.quantization.texts import TEXTS, inputs, logits, real_proportions
from tests.stock import run_stock

SMALL = {"num_hidden_layers": 1}  # an export takes seconds, most of them for layers


@pytest.mark.parametrize("method", list(QUANTIZERS))
def test_contract_every_quantizer_names_its_source_and_its_extra(method):
    entry = QUANTIZERS[method]
    assert entry.paper.startswith(("arXiv:", "https://"))
    assert entry.summary.endswith(".")
    assert entry.facts["extra"] != ""  # None comes with the project
    assert entry.facts["libraries"]
    assert entry.facts["stages"] >= 1
    assert entry.facts["format"].bits in (2, 4, 8)
    assert entry.facts["calibrated"] == (entry.facts["format"].activations == "static") or entry.facts["calibrated"]
    assert set(entry.facts["tasks"]) <= set(TASKS)


@pytest.mark.parametrize("method", usable_methods("single_label_classification"))
def test_contract_every_quantizer_keeps_the_answers_and_saves_bytes(method, artifact, model, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a user's process; pytest has put its own there
    numbers = QUANTIZERS[method].facts["format"]
    if numbers.bits < 8:  # random weights have no room to spare: what two layers of few levels say is chance
        model = real_proportions(num_hidden_layers=1)
    reads = (
        {"calibration_dataset": Dataset.from_dict({"text": TEXTS})} if QUANTIZERS[method].facts["calibrated"] else {}
    )
    options = {"processing_class": tiny_tokenizer(), **reads}
    made = artifact if method == artifact.method else quantize(model, method, output_dir=tmp_path / "small", **options)
    model.save_pretrained(tmp_path / "float")
    before, after = logits(model), logits(made.load()).float()
    assert (before.argmax(-1) == after.argmax(-1)).all()
    assert (before - after).abs().max() < (0.1 if numbers.bits == 8 else 0.4) * before.abs().max()
    assert not torch.equal(before, after)  # a float copy under another name would be
    assert made.size_bytes < (0.3 if numbers.embedding_bits <= 8 else 0.55) * size_on_disk(tmp_path / "float")
    assert predict_bytes(model, numbers) == pytest.approx(made.size_bytes, rel=0.15)
    assert logging.getLogger().handlers == []


@pytest.mark.parametrize("shape", [(1, 3), (2, 16), (5, 31)])
def test_batch_and_length_are_free(artifact, model, shape):
    ids = torch.randint(5, 20, shape, generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected, answer = logits(model, **batch), logits(artifact.load(), **batch)
    assert answer.shape == (shape[0], 3)
    assert (expected - answer).abs().max() < 0.1 * expected.abs().max()


def test_the_folder_says_how_it_was_made_and_nothing_of_the_machine(artifact):
    record = json.loads((artifact.path / "quantization.json").read_text())
    assert record == artifact.record
    assert (record["method"], record["source"]) == ("onnx-int8", "BertForSequenceClassification")
    assert record["task"] == "single_label_classification"
    assert record["options"]["per_channel"] is True
    assert record["proof"]["agreement"] >= 0.9
    assert 0 < record["proof"]["relative_error"] < 0.2
    assert record["versions"]["torch"] == torch.__version__
    packages = Path(torch.__file__).parents[1]
    for path in artifact.path.iterdir():
        content = path.read_bytes()
        for place in (packages, artifact.path.parent, Path(__file__).parents[2]):
            assert str(place).encode() not in content, path.name


def test_only_what_belongs_there_is_written(artifact):
    names = {path.name for path in artifact.path.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "quantization.json"} <= names
    assert names <= {
        "model.onnx",
        "config.json",
        "quantization.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert [path.name for path in artifact.path.parent.iterdir()] == [artifact.path.name]
    assert find_task(artifact.load()) == "single_label_classification"


def test_mode_and_dtype_of_an_instance_do_not_matter_and_stay(tmp_path):
    training = tiny_bert_classifier(**SMALL).to(torch.bfloat16)
    evaluated = tiny_bert_classifier(**SMALL).to(torch.bfloat16)
    training.train()
    config, attention, generator = (
        training.config.to_dict(),
        training.config._attn_implementation,
        torch.get_rng_state(),
    )
    made = quantize(training, output_dir=tmp_path / "a", processing_class=tiny_tokenizer())
    again = quantize(evaluated, output_dir=tmp_path / "b")
    # Dropout in the graph, or numbers that differ from run to run, would show in the bytes.
    assert (made.path / "model.onnx").read_bytes() == (again.path / "model.onnx").read_bytes()
    assert training.training
    assert training.dtype == torch.bfloat16
    assert training.config.to_dict() == config
    assert training.config._attn_implementation == attention
    assert torch.equal(generator, torch.get_rng_state())
    loaded = made.load()
    assert loaded.config.dtype == torch.float32
    assert logits(loaded).dtype == torch.float32
    expected = logits(evaluated.float())
    assert (logits(loaded) - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_family_without_token_types_and_with_shifted_positions(tmp_path):
    config = RobertaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    made = quantize(randomize(RobertaForSequenceClassification(config)), output_dir=tmp_path / "out")
    assert [node.name for node in made.load().session.get_inputs()] == ["input_ids", "attention_mask"]
    assert made.record["proof"]["agreement"] >= 0.9


@pytest.fixture
def copied(artifact):
    """A method that costs no export, for all that does not depend on one."""

    def copied(job):
        job.step("copy")
        (job.folder / "model.onnx").write_bytes((artifact.path / "model.onnx").read_bytes())
        return Made({"options": {"bits": 8}})

    return copied


def test_a_function_serves_as_method(model, copied, tmp_path):
    made = quantize(model, copied, output_dir=tmp_path / "out")
    assert (made.method, made.record["options"]) == ("copied", {"bits": 8})


def test_auto_says_what_it_chose_and_why(model, copied, tmp_path, monkeypatch):
    chosen = Preference("onnx-int8", "it is fast")
    monkeypatch.setattr(export, "choose_method", lambda task, calibrated: chosen)
    monkeypatch.setattr(export, "_resolve", lambda method, options: Method(method, copied, ""))
    made = quantize(model, "auto", output_dir=tmp_path / "out")
    assert (made.method, made.record["chosen_because"]) == ("onnx-int8", "it is fast")


def test_a_folder_brings_its_tokenizer_and_a_stated_task_stays(model, copied, tmp_path):
    model.save_pretrained(tmp_path / "tickets")
    tiny_tokenizer().save_pretrained(tmp_path / "tickets")
    target = tmp_path / "new" / "small"
    made = quantize(tmp_path / "tickets", copied, output_dir=target, task="multi_label_classification")
    assert made.path == target
    assert made.source == "tickets"
    assert AutoTokenizer.from_pretrained(target)("my card")["input_ids"] == [2, 5, 6, 3]
    assert find_task(made.load()) == made.record["task"] == "multi_label_classification"


def test_a_folder_without_tokenizer_is_told_and_an_empty_target_is_taken(model, copied, tmp_path):
    model.save_pretrained(tmp_path / "tickets")
    (tmp_path / "out").mkdir()
    with pytest.warns(UserWarning, match="saved without a tokenizer"):
        made = quantize(str(tmp_path / "tickets"), copied, output_dir=str(tmp_path / "out"))
    assert {path.name for path in made.path.iterdir()} == {"model.onnx", "config.json", "quantization.json"}


def test_nothing_is_printed_but_one_bar(tmp_path, capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(tiny_bert_classifier(**SMALL), output_dir=tmp_path / "out")
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip()]
    assert all(line.startswith(("onnx-int8: ", " |")) for line in lines), err
    assert lines[-1].startswith("onnx-int8: done")
    assert "3/3" in lines[-1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ------------------------------------------------------------------ the runtimes' own classes, without hf_shrink
STOCK = """
import json
import numpy as np
import onnxruntime
from transformers import AutoTokenizer
folder, text, stock_class = sys.argv[1:]
batch = dict(AutoTokenizer.from_pretrained(folder)([text], return_tensors="np"))
session = onnxruntime.InferenceSession(folder + "/model.onnx")
feed = {node.name: batch.get(node.name, np.zeros_like(batch["input_ids"])) for node in session.get_inputs()}
answers = session.run(None, feed)
if stock_class:
    import optimum.onnxruntime
    stock = getattr(optimum.onnxruntime, stock_class).from_pretrained(folder)(**feed)
    for node, answer in zip(session.get_outputs(), answers):
        assert np.allclose(stock[node.name], answer, atol=1e-5), node.name
print(json.dumps([answer.tolist() for answer in answers]))
"""


def ask_stock(folder, stock_class, cwd):
    stock_class = stock_class if find_spec("optimum.onnxruntime") else ""
    return [np.array(answer) for answer in run_stock(STOCK, str(folder), TEXTS[0], stock_class, cwd=cwd)]


def test_sequence_classifier_loads_without_us(artifact, tmp_path):
    (answer,) = ask_stock(artifact.path, "ORTModelForSequenceClassification", tmp_path)
    np.testing.assert_allclose(answer, logits(artifact.load(), **inputs(TEXTS[:1])), atol=1e-5)


@pytest.mark.parametrize("head", [AutoModelForTokenClassification, AutoModelForQuestionAnswering])
def test_other_heads_load_without_us(head, tmp_path):
    config = BertConfig(
        vocab_size=len(tiny_tokenizer()), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = randomize(head.from_config(config))
    made = quantize(model, output_dir=tmp_path / "out", processing_class=tiny_tokenizer())
    answers = ask_stock(made.path, head.__name__.replace("Auto", "ORT"), tmp_path)
    with torch.no_grad():
        expected = model(**inputs(TEXTS[:1]))
    assert len(answers) == len(expected)
    for answer, right in zip(answers, expected.values(), strict=True):
        assert answer.shape == right.shape
        assert np.abs(answer - right.numpy()).max() < 0.15 * right.abs().max()


# ------------------------------------------------------------------ what is refused
def refuse(match, model=None, method="onnx-int8", error=ShrinkError, **given):
    with pytest.raises(error, match=match):
        quantize(tiny_bert_classifier(**SMALL) if model is None else model, method, **given)


def quantized_already():
    model = tiny_bert_classifier(**SMALL)
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    return model


def packed_weights():
    model = tiny_bert_classifier(**SMALL)
    model.classifier.weight = torch.nn.Parameter(torch.zeros(3, 32, dtype=torch.int8), requires_grad=False)
    return model


def adapted():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(tiny_bert_classifier(**SMALL), LoraConfig(target_modules=["query"]))


def test_bad_input_is_refused_before_any_work(tmp_path, artifact, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: pytest.fail("it was exported"))
    target = tmp_path / "new" / "out"
    refuse(
        r"`method` must be one of \[.*'onnx-int8'.*\], got 'onnx-int9'. Did you mean",
        method="onnx-int9",
        output_dir=target,
    )
    refuse("`task` must be one of .* for onnx-int8, got 'seq2seq_lm'", task="seq2seq_lm", output_dir=target)
    refuse("`bits` must be an argument of quantize.* or an option of onnx-int8", bits=4, output_dir=target)
    refuse(
        "`ignore` must list modules with weights .*, got 'bert.embedding'",
        ignore=["bert.embedding"],
        output_dir=target,
    )
    refuse("`ignore` must list modules with weights .*, got 'classifier'", ignore="classifier", output_dir=target)
    refuse("`task` must be one of .*, got 'sorting'", task="sorting", output_dir=target)
    refuse("`model` must be a float transformers model, got OnnxModel", model=artifact.path, output_dir=target)
    refuse("`model` must be a float transformers model, got Linear", model=torch.nn.Linear(2, 2), output_dir=target)
    refuse("`model` must be a float model, .* quantized already", model=quantized_already(), output_dir=target)
    refuse("`model` must be a float model, .* quantized already", model=packed_weights(), output_dir=target)
    refuse(r"`model` must be whole.*merge_and_unload\(\)", model=adapted(), output_dir=target)
    refuse("`model` must be a folder or a Hub id", model=tmp_path / "nowhere", output_dir=target)
    refuse("`processing_class` must be a tokenizer or processor, got str", processing_class="bert", output_dir=target)
    assert not list(tmp_path.iterdir())


def test_a_target_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    refuse("`output_dir` must be new or empty", output_dir=tmp_path)
    refuse("`output_dir` must be new or empty", output_dir=tmp_path / "mine.txt")
    refuse("`output_dir` must lie where one can write", output_dir=tmp_path / "mine.txt" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize("library", QUANTIZERS["onnx-int8"].facts["libraries"])
def test_a_missing_library_is_named_before_any_work(library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(export, "load_model", lambda *a, **k: pytest.fail("the model was loaded"))
    refuse(
        rf'`{library}` is not installed.*pip install "hf_shrink\[onnx\]"',
        error=MissingExtraError,
        output_dir=tmp_path / "o",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ShrinkError("`model` must answer."), KeyboardInterrupt(), OSError("disk full")])
def test_a_failure_leaves_nothing_behind(error, tmp_path):
    def half_done(job):
        job.step("copy")
        (job.folder / "model.onnx").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        quantize(tiny_bert_classifier(**SMALL), half_done, output_dir=tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())


def test_without_proof_there_is_no_artifact(copied, tmp_path):
    another = real_proportions(seed=1)
    refuse("`model` must answer as before", model=another, method=copied, output_dir=tmp_path / "out")
    assert not list(tmp_path.iterdir())
