"""`hf-shrink prune --vocabulary`: fewer tokens, alone and before the rest, and what is refused."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_shrink.cli import prune_stages
from hf_shrink.errors import ShrinkError
from tests.cli.distilling import report, save_rows, save_teacher, used
from tests.cli.test_distill import TASK_ROWS
from tests.distillation.tasks import TEXTS
from tests.models import SPECIAL

SHORT = TEXTS[4:]  # "new pin", "transfer failed", …: not all words of the tokenizer come up
SEEN = {word for text in SHORT for word in text.split()}


@pytest.fixture
def corpus(tmp_path):
    """Some texts, in one file."""
    Dataset.from_dict({"text": SHORT}).to_parquet(tmp_path / "texts.parquet")
    return tmp_path / "texts.parquet"


def loaded(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


# ---------------------------------------------------------------------- what comes of it
def test_tokens_alone_go_and_what_stays_answers_as_before(pruned, run, tmp_path, teacher, corpus):
    said = pruned("--vocabulary", corpus, "--keep", "cash", "--keep", "card")
    (before, old), (after, new) = loaded(teacher), loaded(tmp_path / "out")
    assert set(new.get_vocab()) >= {*SPECIAL, *SEEN, "cash", "card"}
    assert len(new) == after.config.vocab_size < len(old)
    for text in SHORT:
        assert new.tokenize(text) == old.tokenize(text)
        with torch.no_grad():
            logits = [m(**t(text, return_tensors="pt")).logits for m, t in ((before, old), (after, new))]
        torch.testing.assert_close(*logits)
    method = used(tmp_path / "out")
    assert (method["title"], method["name"]) == ("Vocabulary pruning", "vocabulary_pruning")
    tokens = f"{len(new)} of {len(old)}"
    expected = {"corpus": "texts.parquet", "min_count": 1, "keep": ["cash", "card"], "tokens": tokens}
    assert method["options"] == expected
    assert f"Vocabulary, on the rows that it was compared on: {tokens} tokens;" in said
    unknown = sum(token not in new.get_vocab() for text in TEXTS for token in old.tokenize(text))
    assert f"{unknown} new unknowns." in said
    assert tokens in (tmp_path / "out" / "README.md").read_text()
    assert not run.trainers


def test_each_model_of_the_comparison_reads_with_its_own_tokenizer(pruned, tmp_path, rows):
    pruned("--vocabulary", rows)  # the training split, with the same texts as the other
    original, shrunk = report(tmp_path / "out")["entries"]
    assert (shrunk["agreement"], shrunk["value"]) == (1.0, original["value"])
    assert shrunk["parameters"] < original["parameters"]
    assert used(tmp_path / "out")["options"]["split"] == "train"


def test_rarer_tokens_go_too(pruned, tmp_path, rows):
    pruned("--vocabulary", rows, "--vocabulary-split", "test", "--min-count", 3)
    assert set(loaded(tmp_path / "out")[1].get_vocab()) == {*SPECIAL, "is", "my"}
    assert used(tmp_path / "out")["options"]["min_count"] == 3


def test_a_language_model_is_compared_by_the_original_tokens(run, tmp_path):
    model = save_teacher(tmp_path / "model", "causal_lm")
    rows = save_rows(tmp_path / "rows", **TASK_ROWS["causal_lm"])
    run("prune", "--model", model, "--dataset", rows, "--output-dir", tmp_path / "out", "--vocabulary", rows)
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "out"))
    original, shrunk = report(tmp_path / "out")["entries"]
    assert shrunk["parameters"] < original["parameters"]
    # Fewer tokens compete for the same probability, so that each of them is a little likelier.
    assert shrunk["value"] < original["value"]
    assert shrunk["agreement"] > 0.5


@pytest.mark.parametrize(
    "more",
    [
        ("--constraint", "macs=0.6"),
        ("--sparsity", 0.5, "--method", "wanda"),
        ("--sparsity", 0.5, "--train", "--set", "max_steps=2"),
    ],
)
def test_tokens_go_before_anything_else_does(pruned, tmp_path, rows, more):
    pruned("--vocabulary", rows, *more)
    after, new = loaded(tmp_path / "out")
    assert after.config.vocab_size == len(new)
    titles = [method["title"] for method in report(tmp_path / "out")["provenance"]["methods"]]
    assert titles[0] == "Vocabulary pruning"
    assert len(titles) == 2
    assert len(report(tmp_path / "out")["provenance"]["notes"]) >= 2


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--min-count", "2"), "`min_count` must be left out without --vocabulary"),
        (("--keep", "card"), "`keep` must be left out without --vocabulary"),
        (("--vocabulary-split", "test"), "`vocabulary_split` must be left out without --vocabulary"),
        (("--vocabulary", "x", "--train", "--teacher", "y"), "`teacher` must be left out with --vocabulary"),
        (("--vocabulary", "x", "--method", "wanda"), "`sparsity` must be given"),
        (("--vocabulary", "x", "--learning-rate", "1"), "`learning_rate` must be left out .* Add --train"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_loaded(pruned, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(prune_stages, "load_rows", None)
    with pytest.raises(ShrinkError, match=message):
        pruned(*more)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_tokenised_already_are_refused(run, tmp_path, teacher, corpus):
    rows = save_rows(tmp_path / "rows", input_ids=[[2, 5, 3]] * 4, attention_mask=[[1] * 3] * 4, labels=[0, 1, 2, 0])
    settings = ("--output-dir", tmp_path / "out", "--vocabulary", corpus)
    with pytest.raises(ShrinkError, match="`dataset` must hold texts with --vocabulary"):
        run("prune", "--model", teacher, "--dataset", rows, *settings)


def test_a_token_that_there_is_not_is_refused(pruned, tmp_path, corpus):
    with pytest.raises(ShrinkError, match="`keep` must name tokens of the tokenizer, got 'zebra'"):
        pruned("--vocabulary", corpus, "--keep", "zebra")
    assert not (tmp_path / "out").exists()
