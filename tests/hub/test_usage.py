import pytest

from hf_shrink.hub.usage import is_graph, is_onnx, is_openvino, loading_code, runtime_of, session_code
from hf_shrink.inputs.tasks import TASKS
from hf_shrink.quantization import QUANTIZERS


@pytest.mark.parametrize(
    ("method", "runtime"),
    [
        ("onnx-int8", "onnxruntime"),
        ("openvino-int8-static", "openvino"),
        ("optimum-int8", "onnxruntime"),
        ("bnb-nf4", None),
        (None, None),
    ],
)
def test_what_runs_a_method(method, runtime):
    assert runtime_of(method) == runtime
    assert (is_onnx(method), is_openvino(method)) == (runtime == "onnxruntime", runtime == "openvino")
    assert is_graph(method) == (runtime is not None)


@pytest.mark.parametrize("task", [*TASKS, "something else"])
def test_openvino_loads_through_optimum_intel(task):
    code = loading_code(task, "me/small", "openvino-int8")
    compile(code, task, "exec")
    assert "from optimum.intel import OVModelFor" in code
    assert '# pip install "optimum-intel[openvino]"' in code
    assert "model = OVModelFor" in code
    assert "ORT" not in code


def test_each_task_has_its_class():
    assert "OVModelForSequenceClassification" in loading_code("regression", "me/small", "openvino-int4")
    assert "OVModelForFeatureExtraction" in loading_code("feature_extraction", "me/small", "openvino-int4")
    assert "OVModelForCausalLM" in loading_code("causal_lm", "me/small", "openvino-int4")


def test_plain_openvino_from_the_hub():
    code = session_code("me/small", False, "openvino")
    compile(code, "session", "exec")
    assert 'snapshot_download("me/small")).glob("*.xml")' in code
    assert "import openvino\n" in code
    assert "onnx" not in code


@pytest.mark.slow
def test_plain_openvino_runs_as_it_says(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    from hf_shrink.quantization import quantize
    from tests.models import tiny_bert_classifier

    assert "openvino-int8" in QUANTIZERS
    made = quantize(tiny_bert_classifier(num_hidden_layers=1), "openvino-int8", output_dir=tmp_path / "small")
    found = {}
    exec(session_code(str(made.path), True, "openvino"), found)
    assert {port.any_name for port in found["session"].inputs} == set(made.load().inputs)
