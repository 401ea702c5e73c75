import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import OnnxModel
from hf_shrink.quantization.float_graph import export_float_graph, to_float
from hf_shrink.quantization.traced import checked_feeds, run_float, sample_rows, trace, with_past
from tests.architectures.models import HEADS, tiny_inputs, tiny_model

pytest.importorskip("onnx")
GENERATORS = [family for family, heads in HEADS.items() if heads[0] == "CausalLM"]


def exported(family, head, task, folder):
    """A model, and its graph in float."""
    layers = (
        {} if family in ("gemma3_text", "distilbert", "gpt2") else {"num_hidden_layers": 2}
    )  # an export takes its time
    model = to_float(tiny_model(family, head, **layers))
    export_float_graph(model, folder, task)
    return model, OnnxModel(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return exported("llama", "CausalLM", "causal_lm", tmp_path_factory.mktemp("llama"))


def test_a_past_is_the_first_tokens_read(llama):
    model, _ = llama
    sample = sample_rows(model, 2, 8)
    feed = with_past(model, sample)
    assert feed["past_key_values.1.key"].shape == (2, 2, 4, 10)
    assert torch.equal(feed["input_ids"], sample["input_ids"][:, 4:])
    whole = run_float(model, with_past(model, sample, past=0), "causal_lm")[0]
    assert (run_float(model, feed, "causal_lm")[0] - whole[:, 4:]).abs().max() < 1e-5


def test_each_shape_is_checked_without_and_with_a_past(llama):
    feeds = list(checked_feeds(llama[0], "causal_lm", [(1, 3), (3, 21)]))
    pasts = [feed["past_key_values.0.value"].shape[2] for feed in feeds]
    assert pasts == [0, 1, 0, 10]
    assert [feed["input_ids"].shape for feed in feeds] == [(1, 3), (1, 2), (3, 21), (3, 11)]


def test_sizes_are_named_as_optimum_reads_them(llama):
    graph = llama[1]
    shapes = {node.name: node.shape for node in graph.session.get_inputs()}
    assert shapes["past_key_values.0.key"] == ["batch_size", 2, "past_sequence_length", 10]
    assert shapes["attention_mask"] == ["batch_size", "total_sequence_length"]
    assert [node.name for node in graph.session.get_outputs()][:3] == ["logits", "present.0.key", "present.0.value"]


def generations(model, graph):
    """The same tokens asked of both, in several ways."""
    ids = tiny_inputs(model, rows=2, tokens=6)["input_ids"]
    ids[0, :2] = 0
    rows = {"input_ids": ids, "attention_mask": (ids != 0).long()}  # padded on the left
    ways = ({"do_sample": False}, {"num_beams": 3, "do_sample": False}, {"do_sample": True, "top_k": 5})
    for way in ways:
        for found in (model, graph):
            torch.manual_seed(0)
            yield found.generate(**rows, **way, min_new_tokens=24, max_new_tokens=24, pad_token_id=0)


def check_generations(model, graph):
    answers = list(generations(model, graph))
    for expected, found in zip(answers[::2], answers[1::2], strict=True):
        assert torch.equal(expected, found)
        assert expected.shape[1] == 30
    assert len(answers[0].unique()) > 5


def test_it_generates_the_same_tokens(llama):
    check_generations(*llama)


def test_a_call_takes_and_gives_a_cache(llama):
    model, graph = llama
    ids = tiny_inputs(model, rows=2, tokens=9)["input_ids"]
    first = graph(input_ids=ids[:, :5])
    assert first.past_key_values.get_seq_length() == 5
    second = graph(input_ids=ids[:, 5:], past_key_values=first.past_key_values)
    with torch.no_grad():
        assert (second.logits - model(ids).logits[:, 5:]).abs().max() < 1e-4
    assert second.past_key_values.get_seq_length() == 9


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in GENERATORS if family != "llama"])
def test_every_family_generates_the_same_tokens(family, tmp_path):
    check_generations(*exported(family, "CausalLM", "causal_lm", tmp_path))


@pytest.mark.parametrize(
    ("family", "head", "task", "output"),
    [
        ("distilbert", "MaskedLM", "masked_lm", "logits"),
        ("bert", "", "feature_extraction", "last_hidden_state"),
        ("vit", "ImageClassification", "image_classification", "logits"),
    ],
)
def test_other_tasks_answer_as_the_model_does(family, head, task, output, tmp_path):
    model, graph = exported(family, head, task, tmp_path)
    for rows in (1, 3):
        inputs = tiny_inputs(model, rows=rows)
        inputs |= {"attention_mask": torch.ones_like(inputs["input_ids"])} if "input_ids" in inputs else {}
        with torch.no_grad():
            expected = model(**inputs)[output]
        assert graph(**inputs)[output].shape == expected.shape
        assert (graph(**inputs)[output] - expected).abs().max() < 1e-4
    assert not graph.can_generate()
    with pytest.raises(ShrinkError, match="`model` must be a language model with a cache to generate, got model.onnx"):
        graph.generate(torch.ones(1, 2, dtype=torch.long))


def test_a_model_without_keys_and_values_is_refused():
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ShrinkError, match="`model` must keep keys and values of earlier tokens"):
        trace(to_float(MambaForCausalLM(config)), "causal_lm")
