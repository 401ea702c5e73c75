import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import quantize
from hf_shrink.quantization.backends.onnx_int8_block import onnx_int8_block
from hf_shrink.quantization.job import Job
from tests.architectures.models import tiny_inputs, tiny_model

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("group_size", [48, True, 0, None])
def test_options_are_checked_before_any_work(group_size, tmp_path):
    job = Job(None, "causal_lm", tmp_path, lambda stage: pytest.fail(f"{stage} began"))
    with pytest.raises(ShrinkError, match="`group_size` must be one of .*, got"):
        onnx_int8_block(job, group_size=group_size)


def with_massive_activations():
    """As language models have them: a few neurons whose values are far larger than all others, which still count."""
    model = tiny_model("llama", num_hidden_layers=1, intermediate_size=128, tie_word_embeddings=True)
    block = model.model.layers[0].mlp
    with torch.no_grad():
        block.up_proj.weight[:2] *= 100
        block.down_proj.weight[:, :2] /= 100
    return model


def test_outliers_spoil_one_block_alone(tmp_path):
    model = with_massive_activations()
    inputs = tiny_inputs(model, rows=3, tokens=12)
    with torch.no_grad():
        expected = model(**inputs).logits
    errors = {}
    for method, options in {"onnx-int8": {}, "onnx-int8-block": {"group_size": 16}}.items():
        found = quantize(model, method, output_dir=tmp_path / method, **options).load()(**inputs).logits
        errors[method] = float((found - expected).norm() / expected.norm())
    assert errors["onnx-int8-block"] < 0.1
    assert errors["onnx-int8"] > 3 * errors["onnx-int8-block"]


def test_an_answer_does_not_depend_on_the_rows_beside_it(tmp_path):
    model = with_massive_activations()
    made = quantize(model, "onnx-int8-block", output_dir=tmp_path / "small", group_size=16, ignore=["lm_head"])
    assert made.record["options"] == {"group_size": 16}
    graph = onnx.load(made.path / "model.onnx").graph
    packed = {node.name.rpartition("/")[0] for node in graph.node if node.op_type == "MatMulNBits"}
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert packed == linear - {"lm_head"}
    inputs = tiny_inputs(model, rows=3, tokens=12)
    loaded = made.load()
    alone = torch.cat([loaded(input_ids=row[None]).logits for row in inputs["input_ids"]])
    assert (alone - loaded(**inputs).logits).abs().max() < 1e-4
