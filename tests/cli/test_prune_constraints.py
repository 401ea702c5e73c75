"""`hf-shrink prune --constraint`: a smaller shape without training, in which layouts, and what is refused."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_shrink.cli import prune_stages
from hf_shrink.cli.prune_settings import SEARCH_SIZE
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import prune
from tests.cli.distilling import report, save_rows, save_teacher, used
from tests.cli.test_distill import TASK_ROWS

HALF = ("--constraint", "macs=0.5")


# ---------------------------------------------------------------------- what comes of it
@pytest.mark.parametrize("structure", [None, "neurons"])
def test_the_command_prunes_as_the_function_does_and_stock_code_loads_it(
    pruned, run, tmp_path, teacher, rows, structure
):
    limits = ("--constraint", "macs=0.65", "--constraint", "parameters=30000")
    said = pruned(*limits, "--seed", 7, *(("--structure", structure) if structure else ()))
    settings = {"constraints": {"macs": 0.65, "parameters": 30000}, "structure": structure, "seed": 7}
    more = {"split": "train", "calibration_size": SEARCH_SIZE}
    expected = prune(str(teacher), calibration_dataset=str(rows), **settings, **more)
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert all(torch.equal(found.state_dict()[name], value) for name, value in expected.state_dict().items())
    assert found.num_parameters() <= 30000
    original, shrunk = report(tmp_path / "out")["entries"]
    assert shrunk["macs"] < 0.7 * original["macs"]  # counted on rows of another length
    layers, width = found.config.num_hidden_layers, found.config.intermediate_size
    notes = [f"encoder layers from 4 to {layers}"] if layers < 4 else []
    notes += [f"`intermediate_size` from 64 to {width}"] if width < 64 else []
    assert f"Cut: {', '.join(notes)}." in said
    assert used(tmp_path / "out")["options"] == {
        **settings,
        "structure": structure or "layers,neurons",
        "method": "fisher",
        "reconstruct": True,
        "layout": "native",
        "calibration_size": 8,
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Structured pruning** (`fisher`, [arXiv:2204.09656]" in card
    assert f"Cut: {', '.join(notes)}." in card
    assert not run.trainers


def test_every_setting_arrives_also_from_a_file(pruned, monkeypatch, tmp_path):
    settings = {"constraint": {"macs": 0.6, "size_mb": 0.1}, "method": "magnitude", "structure": "neurons"}
    settings |= {"uniform": False, "reconstruct": False, "sequence-length": 9, "calibration_size": 3}
    (tmp_path / "c.yaml").write_text(json.dumps(settings))
    given = {}
    monkeypatch.setattr(prune_stages, "prune", lambda model, **options: given.update(options) or model)
    pruned("--config", tmp_path / "c.yaml")
    expected = {"constraints": {"macs": 0.6, "size_mb": 0.1}, "method": "magnitude", "structure": ["neurons"]}
    expected |= {"uniform": False, "reconstruct": False, "sequence_length": 9, "calibration_size": 3, "seed": 42}
    assert {name: given[name] for name in expected} == expected


def test_heads_go_where_a_stock_model_can_lose_them(run, tmp_path):
    model = save_teacher(tmp_path / "model", "causal_lm")
    rows = save_rows(tmp_path / "rows", **TASK_ROWS["causal_lm"])
    settings = ("--output-dir", tmp_path / "out", "--constraint", "macs=0.9", "--structure", "heads")
    done = run("prune", "--model", model, "--dataset", rows, *settings)
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (2, 1, 64)
    assert "`num_attention_heads` from 4 to 2, `num_key_value_heads` from 2 to 1." in done.output
    assert used(tmp_path / "out")["options"]["structure"] == "heads"


@pytest.mark.parametrize("layout", ["pad", "remote"])
def test_layers_of_their_own_width_are_saved_in_a_layout(pruned, tmp_path, layout):
    said = pruned(*HALF, "--no-uniform", "--layout", layout, "--structure", "heads,neurons")
    loads = {"trust_remote_code": True} if layout == "remote" else {}
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", **loads)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("card")["input_ids"]
    assert "FFN units of all layers left from 256 to" in said
    assert f"Layout {layout}: " in said
    assert ("trust_remote_code" in said) == (layout == "remote")
    assert used(tmp_path / "out")["options"]["layout"] == layout
    assert used(tmp_path / "out")["options"]["uniform"] is False
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("from_pretrained(source, trust_remote_code=True)" in card) == (layout == "remote")
    shrunk = report(tmp_path / "out")["entries"][1]
    assert shrunk["parameters"] == found.num_parameters()
    assert shrunk["value"] is not None


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--sparsity", "0.5"), "`sparsity` must be left out with --constraint"),
        (("--scope", "local"), "`scope` must be left out with --constraint"),
        (("--max-module-sparsity", "0.9"), "`max_module_sparsity` must be left out with --constraint"),
        (("--targets", "Linear"), "`targets` must be left out with --constraint"),
        (("--ignore", "Linear"), "`ignore` must be left out with --constraint"),
        (("--train",), "`train` must be left out with --constraint"),
        (("--train", "--teacher", "x"), "`train` must be left out with --constraint"),
        (("--teacher", "x"), "`teacher` must be left out with --constraint"),
        (("--schedule", "linear"), "`schedule` must be left out with --constraint"),
        (("--learning-rate", "0.1"), "`learning_rate` must be left out with --constraint"),
        (("--structure", "2:4"), "`structure` must be some of layers, heads, neurons"),
        (("--method", "movement"), "`method` must be one that needs no training"),
        (("--method", "sparsegpt"), "`method` must be one that tells what heads and neurons are worth"),
        (("--method", "magnitud"), "Did you mean 'magnitude'"),
        (("--layout", "pad"), "`layout` must be left out without --no-uniform"),
        (("--layout", "padded", "--no-uniform"), "`layout` must be one of auto, native, pad, remote"),
        (("--constraint", "mac=0.5"), "`constraints` must name some of macs"),
        (("--constraint", "macs=1.5"), "`constraints` must hold a share in"),
        (("--constraint", "macs=half"), "`constraints` must hold numbers above 0, got 'half'"),
        (
            ("--constraint", "0.5"),
            "`--constraint` must be NAME=VALUE, got '0.5'. Write for instance --constraint macs",
        ),
    ],
)
def test_what_does_not_go_with_constraints_is_refused_before_anything_is_loaded(
    pruned, tmp_path, monkeypatch, more, message
):
    monkeypatch.setattr(prune_stages, "load_rows", None)
    with pytest.raises(ShrinkError, match=message):
        pruned(*HALF, *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("--no-uniform",), "uniform"),
        (("--no-reconstruct",), "reconstruct"),
        (("--sequence-length", "9"), "sequence_length"),
        (("--layout", "pad"), "layout"),
    ],
)
def test_what_goes_with_constraints_alone_is_refused_without(pruned, monkeypatch, more, name):
    monkeypatch.setattr(prune_stages, "load_rows", None)
    with pytest.raises(ShrinkError, match=f"`{name}` must be left out without constraints"):
        pruned("--sparsity", 0.5, *more)


def test_a_constraint_out_of_reach_leaves_nothing_behind(pruned, tmp_path):
    with pytest.raises(ShrinkError, match="`constraints` must be within reach"):
        pruned("--constraint", "macs=0.001")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- what there is to choose
def test_layouts_are_explained_without_data(run, teacher):
    done = run("prune", "--model", teacher, "--explain")
    assert all(f"| `{layout}` | yes |" in done.output for layout in ("native", "pad", "remote"))


@pytest.mark.parametrize("given", ["--dataset", "--output-dir"])
def test_without_explain_all_three_are_needed(run, teacher, given):
    missing = {"--dataset": "--output-dir", "--output-dir": "--dataset"}[given]
    done = run("prune", "--model", teacher, given, "x", "--sparsity", 0.5)
    assert done.exit_code == 2
    assert f"Invalid value for {missing}: must be given" in " ".join(done.stderr.replace("│", "").split())
