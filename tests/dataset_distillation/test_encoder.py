"""encode: the vector of each row as one would make it by hand, and one clear error for what has none."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from huggingface_hub import HfApi
from transformers import ViTImageProcessor

from hf_shrink.dataset_distillation import encoder as encoder_module
from hf_shrink.dataset_distillation.encoder import encode
from hf_shrink.errors import ShrinkError
from tests.architectures.models import tiny_model
from tests.dataset_distillation.encoding import TEXTS, by_hand, save, texts, tiny_encoder
from tests.distillation.tasks import TASK_CASES
from tests.models import tiny_bert_classifier, tiny_tokenizer

HALF = 3e-4  # what rounding to half precision may change of a number below 1


def encoded(rows=None, model=None, **options):
    options = {"processing_class": tiny_tokenizer(), "batch_size": 3, **options}
    return encode(texts() if rows is None else rows, tiny_encoder() if model is None else model, **options)


# ------------------------------------------------------------------ texts
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_each_row_has_the_vector_that_it_has_alone(pooling):
    found = encoded(pooling=pooling)
    assert (found.shape, found.dtype) == ((len(TEXTS), 32), np.float16)
    np.testing.assert_allclose(found, by_hand(tiny_encoder(), TEXTS, pooling=pooling), atol=HALF)


def test_batches_hold_rows_of_about_one_length():
    model, widths = tiny_encoder(), []
    model.register_forward_pre_hook(lambda *call: widths.append(call[2]["input_ids"].shape), with_kwargs=True)
    encoded(model=model)
    assert [rows for rows, _ in widths] == [3, 3, 3, 2]
    assert [tokens for _, tokens in widths] == sorted((tokens for _, tokens in widths), reverse=True)
    lengths = [len(text.split()) + 2 for text in TEXTS]
    unsorted = sum(3 * max(lengths[i : i + 3]) for i in range(0, 9, 3)) + 2 * max(lengths[9:])
    assert sum(rows * tokens for rows, tokens in widths) < 0.9 * unsorted


def test_a_pair_is_read_as_one():
    rows = Dataset.from_dict({"question": TEXTS[:4], "sentence": TEXTS[4:8], "label": [0, 1, 0, 1]})
    np.testing.assert_allclose(encoded(rows), by_hand(tiny_encoder(), TEXTS[:4], TEXTS[4:8]), atol=HALF)


def test_words_are_read_as_their_text():
    rows = Dataset.from_dict({"tokens": [t.split() for t in TEXTS], "ner_tags": [[0]] * len(TEXTS)})
    np.testing.assert_array_equal(encoded(rows), encoded())


def test_tokenised_rows_are_read_as_they_are_unless_their_text_is_named():
    tokens = tiny_tokenizer()(TEXTS[::-1], return_token_type_ids=False)
    rows = Dataset.from_dict({"text": TEXTS, **tokens, "labels": [0] * len(TEXTS)})
    np.testing.assert_array_equal(encoded(rows), encoded(Dataset.from_dict({"text": TEXTS[::-1]})))
    np.testing.assert_array_equal(encoded(rows, text_column="text"), encoded())


def test_texts_are_cut():
    cut = by_hand(tiny_encoder(), TEXTS, truncation=True, max_length=4)
    np.testing.assert_allclose(encoded(max_length=4), cut, atol=HALF)


def test_a_tokenizer_that_knows_no_limit_is_told_that_of_the_model():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = int(1e30)
    rows = Dataset.from_dict({"text": ["card " * 80, "pin"]})
    found = encoded(rows, processing_class=tokenizer)
    cut = by_hand(tiny_encoder(), rows["text"], truncation=True, max_length=64)
    np.testing.assert_allclose(found, cut, atol=HALF)


# ------------------------------------------------------------------ models
def test_a_head_is_left_out_and_the_mode_stays():
    model = tiny_bert_classifier().train()
    model.bert.encoder.layer[0].eval()
    found = encoded(model=model)
    assert model.training
    assert not model.bert.encoder.layer[0].training
    np.testing.assert_allclose(found, by_hand(model.eval().bert, TEXTS), atol=HALF)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "distilbert", "roberta"])
def test_families_of_text_models(family):
    model = tiny_model(family)
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"  # as decoders have it: their positions must not move with the batch
    alone = [encode(texts().select([i]), model, processing_class=tokenizer)[0] for i in range(len(TEXTS))]
    together = encode(texts(), model, processing_class=tokenizer, batch_size=len(TEXTS))
    np.testing.assert_allclose(together, np.stack(alone), atol=HALF)
    assert np.ptp(together.astype(float), axis=0).max() > 0.05


def test_a_folder(tmp_path):
    folder = save(tiny_bert_classifier(), tmp_path)
    np.testing.assert_allclose(encode(texts(), folder), by_hand(tiny_bert_classifier().bert, TEXTS), atol=HALF)


def sentence_encoder(folder, *, nested=False, **extra):
    """As sentence-transformers saves a model that takes the first token's state of texts cut to 5 tokens."""
    inner = folder / "0_Transformer" if nested else folder
    save(tiny_encoder(), inner)
    (inner / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    modules = {
        "Transformer": inner.name if nested else "",
        "Pooling": "1_Pooling",
        "Normalize": "2_Normalize",
        **extra,
    }
    modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in modules.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


CUT_FIRST = {"pooling": "cls", "truncation": True, "max_length": 5}


@pytest.mark.parametrize("nested", [False, True])
def test_the_notes_of_sentence_transformers_are_followed(tmp_path, nested):
    folder = sentence_encoder(tmp_path, nested=nested)
    np.testing.assert_allclose(encode(texts(), folder), by_hand(tiny_encoder(), TEXTS, **CUT_FIRST), atol=HALF)
    other = encode(texts(), folder, pooling="mean", max_length=64)
    np.testing.assert_allclose(other, by_hand(tiny_encoder(), TEXTS), atol=HALF)


@pytest.mark.parametrize("nested", [False, True])
def test_a_sentence_encoder_of_the_hub(tmp_path, hub, nested):
    name = f"user/sentences-{nested}".lower()
    HfApi().create_repo(name)
    HfApi().upload_folder(repo_id=name, folder_path=sentence_encoder(tmp_path, nested=nested))
    np.testing.assert_allclose(encode(texts(), name), by_hand(tiny_encoder(), TEXTS, **CUT_FIRST), atol=HALF)


def test_a_layer_behind_the_pooling_is_not_left_out_in_silence(tmp_path):
    with pytest.raises(ShrinkError, match="but .* has Dense"):
        encode(texts(), sentence_encoder(tmp_path, Dense="2_Dense"))


# ------------------------------------------------------------------ images and sounds
def pictures(count=5):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": list(pixels), "label": [0] * count}, features=features)


def test_images_through_a_model():
    model, processor = tiny_model("vit"), ViTImageProcessor(size={"height": 16, "width": 16})
    found = encode(pictures(), model, processing_class=processor, batch_size=2)
    pixels = processor([p.convert("RGB") for p in pictures()["image"]], return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.vit(**pixels).last_hidden_state.mean(1), dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=HALF)


def test_images_by_their_pixels():
    found = encode(pictures(), batch_size=2)
    assert found.shape == (5, 3 * 32 * 32)
    expected = np.asarray(pictures()[4]["image"].resize((32, 32), 2), dtype=float).reshape(-1) / 127.5 - 1
    np.testing.assert_allclose(found[4], expected / np.linalg.norm(expected), atol=HALF)


def test_prepared_sounds():
    case = TASK_CASES["audio_classification"]
    rows = case.rows()
    found = encode(rows, case.teacher(), batch_size=3)
    with torch.no_grad():
        states = case.teacher().base_model(input_values=torch.tensor(rows["input_values"])).last_hidden_state
    np.testing.assert_allclose(found, torch.nn.functional.normalize(states.mean(1), dim=1).numpy(), atol=HALF)


# ------------------------------------------------------------------ without an encoder
def test_a_model_that_is_here_is_taken_before_words_are_counted(tmp_path, monkeypatch, hub):
    folder = save(tiny_encoder(), tmp_path / "m")
    monkeypatch.setattr(encoder_module, "packaged_minilm", lambda: folder)
    np.testing.assert_array_equal(encode(texts()), encode(texts(), folder))
    monkeypatch.setattr(encoder_module, "packaged_minilm", lambda: None)
    assert encoder_module.usual_encoder() is None
    monkeypatch.setattr(encoder_module, "USUAL_ENCODER", "user/usual")
    HfApi().create_repo("user/usual")
    HfApi().upload_folder(repo_id="user/usual", folder_path=folder)
    assert encoder_module.usual_encoder() is None  # it is on the Hub; nobody asked to download it
    expected = encode(texts(), "user/usual")
    np.testing.assert_array_equal(encode(texts()), expected)


def test_foreign_tokens_are_not_read_by_a_model_that_nobody_named(tmp_path, monkeypatch):
    folder = save(tiny_encoder(), tmp_path / "m")
    monkeypatch.setattr(encoder_module, "packaged_minilm", lambda: folder)
    rows = texts().add_column("input_ids", [[2, 7, 3]] * len(TEXTS))
    np.testing.assert_array_equal(encode(rows), encode(texts()))
    with pytest.raises(ShrinkError, match="`encoder` must be given"):
        encode(rows.select_columns("input_ids"))


# ------------------------------------------------------------------ what is refused
def broken(row_of="cash"):
    """NaN for one row."""
    model, token = tiny_encoder(), tiny_tokenizer().convert_tokens_to_ids(row_of)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[token] = float("nan")
    return model


class NoStates(torch.nn.Module):
    """Has a config and answers with something else."""

    def __init__(self, model):
        super().__init__()
        self.config, self.model = model.config, model
        self.base_model = model
        model.forward = lambda input_ids, attention_mask=None: {"text_embeds": input_ids}


REFUSED = {
    "an empty text": ({"rows": Dataset.from_dict({"text": ["a", "b", " \n"]})}, "row 2 of text is empty"),
    "a missing text": ({"rows": Dataset.from_dict({"text": ["a", None]})}, "row 1 of text is empty"),
    "no words": ({"rows": Dataset.from_dict({"tokens": [["a"], []]})}, "row 1 of tokens is empty"),
    "a missing side": (
        {"rows": Dataset.from_dict({"question": ["a", "b"], "context": ["", None]})},
        "row 1 of question and context",
    ),
    "no such column": ({"text_column": "body"}, "`text_column` must be one of"),
    "no rows": ({"rows": Dataset.from_dict({"text": []})}, "at least 1 row"),
    "a batch of nothing": ({"batch_size": 0}, "`batch_size`"),
    "another pooling": ({"pooling": "sum"}, "`pooling` must be one of"),
    "more than the positions": ({"max_length": 65}, "`max_length` must be at most 64"),
    "foreign tokens": ({"rows": Dataset.from_dict({"input_ids": [[2, 3], [2, 900, 3]]})}, "row 1 holds 900"),
    "too many tokens": ({"rows": Dataset.from_dict({"input_ids": [[2] * 65, [2, 3]]})}, "row 0 has 65 tokens"),
    "no tokens": ({"rows": Dataset.from_dict({"input_ids": [[2, 3], []]})}, "row 1 has none"),
    "a function": ({"model": len}, "`encoder` must be a transformers model"),
    "a tokenizer alone": ({"model": None, "processing_class": tiny_tokenizer()}, "`encoder` must be given with"),
    "NaN": ({"model": broken()}, "row 3 got NaN"),
    "no states": ({"model": NoStates(tiny_encoder())}, "must give hidden states, but BertModel gives"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_vector_is_refused(case):
    changes, match = REFUSED[case]
    options = {"rows": texts(), "model": tiny_encoder(), "processing_class": tiny_tokenizer(), **changes}
    rows, model = options.pop("rows"), options.pop("model")
    with pytest.raises(ShrinkError, match=match):
        encode(rows, model, **options)


def test_one_side_of_a_pair_may_say_nothing():
    rows = Dataset.from_dict({"question": ["my card", "pin"], "context": ["", "lost"]})
    assert encoded(rows).shape == (2, 32)


def test_the_first_bad_row_is_named_wherever_it_stands(monkeypatch):
    monkeypatch.setattr(encoder_module, "READ", 2)
    features = Features({"text": Value("large_string")})
    rows = Dataset.from_dict({"text": ["a", "b", "c", "", "e", ""]}, features=features)
    with pytest.raises(ShrinkError, match="row 3 of text"):
        encoded(rows)


def test_a_model_without_an_origin_needs_its_tokenizer():
    with pytest.raises(ShrinkError, match="`processing_class` must be given"):
        encode(texts(), tiny_encoder())


def test_a_folder_that_is_gone(tmp_path):
    folder = save(tiny_encoder(), tmp_path / "m")
    shutil.rmtree(folder)
    with pytest.raises(ShrinkError, match="does not exist"):
        encode(texts(), folder)
