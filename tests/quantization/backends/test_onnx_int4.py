import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import quantize
from hf_shrink.quantization.backends.onnx_int4 import onnx_int4
from hf_shrink.quantization.job import Job
from tests.models import tiny_bert_classifier

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 48}, "`group_size` must be one of .*, got 48"),
        ({"group_size": True}, "`group_size` must be one of .*, got True"),
        ({"symmetric": "no"}, "`symmetric` must be True or False, got 'no'"),
    ],
)
def test_options_are_checked_before_any_work(options, message, tmp_path):
    job = Job(None, "single_label_classification", tmp_path, lambda stage: pytest.fail(f"{stage} began"))
    with pytest.raises(ShrinkError, match=message):
        onnx_int4(job, **options)


def test_every_layer_is_packed_but_what_is_ignored(tmp_path):
    model = tiny_bert_classifier(num_hidden_layers=1, vocab_size=2000)
    linear = [name for name, module in model.named_modules() if type(module).__name__ == "Linear"]
    kept = ("bert.embeddings.word_embeddings", "bert.encoder.layer.0.output.dense")
    made = quantize(model, "onnx-int4", output_dir=tmp_path / "small", ignore=kept, group_size=16, symmetric=True)
    graph = onnx.load(made.path / "model.onnx").graph
    packed = {node.name.rpartition("/")[0] for node in graph.node if node.op_type == "MatMulNBits"}
    assert packed == set(linear) - set(kept)
    assert {node.name for node in graph.node if node.op_type == "Gather"} >= {f"{kept[0]}/Gather"}
    assert made.record["options"] == {"group_size": 16, "symmetric": True}
    shapes = {tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert (2000, 32) in shapes  # the table as it was
