"""Whatever is cut, a process that never heard of hf_shrink loads it and gets the same logits and the same tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import GenerationMixin, PreTrainedModel

from hf_shrink.architectures import architecture_of
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.layer_removal import drop_layers
from hf_shrink.pruning.vocabulary.embedding_rows import cut_rows
from tests.architectures.models import FAMILIES, HEADS, answer, auto_class, tiny_config, tiny_inputs, tiny_model
from tests.pruning.silencing import kill_heads, kill_units
from tests.stock import run_stock

GENERATORS = ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq")
TOKENS = {"do_sample": False, "max_new_tokens": 32, "min_new_tokens": 32}
HEAD_SIZE_FOLLOWS = {
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "gpt2",
    "whisper",
}  # from hidden / heads


@dataclass
class Smaller:
    """A smaller model, inputs for both, and the larger one's answer where it has to be the same."""

    model: PreTrainedModel
    inputs: dict[str, Any]
    expected: torch.Tensor | None


def fewer_units(family: str) -> Smaller:
    """Others in each layer, as many in all."""
    model = kill_units(tiny_model(family), live=(22, 22, 22, 22))
    return Smaller(compact(model), tiny_inputs(model), answer(model))


def fewer_heads(family: str) -> Smaller:
    """Others in each block, as many in all; one set for a stack of T5."""
    model, live = tiny_model(family), [[0, 2], [1, 3], [0, 1], [2, 3]]
    if architecture_of(model).stacks[0].key_value_heads_field:
        live = [[0], [1], [1], [0]]
    elif "t5" in family:
        live = [[0, 2]] * 4 + [[1, 3], [0, 1]] * 3
    kill_heads(model, live)
    return Smaller(compact(model), tiny_inputs(model), answer(model))


def fewer_layers(family: str) -> Smaller:
    """One from the middle."""
    model = drop_layers(tiny_model(family), layers=[1])
    return Smaller(model, tiny_inputs(model), None)


def fewer_tokens(family: str) -> Smaller:
    """The first forty, which the inputs keep to."""
    model, kept = tiny_model(family), range(40)
    inputs = tiny_inputs(model, vocabulary=len(kept))
    return Smaller(cut_rows(model, kept), inputs, answer(model, **inputs)[..., : len(kept)])


CUTS: dict[str, Callable[[str], Smaller]] = {  # by what architectures call it
    "ffn": fewer_units,
    "heads": fewer_heads,
    "layers": fewer_layers,
    "vocabulary": fewer_tokens,
}


def can(family, cut):
    return cut in architecture_of(tiny_config(family)).cuts


def generation_inputs(model, inputs):
    """One row, and of the decoder's tokens the one that it starts with."""
    inputs = {name: value[:1] for name, value in inputs.items() if name != "decoder_input_ids"}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.full((1, 1), model.config.decoder_start_token_id)
    return inputs


STOCK = """
import torch, transformers
jobs, found = torch.load(sys.argv[1], weights_only=True), {}
for name, (auto, folder, inputs, prompt, options) in jobs.items():
    auto = getattr(transformers, auto)
    model, report = auto.from_pretrained(
        folder, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), (name, report)
    with torch.no_grad():
        logits = model(**inputs).logits
    # past Whisper's own generate, which calls this one with deprecated arguments
    tokens = transformers.GenerationMixin.generate(model, **prompt, **options) if prompt else None
    found[name] = (logits, tokens)
torch.save(found, sys.argv[2])
print("null")
"""


@pytest.mark.slow
def test_stock_transformers_answers_alike(tmp_path):
    assert len(FAMILIES) >= 12
    cases = {f"{cut} {family}": CUTS[cut](family) for cut in CUTS for family in FAMILIES if can(family, cut)}
    jobs = {}
    for name, case in cases.items():
        head = HEADS[name.split()[1]][0]
        case.model.save_pretrained(tmp_path / name)
        prompt = generation_inputs(case.model, case.inputs) if head in GENERATORS else {}
        jobs[name] = (auto_class(head).__name__, str(tmp_path / name), case.inputs, prompt, TOKENS)
    torch.save(jobs, tmp_path / "jobs")
    run_stock(STOCK, str(tmp_path / "jobs"), str(tmp_path / "found"), cwd=tmp_path)
    found = torch.load(tmp_path / "found", weights_only=True)
    assert found.keys() == cases.keys()
    differing = {name: message for name, case in cases.items() if (message := compare(case, jobs[name], *found[name]))}
    assert not differing


def compare(case, job, logits, tokens):
    """What is wrong with a reloaded model's logits and tokens; nothing where all is well."""
    *_, prompt, options = job
    for what, expected in (("in memory", answer(case.model, **case.inputs)), ("before the cut", case.expected)):
        if expected is not None and not (difference := (logits - expected).abs().max()) <= 1e-5:
            return f"{difference:.1e} off the model {what}"
    if prompt:
        expected = GenerationMixin.generate(case.model, **prompt, **options)
        assert expected.shape[1] >= 32
        if not torch.equal(tokens, expected):
            return "other tokens"
    return None


def test_which_families_keep_their_heads():
    assert {family for family in FAMILIES if not can(family, "heads")} - {"vit"} == HEAD_SIZE_FOLLOWS
    assert all(can(family, cut) for family in FAMILIES for cut in ("ffn", "layers"))


@pytest.mark.parametrize("family", [family for family in FAMILIES if not can(family, "heads")])
def test_dead_heads_stay_where_the_config_cannot_say_so(family, tmp_path):
    with pytest.warns(UserWarning, match="Nothing was cut"):
        case = fewer_heads(family)
    case.model.save_pretrained(tmp_path)
    loaded = auto_class(HEADS[family][0]).from_pretrained(tmp_path)
    assert torch.allclose(answer(loaded, **case.inputs), case.expected, atol=1e-5)
