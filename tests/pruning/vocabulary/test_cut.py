import copy
import json

import pytest
import torch

from hf_shrink.pruning.vocabulary.cut import prune_vocabulary
from hf_shrink.pruning.vocabulary.definition import Definition
from tests.pruning.vocabulary.trained import ADDED, CASES, corpus, greedy, logits, model_for, trained_tokenizer
from tests.stock import run_stock

STOCK = """
import json, torch, transformers
folder, rows = sys.argv[1], json.loads(sys.argv[2])
answers = {}
for path in sorted(Path(folder).iterdir()):
    head = (path / "head").read_text()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(path, trust_remote_code=False)
    outputs, made = [], []
    for row in rows:
        encoded = tokenizer(row, return_tensors="pt", truncation=True)
        extra = {"decoder_input_ids": encoded["input_ids"][:, :9]} if model.config.is_encoder_decoder else {}
        with torch.no_grad():
            outputs.append(model(**encoded, **extra).logits[0])
    if head in ("CausalLM", "Seq2SeqLM"):
        ids = model.generate(**encoded, min_new_tokens=32, max_new_tokens=32, do_sample=False)[0, -32:]
        made = tokenizer.convert_ids_to_tokens(ids)
    torch.save(outputs, path / "logits.pt")
    answers[path.name] = {
        "tokens": [tokenizer.convert_ids_to_tokens(tokenizer(row)["input_ids"]) for row in rows], "made": made,
        "settings": [type(tokenizer).__name__, tokenizer.padding_side, tokenizer.truncation_side,
                     tokenizer.model_max_length, tokenizer.chat_template],
    }
print(json.dumps(answers))
"""
GENERATORS = ("CausalLM", "Seq2SeqLM")
ROWS = corpus()[-4:]


def tokens_of(tokenizer, row):
    return tokenizer.convert_ids_to_tokens(tokenizer(row)["input_ids"])


def old_ids(tokenizer, smaller_tokenizer):
    """Old id of each new one."""
    ids, tokens = Definition(tokenizer.backend_tokenizer).ids, Definition(smaller_tokenizer.backend_tokenizer).tokens
    return [ids[tokens[i]] for i in range(len(smaller_tokenizer))]


def state(model, tokenizer):
    return (
        copy.deepcopy(model.state_dict()),
        model.config.to_dict(),
        model.generation_config.to_dict() if model.can_generate() else None,
        tokenizer.backend_tokenizer.to_str(),
    )


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Of each case the model, its tokenizer and the smaller ones, which are saved as well."""
    folder, cases = tmp_path_factory.mktemp("cut"), {}
    for name, case in CASES.items():
        tokenizer = trained_tokenizer(case, folder / "given" / name)
        model = model_for(case, tokenizer)
        before = state(model, tokenizer)
        made = greedy(model, tokenizer, ROWS[-1]) if case.head in GENERATORS else []
        smaller, smaller_tokenizer = prune_vocabulary(model, tokenizer, corpus(), keep=made)
        after = state(model, tokenizer)
        assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
        assert before[1:] == after[1:]
        smaller.save_pretrained(folder / "smaller" / name)
        smaller_tokenizer.save_pretrained(folder / "smaller" / name)
        (folder / "smaller" / name / "head").write_text(case.head)
        cases[name] = (model, tokenizer, smaller, smaller_tokenizer, made)
    return cases, folder / "smaller"


each = pytest.mark.parametrize("name", CASES)


@each
def test_the_corpus_is_read_as_before(cut, name):
    model, tokenizer, smaller, smaller_tokenizer, _ = cut[0][name]
    kept = old_ids(tokenizer, smaller_tokenizer)
    assert len(smaller_tokenizer) < 0.8 * len(tokenizer)
    assert kept == sorted(kept)
    per_token = CASES[name].head in ("MaskedLM", *GENERATORS)
    for row in corpus():
        assert tokens_of(smaller_tokenizer, row) == tokens_of(tokenizer, row)
        expected = logits(model, tokenizer, row)
        expected = expected[:, kept] if per_token else expected
        assert torch.allclose(logits(smaller, smaller_tokenizer, row), expected, atol=1e-6, rtol=0)


@each
def test_rows_and_special_tokens(cut, name):
    model, tokenizer, smaller, smaller_tokenizer, _ = cut[0][name]
    assert type(smaller_tokenizer) is type(tokenizer)
    assert len(smaller_tokenizer) == smaller.config.vocab_size == len(smaller.get_input_embeddings().weight)
    assert smaller_tokenizer.special_tokens_map == tokenizer.special_tokens_map
    assert set(smaller_tokenizer.get_added_vocab()) == set(tokenizer.get_added_vocab())
    assert any(ADDED in token for token in tokens_of(smaller_tokenizer, f"my {ADDED} is lost"))
    configs = [(model.config, smaller.config)]
    if model.can_generate():
        configs.append((model.generation_config, smaller.generation_config))
    for old, new in configs:
        for field in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = old.to_dict().get(field)
            token = None if value is None else tokenizer.convert_ids_to_tokens(value)
            found = new.to_dict().get(field)
            assert (None if found is None else smaller_tokenizer.convert_ids_to_tokens(found)) == token
    embeddings = smaller.get_input_embeddings()
    assert embeddings.num_embeddings == len(embeddings.weight)
    if model.get_input_embeddings().padding_idx is not None:
        assert embeddings.padding_idx == smaller_tokenizer.pad_token_id


@each
def test_ties_and_all_other_weights(cut, name):
    model, tokenizer, smaller, smaller_tokenizer, _ = cut[0][name]
    kept = old_ids(tokenizer, smaller_tokenizer)
    old = dict(model.named_parameters())
    new = dict(smaller.named_parameters())
    assert old.keys() == new.keys()
    for key, weight in new.items():
        rows = old[key][kept] if len(old[key]) == model.config.vocab_size else old[key]
        assert torch.equal(weight, rows), key
    table, head = smaller.get_input_embeddings().weight, smaller.get_output_embeddings()
    if head is not None:
        assert (head.weight.data_ptr() == table.data_ptr()) == smaller.config.tie_word_embeddings
        assert len(head.weight) == head.out_features == len(table)


def test_a_fresh_process_without_us(cut, tmp_path):
    cases, folder = cut
    answers = run_stock(STOCK, str(folder), json.dumps(ROWS), cwd=tmp_path)
    assert answers.keys() == CASES.keys()
    for name, (_, tokenizer, smaller, smaller_tokenizer, made) in cases.items():
        answer = answers[name]
        assert answer["tokens"] == [tokens_of(tokenizer, row) for row in ROWS]
        for found, row in zip(torch.load(folder / name / "logits.pt"), ROWS, strict=True):
            assert torch.allclose(found, logits(smaller, smaller_tokenizer, row), atol=1e-6, rtol=0)
        assert answer["made"] == made  # by the original
        assert answer["settings"] == [
            type(tokenizer).__name__,
            tokenizer.padding_side,
            "left",
            40,
            tokenizer.chat_template,
        ]
