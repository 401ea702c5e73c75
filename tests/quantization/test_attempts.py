"""quantize() with rows: what a backend gets, and how few modules it leaves in float."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import QUANTIZERS, attempts, export, quantization_sensitivity, quantize
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.job import Made
from hf_shrink.quantization.simulation import stored_weight
from hf_shrink.registry import Method
from tests.models import WORDS, tiny_bert_classifier, tiny_tokenizer
from tests.quantization.outliers import with_outliers
from tests.quantization.texts import TEXTS

BAD = "bert.encoder.layer.1.intermediate.dense"
NUMBERS = Format(bits=8, group_size=None, symmetric=True, embedding_bits=8, activations=None)
ROWS = Dataset.from_dict({"text": TEXTS * 8, "label": [0, 1, 2, 0] * 8})
UNLIKE = Dataset.from_dict({"text": [" ".join(WORDS[i : i + 3]) for i in range(18)]})

pytestmark = pytest.mark.filterwarnings("ignore:Calibration takes all")


class Rounding:
    """A quantizer in pure PyTorch: it rounds, and saves an ordinary model, so that no runtime is needed."""

    def __init__(self, **facts):
        self.jobs = []
        self.facts = {"format": NUMBERS, "calibrated": False, "libraries": (), "extra": "onnx", "stages": 1, **facts}
        self.facts["tasks"] = ("single_label_classification",)

    def __call__(self, job, *, size=1):
        self.jobs.append(job)
        job.step("round")
        model = type(job.model)(job.model.config)
        model.load_state_dict(job.model.state_dict())
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding) and name not in job.ignore:
                with torch.no_grad():
                    module.weight.copy_(stored_weight(module, self.facts["format"]))
        model.save_pretrained(job.folder)
        return Made({"options": {}}, model.eval())


@pytest.fixture
def quantizer(monkeypatch):
    """Registers `Rounding` for a test, and leaves the proof, which has tests of its own, out."""

    def make(**facts):
        rounding = Rounding(**facts)
        monkeypatch.setitem(QUANTIZERS._methods, "rounding", Method("rounding", rounding.__call__, "", rounding.facts))
        return rounding

    QUANTIZERS._load()
    monkeypatch.setattr(export, "prove", lambda *_: {})
    return make


def run(tmp_path, model=None, **options):
    model = tiny_bert_classifier(num_hidden_layers=2) if model is None else model
    return quantize(model, "rounding", output_dir=tmp_path / "out", processing_class=tiny_tokenizer(), **options)


def test_a_calibrated_method_gets_the_rows_and_others_do_not(quantizer, tmp_path):
    static = quantizer(calibrated=True)
    made = run(tmp_path, calibration_dataset=ROWS, calibration_size=10)
    (job,) = static.jobs
    assert sum(len(batch["input_ids"]) for batch in job.calibration) == 10
    assert all("labels" not in batch for batch in job.calibration)
    assert made.record["calibration"]["rows"] == 10
    assert made.record["calibration"]["fingerprint"]
    dynamic = quantizer(calibrated=False)
    shutil.rmtree(made.path)
    made = run(tmp_path, calibration_dataset=ROWS)
    assert dynamic.jobs[0].calibration == ()
    assert "calibration" not in made.record


def test_other_rows_make_another_recipe(quantizer, tmp_path):
    quantizer(calibrated=True)
    recipes = []
    for seed in (0, 0, 1):
        made = run(tmp_path, calibration_dataset=UNLIKE, calibration_size=4, seed=seed)
        recipes.append(made.record["recipe"])
        shutil.rmtree(made.path)
    assert recipes[0] == recipes[1] != recipes[2]


def test_the_module_with_outliers_stays_in_float_and_no_other(quantizer, tmp_path):
    rounding = quantizer()
    model = with_outliers(tiny_bert_classifier(num_hidden_layers=2), BAD, size=3000)
    made = run(tmp_path, model, evaluation_dataset=ROWS, metric="kl", max_drop=1e-3)
    assert made.record["ignore"] == [BAD]
    search = made.record["max_drop"]
    assert (search["met"], search["metric"], search["asked"], search["rows"]) == (True, "kl", 1e-3, len(ROWS))
    assert [trial["in_float"] for trial in search["trials"]] == [0, 1]
    assert search["trials"][0]["drop"] > 1e-3 >= search["drop"]
    assert [job.ignore for job in rounding.jobs] == [(), (BAD,)]
    assert {job.folder.parent for job in rounding.jobs} == {rounding.jobs[0].folder.parent}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # earlier attempts are gone


def test_what_the_user_keeps_in_float_stays_there(quantizer, tmp_path):
    rounding = quantizer()
    model = with_outliers(tiny_bert_classifier(num_hidden_layers=2), BAD, size=3000)
    mine = "bert.pooler.dense"
    made = run(tmp_path, model, evaluation_dataset=ROWS, metric="kl", max_drop=1e-3, ignore=[mine])
    assert made.record["ignore"] == sorted([BAD, mine])
    assert all(mine in job.ignore for job in rounding.jobs)
    assert made.record["max_drop"]["trials"][-1]["in_float"] == 1


def test_a_map_made_before_is_used(quantizer, tmp_path, monkeypatch):
    quantizer()
    model = with_outliers(tiny_bert_classifier(num_hidden_layers=2), BAD, size=3000)
    made = quantization_sensitivity(model, "rounding", ROWS, processing_class=tiny_tokenizer())
    file = made.to_json(tmp_path / "map.json")
    monkeypatch.setattr(attempts, "measure_sensitivity", lambda *_: pytest.fail("it was measured again"))
    for known in (made, file):
        found = run(tmp_path, model, evaluation_dataset=ROWS, metric="kl", max_drop=1e-3, sensitivity=known)
        assert found.record["ignore"] == [BAD]
        shutil.rmtree(found.path)
    for wrong, message in (
        ("map", "`path` must be a file"),
        (5, "`sensitivity` must be a SensitivityMap or its file, got int"),
        (
            replace(made, divergences={"encoder": 1.0}),
            "`sensitivity` must be a map of this model, but it names 'encoder'",
        ),
    ):
        with pytest.raises(ShrinkError, match=message):
            run(tmp_path, model, evaluation_dataset=ROWS, sensitivity=wrong)


def test_what_cannot_be_kept_is_saved_with_a_warning(quantizer, tmp_path):
    quantizer(format=Format(bits=2, group_size=None, symmetric=True, embedding_bits=2, activations=None))
    with pytest.warns(UserWarning, match=r"`max_drop` of 1e-06 was not kept: .* loses .* by kl on 32 rows"):
        made = run(tmp_path, evaluation_dataset=ROWS, metric="kl", max_drop=1e-6)
    search = made.record["max_drop"]
    assert search["met"] is False
    assert search["drop"] == min(trial["drop"] for trial in search["trials"])


def test_without_a_limit_the_drop_is_measured_and_recorded(quantizer, tmp_path):
    rounding = quantizer()
    made = run(tmp_path, evaluation_dataset=ROWS)
    search = made.record["max_drop"]
    assert (search["metric"], search["asked"], search["met"], len(rounding.jobs)) == ("agreement", None, None, 1)
    assert 0 <= search["drop"] < 0.1
    assert json.loads((made.path / "quantization.json").read_text()) == made.record


def test_a_drop_of_less_than_a_row_is_told(quantizer, tmp_path):
    quantizer()
    with pytest.warns(UserWarning, match="`max_drop` of 0.005 is less than one of the 32 rows"):
        run(tmp_path, evaluation_dataset=ROWS, max_drop=0.005)


def test_auto_tries_the_cheaper_bits_first(quantizer, tmp_path, monkeypatch):
    rounding = quantizer()
    coarse = Rounding(format=Format(bits=4, group_size=None, symmetric=True, embedding_bits=4, activations=None))
    monkeypatch.setitem(QUANTIZERS._methods, "rounding-4", Method("rounding-4", coarse.__call__, "", coarse.facts))
    monkeypatch.setattr(export, "choose_method", lambda *_, **__: type("P", (), {"method": "rounding", "reason": "r"}))
    monkeypatch.setattr("hf_shrink.quantization.automatic.usable_methods", lambda *_, **__: ["rounding", "rounding-4"])
    model = tiny_bert_classifier(num_hidden_layers=1)
    options = {"processing_class": tiny_tokenizer(), "evaluation_dataset": ROWS, "metric": "kl"}
    loose = quantize(model, "auto", output_dir=tmp_path / "loose", max_drop=1.0, **options)
    assert (loose.method, loose.record["chosen_because"], len(rounding.jobs)) == ("rounding-4", "r", 0)
    strict = quantize(model, "auto", output_dir=tmp_path / "strict", max_drop=1e-3, **options)
    assert strict.method == "rounding"
    assert strict.record["max_drop"]["trials"][0]["method"] == "rounding-4"


def test_goals_that_are_none_are_refused_before_any_work(quantizer, tmp_path, monkeypatch):
    quantizer(calibrated=True)
    monkeypatch.setattr(export, "to_float", lambda model: pytest.fail("it was copied"))
    for options, message in (
        ({"max_drop": 0.01}, "`evaluation_dataset` must be given with `max_drop`"),
        ({"metric": "kl"}, "`evaluation_dataset` must be given with `metric`"),
        ({"max_drop": -0.1, "evaluation_dataset": ROWS}, "`max_drop` must be at least 0, got -0.1"),
        ({"max_drop": float("nan"), "evaluation_dataset": ROWS}, "`max_drop` must be at least 0, got nan"),
        ({}, "`calibration_dataset` must be given for rounding"),
    ):
        with pytest.raises(ShrinkError, match=message):
            run(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_rows_that_cannot_be_read_are_refused_before_any_work(quantizer, tmp_path):
    rounding = quantizer(calibrated=True)
    for options, message in (
        ({"calibration_dataset": ROWS.select([])}, "`calibration_dataset` must hold at least 1 row"),
        ({"calibration_dataset": ROWS, "text_column": "body"}, "`text_column` must be one of"),
        ({"calibration_dataset": ROWS, "evaluation_dataset": ROWS, "metric": "mse"}, "`metric` must fit the task"),
    ):
        with pytest.raises(ShrinkError, match=message):
            run(tmp_path, **options)
    assert not rounding.jobs
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_int8_keeps_the_module_with_outliers_in_float(tmp_path):
    bad = "bert.encoder.layer.0.intermediate.dense"
    model = with_outliers(tiny_bert_classifier(num_hidden_layers=1), bad, size=3000)
    options = {"processing_class": tiny_tokenizer(), "evaluation_dataset": ROWS, "metric": "kl"}
    made = quantize(model, "onnx-int8", output_dir=tmp_path / "out", max_drop=5e-3, **options)
    search = made.record["max_drop"]
    assert search["met"]
    assert made.record["ignore"] == [bad]
    packed, spared = search["trials"]
    assert packed["drop"] > 5e-3 >= spared["drop"]
    assert packed["bytes"] < spared["bytes"]
    assert made.size_bytes == spared["bytes"]
