import pytest
import torch
from transformers import BertConfig

from hf_shrink.distillation.alignment import align_classes, check_vocabularies
from hf_shrink.errors import ShrinkError
from tests.models import tiny_tokenizer


def config(names=None, **more):
    labels = (
        {} if names is None else {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    )
    return BertConfig(**labels, **more)


def test_index_brings_the_teacher_into_the_students_order():
    index = align_classes(config(["a", "b", "c"]), config(["c", "a", "b"]))
    teacher_logits = torch.tensor([[3.0, 1.0, 2.0]])  # for c, a, b
    assert teacher_logits[..., index].tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("student", "teacher"), [(["a", "b"], ["a", "b"]), (None, ["a", "b"]), (["a", "b"], None), (None, None)]
)
def test_equal_order_and_unchosen_names_need_no_index(student, teacher):
    assert align_classes(config(student, num_labels=2), config(teacher, num_labels=2)) is None


def test_disjoint_labels_are_refused_by_name():
    with pytest.raises(ShrinkError, match="lost"):
        align_classes(config(["lost", "b"]), config(["a", "b"]))


def test_vocabularies():
    tokenizer = tiny_tokenizer()
    used = len(tokenizer)
    check_vocabularies(config(vocab_size=used), config(vocab_size=used), None, None)
    check_vocabularies(config(vocab_size=used), config(vocab_size=used + 7), tokenizer, None)
    for sizes, given in (((used, used + 7), None), ((used, used - 1), tokenizer)):
        with pytest.raises(ShrinkError, match="vocabulary"):
            check_vocabularies(config(vocab_size=sizes[0]), config(vocab_size=sizes[1]), given, None)
    with pytest.raises(ShrinkError, match="tokenizer"):
        check_vocabularies(
            config(vocab_size=used), config(vocab_size=used), tokenizer, tiny_tokenizer(["other", "words"])
        )
