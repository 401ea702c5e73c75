"""The terms on attention and relations: their gradient by hand, however rows are spread, and what is refused."""

import warnings
from functools import cache

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hf_shrink.distillation import LOSSES, DistillationTrainer, DistillationTrainingArguments, cache_teacher
from hf_shrink.errors import ShrinkError
from tests.distillation.attention_step import BOTH, CASE, NARROW, WEIGHT, gradient
from tests.distillation.gradients import assert_same_gradient, in_processes
from tests.distillation.one_step import one_step
from tests.distillation.tasks import TASK_CASES, VOCABULARY
from tests.models import randomize

TERMS = {
    "attention_kl": {"attention_weight": WEIGHT},
    # Scores differ by more than distributions: with this weight its gradient is of the others' size.
    "attention_mse": {"attention_weight": WEIGHT / 30, "attention_loss": "attention_mse"},
    "minilm_relation": {"relation_weight": WEIGHT},
    "minilm_relation of other widths and heads": {"relation_weight": WEIGHT},
}
OTHER = {"hidden_size": 24, "num_attention_heads": 2}  # relation heads: the student's 2
PAIRS = ((0, 1), (1, 3))  # "uniform" for 2 and 4 layers


def weight_of(name):
    return next(value for key, value in TERMS[name].items() if key.endswith("weight"))


def student_of(name):
    return OTHER if "other widths" in name else {}


# ---------------------------------------------------------------------- by hand
def split(states, heads):
    return states[0].unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, T, size)


def products(one, other):
    return torch.einsum("hqd,hkd->hqk", one, other) / one.shape[-1] ** 0.5


def bert_vectors(model, inputs):
    """Queries, keys and values of each layer, made from the states that enter it; no hooks."""
    states = model(**inputs, output_hidden_states=True).hidden_states
    selves = [layer.attention.self for layer in model.bert.encoder.layer]
    return [[part(s) for part in (a.query, a.key, a.value)] for a, s in zip(selves, states, strict=False)]


def kl(own, theirs):
    own, theirs = torch.softmax(own, dim=-1), torch.softmax(theirs, dim=-1)
    return (theirs * (theirs / own).log()).sum(-1).mean()


def attention_by_hand(own, theirs, loss, heads=4):
    scores = [products(split(query, heads), split(key, heads)) for query, key, _ in (own, theirs)]
    return kl(*scores) if loss == "attention_kl" else ((scores[0] - scores[1]) ** 2).mean()


def relations_by_hand(own, theirs, heads):
    parts = [[products(split(part, heads), split(part, heads)) for part in vectors] for vectors in (own, theirs)]
    return sum(kl(*pair) for pair in zip(*parts, strict=True)) / 3


def rows_by_hand(case, student, teacher, vectors, compare, pairs=PAIRS):
    """Mean over rows of the mean over pairs of layers; each row alone, without padding."""
    total = 0.0
    for row in case.rows():
        inputs = {k: v for k, v in case.collator()([row]).items() if k != "labels"}
        with torch.no_grad():
            theirs = vectors(teacher, inputs)
        own = vectors(student, inputs)
        total = total + sum(compare(own[i], theirs[j]) for i, j in pairs) / len(pairs)
    return total / len(case.rows())


def by_hand(name):
    student, teacher = CASE.student(**student_of(name)).train(), CASE.teacher().eval()
    if name.startswith("attention"):
        value = rows_by_hand(CASE, student, teacher, bert_vectors, lambda *pair: attention_by_hand(*pair, name))
    else:
        heads = student.config.num_attention_heads
        value = rows_by_hand(CASE, student, teacher, bert_vectors, lambda *pair: relations_by_hand(*pair, heads))
    (weight_of(name) * value).backward()
    return value.item(), {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------------- gradients
@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """Steps that several tests look at, each taken once."""

    @cache
    def take(batch_size, accumulation, student, options):
        folder = tmp_path_factory.mktemp("step")
        return gradient(folder, batch_size, accumulation, student=dict(student), **dict(options))

    return lambda batch_size, accumulation, student, options: take(
        batch_size, accumulation, tuple(student.items()), tuple(options.items())
    )


@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_the_one_written_by_hand(step, name):
    value, expected = by_hand(name)
    with_term, trainer = step(8, 1, student_of(name), TERMS[name])
    without, _ = step(8, 1, student_of(name), {})
    difference = {key: with_term[key] - without[key] for key in expected}
    assert_same_gradient(difference, expected, tolerance=2e-6)
    assert max(grad.abs().max() for grad in expected.values()) > 1e-2
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    key = "attention_loss" if name.startswith("attention") else "relation_loss"
    assert log[key] == pytest.approx(value, rel=1e-5)
    weighed = 0.7 * log["kd_loss"] + 0.3 * log["ce_loss"] + weight_of(name) * log[key]
    assert log["loss"] == pytest.approx(weighed, rel=1e-4)


def test_every_loss_on_attention_and_relations_is_among_the_terms():
    within = {name for name, loss in LOSSES.items() if {"attention", "relations"} & set(loss.facts["outputs"])}
    assert within <= set(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_the_same_however_rows_are_spread(step, name):
    whole, spread = (step(size, 8 // size, student_of(name), TERMS[name])[0] for size in (8, 1))
    assert_same_gradient(whole, spread)


@pytest.mark.slow
def test_gradient_is_the_same_in_two_processes(step, tmp_path):
    whole, _ = step(8, 1, {"hidden_size": NARROW}, BOTH)
    (shared,) = in_processes(2, tmp_path, 2, 2, module="tests.distillation.attention_step").values()
    assert_same_gradient(whole, shared)


def test_all_terms_stand_beside_each_other(tmp_path):
    options = {**BOTH, "hidden_weight": 2.0, "layer_map": "last"}
    _, trainer = gradient(tmp_path, 4, 2, student={"hidden_size": NARROW}, **options)
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    terms = {"kd_loss": 0.7, "ce_loss": 0.3, "hidden_loss": 2.0, "attention_loss": WEIGHT, "relation_loss": WEIGHT}
    assert all(log[name] > 0 for name in terms)
    assert log["loss"] == pytest.approx(sum(weight * log[name] for name, weight in terms.items()), rel=1e-4)
    assert "eval_attention_loss" not in trainer.evaluate(CASE.rows())


def test_gradient_checkpointing_changes_nothing_of_the_gradient(step, tmp_path):
    student = CASE.student(hidden_size=NARROW)
    with warnings.catch_warnings():  # the name of transformers 5 comes when transformers 4 goes
        warnings.simplefilter("ignore", FutureWarning)
        student.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed, _ = one_step(tmp_path, 8, 1, teacher_model=CASE.teacher(), model=student, **BOTH)
    assert_same_gradient(checkpointed, step(8, 1, {"hidden_size": NARROW}, BOTH)[0])


def test_the_terms_bring_attention_and_relations_nearer(tmp_path):
    losses = []
    for weight in (1e-6, 10.0):
        options = {"attention_weight": weight, "relation_weight": weight, "learning_rate": 1e-2, "max_steps": 20}
        _, trainer = gradient(tmp_path, 8, 1, **options)
        losses.append([entry for entry in trainer.state.log_history if "attention_loss" in entry][-1])
    plain, led = losses
    assert led["attention_loss"] < 0.75 * plain["attention_loss"]
    assert led["relation_loss"] < 0.75 * plain["relation_loss"]


# ---------------------------------------------------------------------- decoders
def tiny_gpt2(layers, seed, **config):
    torch.manual_seed(seed)
    settings = {"n_embd": 32, "n_head": 4, "n_positions": 64, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    settings |= {"vocab_size": VOCABULARY, "initializer_range": 0.3, **dropout, **config}
    return randomize(GPT2LMHeadModel(GPT2Config(n_layer=layers, **settings)), seed)


def gpt2_vectors(model, inputs):
    states = model(**inputs, output_hidden_states=True).hidden_states
    blocks = zip(model.transformer.h, states, strict=False)
    return [block.attn.c_attn(block.ln_1(state)).chunk(3, dim=-1) for block, state in blocks]


def llama_vectors(model, inputs):
    states = model(**inputs, output_hidden_states=True).hidden_states
    found = []
    for layer, state in zip(model.model.layers, states, strict=False):
        state = layer.input_layernorm(state)
        found.append([getattr(layer.self_attn, f"{part}_proj")(state) for part in "qkv"])
    return found


DECODERS = {
    # Keys and values of the student are 16 wide, of the teacher 8: split into its 4 heads like the queries of 32.
    "llama": (TASK_CASES["causal_lm"].make, {}, {"num_key_value_heads": 1}, llama_vectors, 4),
    # 3 heads and 4 have none in common but 1.
    "gpt2": (tiny_gpt2, {"n_embd": 24, "n_head": 3}, {}, gpt2_vectors, 1),
}


@pytest.mark.parametrize("family", DECODERS)
def test_relations_of_decoders(tmp_path, family):
    case, (make, own, theirs, vectors, heads) = TASK_CASES["causal_lm"], DECODERS[family]
    student, teacher = make(2, 8, **own), make(4, 12, **theirs)
    expected = rows_by_hand(case, student, teacher, vectors, lambda *pair: relations_by_hand(*pair, heads)).item()
    options = {"task": "causal_lm", "teacher_model": teacher, "model": student, "relation_weight": WEIGHT}
    _, trainer = one_step(tmp_path, 4, 2, **options)
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["relation_loss"] == pytest.approx(expected, rel=1e-5)
    assert expected > 1e-2


# ---------------------------------------------------------------------- refused
RELATION, ATTENTION = {"relation_weight": 1.0}, {"attention_weight": 1.0}
REFUSED = {
    "encoder-decoder": ("seq2seq_lm", RELATION, {}, "`relation_weight`.*not one stack"),
    "unknown family": ("audio_classification", RELATION, {}, "`relation_weight`.*`model`.*register_architecture"),
    "rotary positions": ("causal_lm", ATTENTION, {}, "`attention_weight`.*`model`.*rotary.*`relation_weight`"),
    "other heads": (
        "masked_lm",
        ATTENTION,
        {"num_attention_heads": 2},
        "`attention_weight`.*2 two-way heads.*4 two-way heads.*minilm_relation",
    ),
    "fewer layers": ("masked_lm", RELATION, {"num_hidden_layers": 6}, "`layer_map`.*fewer layers"),
    "unknown map": ("masked_lm", {**ATTENTION, "layer_map": "first"}, {}, "`layer_map`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused_before_any_work(tmp_path, name):
    task, options, config, message = REFUSED[name]
    case, settings = TASK_CASES[task], dict(config)
    layers = settings.pop("num_hidden_layers", 2)
    args = DistillationTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **options)
    with pytest.raises(ShrinkError, match=message):
        DistillationTrainer(model=case.make(layers, 8, **settings), teacher_model=case.teacher(), args=args)


def test_a_compiled_model_is_refused(tmp_path):
    args = DistillationTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **RELATION)
    args.torch_compile = True  # given to the arguments, it would compile the models of the next tests too
    with pytest.raises(ShrinkError, match="`torch_compile`"):
        DistillationTrainer(model=CASE.student(), teacher_model=CASE.teacher(), args=args)


@pytest.mark.parametrize("options", [ATTENTION, RELATION], ids=["attention", "relation"])
def test_a_cache_which_holds_no_attention_is_refused(tmp_path, options):
    kept = cache_teacher(CASE.teacher(), CASE.rows(), output_dir=tmp_path / "cache", data_collator=CASE.collator())
    args = DistillationTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **options)
    with pytest.raises(ShrinkError, match=f"`{next(iter(options))}`.*`teacher_model` is a cache"):
        DistillationTrainer(model=CASE.student(), teacher_model=kept, args=args)


def test_without_a_teacher_nothing_is_compared(tmp_path):
    _, trainer = one_step(tmp_path, 8, 1, model=CASE.student(), **BOTH)
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert "attention_loss" not in log
    assert "relation_loss" not in log
