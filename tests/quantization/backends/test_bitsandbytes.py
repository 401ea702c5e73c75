"""Folders in 8 and 4 bits, also on a simulated AVX512-BF16 processor, where bitsandbytes lays weights out anew."""

import copy

import pytest
import torch
import transformers
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit, Linear8bitLt, modules
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    RobertaConfig,
    ViTConfig,
)

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import count_parameters, measure, size_on_disk
from hf_shrink.evaluation.candidates import load_candidate, on_disk
from hf_shrink.hub.upload import _model_folder
from hf_shrink.hub.usage import loading_code
from hf_shrink.inputs.saving import save_model
from hf_shrink.quantization import quantize
from hf_shrink.quantization.backends.bitsandbytes import bnb_fp4, bnb_int8, bnb_nf4
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job
from tests.distillation.tasks import TASK_CASES
from tests.models import randomize, tiny_bert_classifier

TASK = "single_label_classification"
SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100,
    "initializer_range": 0.1,
}  # fmt: skip
IDS = torch.randint(5, 30, (2, 9), generator=torch.Generator().manual_seed(0))


def classifier(**config):
    return to_float(tiny_bert_classifier(**{**SHAPE, **config}))


def pack(method, model, folder, task=TASK, ignore=(), **options):
    steps = []
    made = method(Job(model, task, folder / "artifact", steps.append, ignore), **options)
    assert len(steps) == 2
    return made, folder / "artifact"


def packed(model):
    return {name for name, module in model.named_modules() if isinstance(module, Linear4bit | Linear8bitLt)}


def linear(model):
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return {name for name, module in model.named_modules() if isinstance(module, kinds)}


def answers(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


@pytest.fixture
def wide_cpu(monkeypatch):
    """A processor with AVX512-BF16; its kernel is stood in for by unpacking a copy."""

    def kernel(activations, weight, out=None, state=None):
        values, restored = functional._convert_weight_packed_for_cpu_inverse(weight.clone(), copy.copy(state))
        if not restored.nested:
            restored.absmax = state.absmax.T.reshape(-1).float().contiguous()
        restored.dtype = torch.float32
        return activations.float() @ functional.dequantize_4bit(values, restored).T

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(functional, "gemv_4bit", kernel)


# ------------------------------------------------------------------ what is packed
LLAMA = LlamaConfig(
    **SHAPE, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1,
    eos_token_id=2, pad_token_id=0,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=100, n_embd=64, n_layer=1, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
ROBERTA = RobertaConfig(**SHAPE, max_position_embeddings=66, type_vocab_size=1, num_labels=3)
ELECTRA = ElectraConfig(**SHAPE, embedding_size=64, max_position_embeddings=64, num_labels=3)
VIT = ViTConfig(
    **{k: v for k, v in SHAPE.items() if k != "vocab_size"}, image_size=16, patch_size=8, num_labels=3
)  # fmt: skip
FAMILIES = [
    (AutoModelForSequenceClassification, BertConfig(**SHAPE, num_labels=3), {"classifier"}),
    (AutoModelForTokenClassification, BertConfig(**SHAPE, num_labels=3), {"classifier"}),
    (AutoModelForQuestionAnswering, BertConfig(**SHAPE), {"qa_outputs"}),
    (AutoModelForSequenceClassification, ROBERTA, {"classifier.out_proj"}),
    (AutoModelForSequenceClassification, ELECTRA, {"classifier.dense", "classifier.out_proj"}),  # of no known family
    (AutoModelForSequenceClassification, LLAMA, {"score"}),
    (AutoModelForCausalLM, LLAMA, {"lm_head"}),
    (AutoModelForCausalLM, GPT2, {"lm_head"}),  # tied, over Conv1D
    (AutoModelForImageClassification, VIT, {"classifier"}),
]


@pytest.mark.parametrize("method", [bnb_int8, bnb_nf4])
@pytest.mark.parametrize(("auto", "config", "heads"), FAMILIES, ids=lambda v: getattr(v, "model_type", None))
def test_heads_stay_in_float_and_stock_classes_load_the_rest(auto, config, heads, method, tmp_path):
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.pad_token_id = 0
    model = to_float(randomize(auto.from_config(config)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made, folder = pack(method, model, tmp_path)
    loaded = auto.from_pretrained(folder).eval()
    assert packed(loaded) == packed(made.model) == linear(model) - heads
    assert set(made.record["layers_in_float"]) == heads
    assert not loaded.training
    feed = {"pixel_values": torch.randn(2, 3, 16, 16)} if "ViT" in type(model).__name__ else {"input_ids": IDS}
    with torch.no_grad():
        own, again, right = (m(**feed)[0].float() for m in (made.model, loaded, model))
    assert torch.equal(own, again)
    assert 0 < (own - right).norm() < 0.8 * right.norm()  # answers that have nothing to do with it are off by 1.4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", [bnb_int8, bnb_nf4, bnb_fp4])
def test_a_named_module_stays_in_float_and_no_other(method, tmp_path):
    model = classifier(num_hidden_layers=11)
    kept = "bert.encoder.layer.1.output.dense"  # another layer's name goes on after the same beginning
    made, folder = pack(method, model, tmp_path, ignore=(kept,))
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert packed(loaded) == linear(model) - {kept, "classifier"}
    assert loaded.get_submodule(kept).weight.dtype == torch.float16
    assert set(made.record["layers_in_float"]) == {kept, "classifier"}


def test_options_are_what_is_stored(tmp_path):
    model = classifier()
    made, folder = pack(bnb_nf4, model, tmp_path, dtype="float32", double_quant=False, compute_dtype="bfloat16")
    config = made.model.config.quantization_config
    assert (config.bnb_4bit_use_double_quant, config.bnb_4bit_compute_dtype) == (False, torch.bfloat16)
    assert made.model.get_input_embeddings().weight.dtype == torch.float32
    assert made.record["options"] == {"dtype": "float32", "double_quant": False, "compute_dtype": "bfloat16"}
    (tmp_path / "b").mkdir()
    other, half = pack(bnb_nf4, model, tmp_path / "b")
    assert other.model.get_input_embeddings().weight.dtype == torch.float16
    assert size_on_disk(half) < 0.85 * size_on_disk(folder)
    (tmp_path / "c").mkdir()
    eight, _ = pack(bnb_int8, model, tmp_path / "c", threshold=0.0)
    assert eight.model.config.quantization_config.llm_int8_threshold == 0.0
    assert 0 < eight.record["float_share"] < 0.5


def test_jobs_side_by_side_share_the_saved_weights(tmp_path, monkeypatch):
    model = classifier()
    pack(bnb_int8, model, tmp_path)
    monkeypatch.setattr(model, "save_pretrained", lambda *a, **k: pytest.fail("it was saved again"))
    other = Job(model, TASK, tmp_path / "other", lambda stage: None)
    assert packed(bnb_nf4(other).model)


def test_what_cannot_be_done_is_refused(tmp_path):
    model = classifier()
    for options, match in (
        ({"dtype": "half"}, r"`dtype` must be one of \['float16', 'bfloat16', 'float32'\], got 'half'"),
        ({"compute_dtype": "int8"}, "`compute_dtype` must be one of"),
    ):
        with pytest.raises(ShrinkError, match=match):
            pack(bnb_nf4, model, tmp_path, **options)
    with pytest.raises(ShrinkError, match="`threshold` must be at least 0, got nan"):
        bnb_int8(Job(model, TASK, tmp_path / "a", print), threshold=float("nan"))
    narrow = classifier(hidden_size=32, intermediate_size=48)
    with pytest.raises(ShrinkError, match="`model` must have linear layers whose inputs are a multiple of 64"):
        bnb_nf4(Job(narrow, TASK, tmp_path / "a", print))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ traps of bitsandbytes 0.50.2
def test_every_layer_that_is_packed_can_be_computed_with_avx512_bf16(wide_cpu, tmp_path):
    model = classifier(intermediate_size=72)  # 72 rows, and 72 weights in a row, fit no kernel
    made, folder = pack(bnb_nf4, model, tmp_path)
    answer = answers(AutoModelForSequenceClassification.from_pretrained(folder).eval())
    right = answers(model)
    assert (answer - right).norm() < 0.3 * right.norm()
    narrow = {name for name in linear(model) if "intermediate" in name or name.endswith("0.output.dense")}
    assert set(made.record["layers_in_float"]) == narrow | {"classifier"}
    assert packed(made.model)


@pytest.mark.parametrize("double_quant", [False, True])
def test_what_is_saved_is_what_answers_with_avx512_bf16(wide_cpu, double_quant, tmp_path):
    model = classifier()
    layer = "bert.encoder.layer.0.output.dense"
    with torch.no_grad():  # rows of unlike size, two groups each: a scale in another's place is far off
        model.get_submodule(layer).weight *= torch.linspace(0.01, 1, 64)[:, None]
    made, folder = pack(bnb_nf4, model, tmp_path, double_quant=double_quant)
    stored = AutoModelForSequenceClassification.from_pretrained(folder).get_submodule(layer).weight
    error = functional.dequantize_4bit(stored.data, stored.quant_state).float() - model.get_submodule(layer).weight
    assert error.norm() < 0.15 * model.get_submodule(layer).weight.norm()
    own = answers(made.model)
    assert made.model.bert.encoder.layer[0].output.dense.weight.quant_state.packing_format_for_cpu
    again = answers(AutoModelForSequenceClassification.from_pretrained(folder).eval())
    assert torch.equal(own, again)


def test_scales_that_would_be_lost_are_not_saved(wide_cpu, tmp_path):
    model = classifier(hidden_size=128, intermediate_size=512)  # rows of several groups
    lost, _ = pack(bnb_nf4, model, tmp_path, double_quant=False)
    own = answers(lost.model)
    with pytest.raises(ShrinkError, match="`path_or_model` must be saved before it first answers, got a BertFor"):
        _model_folder(lost.model, tmp_path / "push")
    with pytest.raises(ShrinkError, match="`model` must be saved before it first answers"):
        on_disk(load_candidate(lost.model)).__enter__()
    lost.model.save_pretrained(tmp_path / "lost")  # what the guard keeps from being pushed
    again = answers(AutoModelForSequenceClassification.from_pretrained(tmp_path / "lost").eval())
    assert (own - again).abs().max() > 0.2 * own.abs().max()
    (tmp_path / "twice").mkdir()
    kept, _ = pack(bnb_nf4, model, tmp_path / "twice")
    own = answers(kept.model)
    save_model(kept.model, tmp_path / "kept", "model")
    again = answers(AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept").eval())
    assert (own - again).abs().max() < 0.05 * own.abs().max()  # the scales are rounded once more


@pytest.mark.skipif(transformers.__version__.startswith("4"), reason="transformers 4 saves them again")
@pytest.mark.parametrize("method", [bnb_int8, bnb_nf4])
def test_a_loaded_model_that_cannot_be_saved_again_is_told(method, tmp_path):
    _, folder = pack(method, classifier(), tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with pytest.raises(ShrinkError, match=r"`path_or_model` must be a folder where bitsandbytes.*dequantize\(\)"):
        _model_folder(loaded, tmp_path / "push")
    with pytest.raises(ShrinkError, match="`model` must be a folder where bitsandbytes packed"):
        on_disk(load_candidate(loaded)).__enter__()


def test_a_loaded_model_is_saved_where_it_can_be(tmp_path):
    made, _ = pack(bnb_nf4, classifier(), tmp_path)
    save_model(made.model, tmp_path / "again", "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(answers(loaded), answers(made.model))


# ------------------------------------------------------------------ what is measured and said of them
@pytest.mark.parametrize("method", [bnb_int8, bnb_nf4])
def test_costs_are_those_of_the_architecture(method, tmp_path):
    model = classifier()
    _, folder = pack(method, model, tmp_path)
    costs = measure(folder, sequence_length=16, runs=2, peak_memory=False)
    assert costs.parameters == count_parameters(model)
    assert costs.macs == measure(model, sequence_length=16, runs=2, peak_memory=False).macs
    assert (costs.macs_note, costs.size_bytes) == ("of the float source", size_on_disk(folder))
    assert costs.latency.p50_ms > 0
    assert count_parameters(AutoModelForSequenceClassification.from_pretrained(folder)) == count_parameters(model)


def test_quantized_models_are_not_quantized_again(tmp_path):
    _, folder = pack(bnb_nf4, classifier(), tmp_path)
    with pytest.raises(ShrinkError, match="`model` must be a float model, .* quantized already"):
        quantize(folder, "bnb-int8", output_dir=tmp_path / "out")


def test_a_card_names_the_stock_class_and_what_to_install():
    code = loading_code(TASK, "me/model", "bnb-nf4")
    assert "import AutoModelForSequenceClassification, AutoTokenizer  # pip install bitsandbytes accelerate\n" in code
    assert "bitsandbytes" not in loading_code(TASK, "me/model", None)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["causal_lm", "seq2seq_lm", "feature_extraction", "image_classification"])
def test_models_of_other_tasks_are_proved_too(task, tmp_path):
    made = quantize(TASK_CASES[task].student(), "bnb-int8", output_dir=tmp_path / "out")
    assert made.record["task"] == task
    assert made.record["proof"]["reload_difference"] <= 1e-2
    assert 0 < made.record["proof"]["relative_error"] < 0.2
    loaded = made.load()
    assert packed(loaded)
    if task == "causal_lm":
        assert loaded.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, min_new_tokens=4).shape == (1, 7)
