"""What `prune_vocabulary` is told, what it refuses, and what it says of other texts."""

import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from transformers import PreTrainedTokenizerFast

from hf_shrink.architectures import architecture_of
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.cut import prune_vocabulary
from hf_shrink.pruning.vocabulary.definition import Definition
from hf_shrink.pruning.vocabulary.report import vocabulary_report
from hf_shrink.pruning.vocabulary.tokenizer_files import warn_of_lost_parts
from tests.architectures.models import FAMILIES, HEADS, answer, auto_class, tiny_inputs, tiny_model
from tests.models import WORDS, tiny_bert_classifier, tiny_tokenizer

TEXTS = ["my card is lost", "where is the money", "my card my card"]
USED = {"my", "card", "is", "lost", "where", "the", "money"}
FAMILIES_WITH_TOKENS = [f for f in FAMILIES if "vocabulary" in architecture_of(tiny_model(f, "")).cuts]


def numbered_tokenizer(tokens=57):
    """Words t0, t1, … from id 3 on."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *(f"t{i}" for i in range(tokens))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = tiny_tokenizer().backend_tokenizer.pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("family", FAMILIES_WITH_TOKENS)
def test_every_family_loads_smaller(family, tmp_path):
    model, tokenizer = tiny_model(family), numbered_tokenizer()
    texts = [" ".join(f"t{i}" for i in range(7, 57, 2)), "t8"]
    smaller, _ = prune_vocabulary(model, tokenizer, texts)
    kept = [0, 1, 2, *sorted([*range(10, 60, 2), 11])]
    inputs = tiny_inputs(model)
    names = ("decoder_input_ids",) if family == "whisper" else ("input_ids", "decoder_input_ids")
    chosen, new = dict(inputs), dict(inputs)
    for name in [name for name in names if name in inputs]:
        places = torch.randint(3, len(kept), inputs[name].shape, generator=torch.Generator().manual_seed(0))
        chosen[name], new[name] = torch.tensor(kept)[places], places
    expected = answer(model, **chosen)[..., kept]
    assert torch.allclose(answer(smaller, **new), expected, atol=1e-6)
    smaller.save_pretrained(tmp_path)
    loaded, report = auto_class(HEADS[family][0]).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.allclose(answer(loaded, **new), expected, atol=1e-6)
    assert loaded.config.vocab_size == len(kept)
    for other, module in zip(loaded.modules(), smaller.modules(), strict=True):
        numbers = {k: v for k, v in vars(module).items() if isinstance(v, int) and not isinstance(v, bool)}
        assert numbers == {key: vars(other)[key] for key in numbers}


def test_how_often_and_what_in_any_case():
    model, tokenizer = tiny_bert_classifier(), tiny_tokenizer()
    special = set(tokenizer.all_special_tokens)
    assert set(prune_vocabulary(model, tokenizer, TEXTS)[1].get_vocab()) == special | USED
    assert set(prune_vocabulary(model, tokenizer, TEXTS, 2)[1].get_vocab()) == special | {"my", "card", "is"}
    kept = prune_vocabulary(model, tokenizer, TEXTS, 2, ["pin"])[1].get_vocab()
    assert set(kept) == special | {"my", "card", "is", "pin"}


@pytest.mark.parametrize("corpus", [iter(TEXTS), Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2]})])
def test_streams_and_tables(corpus):
    smaller, tokenizer = prune_vocabulary(tiny_bert_classifier(), tiny_tokenizer(), corpus, batch_size=2)
    assert USED < set(tokenizer.get_vocab())
    assert smaller.config.vocab_size == len(tokenizer) == len(USED) + 5


def test_roberta_counts_positions_from_the_padding():
    """Id 0 is used by nothing, and stays, since the padding must keep its 1."""
    vocabulary = {token: i for i, token in enumerate(["unused", "[PAD]", "[UNK]", *WORDS])}
    backend = Tokenizer(WordLevel(dict(vocabulary), unk_token="[UNK]"))
    backend.pre_tokenizer = tiny_tokenizer().backend_tokenizer.pre_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    model = tiny_model("roberta", "SequenceClassification", pad_token_id=1)
    smaller, cut = prune_vocabulary(model, tokenizer, TEXTS)
    assert cut.pad_token_id == smaller.config.pad_token_id == 1
    rows = [t(TEXTS, padding=True, return_tensors="pt")["input_ids"] for t in (tokenizer, cut)]
    assert torch.allclose(answer(smaller, input_ids=rows[1]), answer(model, input_ids=rows[0]), atol=1e-6)
    bert = tiny_model("bert", "SequenceClassification", pad_token_id=1)  # whose positions do not depend on it
    assert prune_vocabulary(bert, tokenizer, TEXTS)[1].pad_token_id == 0


def test_a_row_without_a_token_stays_if_a_config_names_it():
    tokenizer = tiny_tokenizer()
    model = tiny_bert_classifier(vocab_size=len(tokenizer) + 4, eos_token_id=len(tokenizer) + 2)
    smaller, cut = prune_vocabulary(model, tokenizer, TEXTS)
    assert smaller.config.eos_token_id == len(cut) == smaller.config.vocab_size - 1
    old, new = (m.get_input_embeddings().weight for m in (model, smaller))
    assert torch.equal(new[-1], old[len(tokenizer) + 2])


def test_ids_beyond_all_rows_become_none():
    model = tiny_bert_classifier(bos_token_id=50256)
    assert prune_vocabulary(model, tiny_tokenizer(), TEXTS)[0].config.bos_token_id is None


def test_mode_and_frozen_weights():
    model = tiny_bert_classifier().train()
    model.get_input_embeddings().weight.requires_grad_(False)
    smaller, _ = prune_vocabulary(model, tiny_tokenizer(), TEXTS)
    assert smaller.training
    assert not smaller.get_input_embeddings().weight.requires_grad
    assert smaller.classifier.weight.requires_grad


class Changing:
    """Gives other rows each time."""

    def __init__(self):
        self.rows = [["my card"], ["my card"], ["the money"]]  # the first is looked at only

    def __iter__(self):
        return iter(self.rows.pop(0))


def test_the_check_is_a_check(monkeypatch):
    with pytest.raises(ShrinkError, match="the same rows each time it is read"):
        prune_vocabulary(tiny_bert_classifier(), tiny_tokenizer(), Changing())
    whole = Definition.cut

    def damaged(self, new_ids):
        parts = whole(self, new_ids)
        return {**parts, "model": {**parts["model"], "vocab": {**parts["model"]["vocab"], "lost": 6, "is": 7}}}

    monkeypatch.setattr(Definition, "cut", damaged)
    with pytest.raises(ShrinkError, match="`tokenizer` must read the corpus as before"):
        prune_vocabulary(tiny_bert_classifier(), tiny_tokenizer(), TEXTS)


def test_report_by_hand():
    tokenizer = tiny_tokenizer()
    _, cut = prune_vocabulary(tiny_bert_classifier(), tokenizer, TEXTS)
    report = vocabulary_report(tokenizer, cut, ["my card is new", "zebra pin pin", "the money"])
    assert (report.rows, report.same_rows, report.new_unknowns) == (3, 1, 3)  # new, and pin twice
    assert (report.tokens_before, report.tokens_after, report.inflation) == (5.0, 5.0, 1.0)
    assert (report.tokens_kept, report.tokens_total) == (12, len(tokenizer))
    assert report.to_dict()["inflation"] == 1.0
    assert str(report) == (
        f"12 of {len(tokenizer)} tokens; 33.3 % of 3 rows as before; 5.00 tokens a row instead of 5.00 (1.000x); "
        "3 new unknowns"
    )


def test_inflation_by_hand():
    """Without "lost" it takes four characters, and no unknown token."""
    pieces = ["[PAD]", "[UNK]", "lost", "l", "##o", "##s", "##t", "##o", "##st", "slot"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tiny_tokenizer().backend_tokenizer.pre_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    _, cut = prune_vocabulary(tiny_bert_classifier(), tokenizer, ["slot"])
    assert cut.tokenize("lost") == ["l", "##o", "##s", "##t"]
    report = vocabulary_report(tokenizer, cut, ["lost"])
    assert (report.inflation, report.new_unknowns) == (4.0, 0)


def test_a_change_by_hand_that_no_file_holds():
    """transformers 5 builds some classes' normalizers anew whenever they are loaded."""
    vocabulary = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "card", "Card"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordPiece(vocabulary, unk_token="[UNK]")))
    parts = {**json.loads(tokenizer.backend_tokenizer.to_str()), "normalizer": {"type": "Lowercase"}}
    with pytest.warns(UserWarning, match="builds its own normalizer when it is loaded"):
        warn_of_lost_parts(tokenizer, parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": []}, "`corpus` must hold text, got no rows"),
        ({"corpus": ["", ""]}, "`corpus` must hold text, got 2 rows without a token"),
        ({"min_count": 0}, "`min_count` must be a whole number from 1 on, got 0"),
        ({"min_count": 1.5}, "`min_count` must be a whole number"),
        ({"batch_size": 0}, "`batch_size` must be a whole number"),
        ({"keep": "card"}, r"`keep` must be a list of tokens, got 'card'. Write \['card'\]"),
        ({"keep": ["kard"]}, "`keep` must name tokens of the tokenizer, got 'kard'"),
        ({"tokenizer": object()}, "`tokenizer` must be a fast tokenizer, got object"),
        ({"model": torch.nn.Linear(2, 2)}, "`model` must be a transformers model to cut, got Linear"),
        ({"model": tiny_model("vit")}, "`model` must have token embeddings"),
        ({"model": tiny_model("whisper", "AudioClassification")}, "`model` must have token embeddings"),
        ({"model": tiny_bert_classifier(vocab_size=9)}, "`tokenizer` must have ids below 9"),
        ({"model": tiny_bert_classifier().to("meta")}, "weights on the meta device"),
    ],
)
def test_refusals(change, message):
    arguments = {"model": tiny_bert_classifier(), "tokenizer": tiny_tokenizer(), "corpus": TEXTS, **change}
    with pytest.raises(ShrinkError, match=message):
        prune_vocabulary(**arguments)


def test_adapters_are_refused():
    config = LoraConfig(target_modules=["query"], r=2)
    with pytest.raises(ShrinkError, match="got PeftModel"):
        prune_vocabulary(get_peft_model(tiny_bert_classifier(), config), tiny_tokenizer(), TEXTS)
    model = tiny_bert_classifier()
    model.add_adapter(config)
    with pytest.raises(ShrinkError, match="Merge adapters"):
        prune_vocabulary(model, tiny_tokenizer(), TEXTS)


def test_quantized_models_are_refused():
    model = tiny_bert_classifier()
    model.bert.pooler.dense.weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ShrinkError, match="must have float weights to cut, got a quantized"):
        prune_vocabulary(model, tiny_tokenizer(), TEXTS)
