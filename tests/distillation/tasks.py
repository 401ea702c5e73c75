"""Every task once: tiny student and teacher, eight rows of unequal length, and the loss of one row by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from tests.models import randomize, tiny_bert_classifier, tiny_tokenizer

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TEXTS = [
    "my card is lost",
    "help",
    "where is the money please",
    "top up failed with pending cash transfer please help me",
    "new pin",
    "transfer failed",
    "my new card is pending where is my money",
    "cash",
]
CLASSES = [0, 1, 2, 0, 1, -100, 2, 1]  # one row without a label: it learns from the teacher alone
VOCABULARY = len(tiny_tokenizer())
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.3}


@dataclass(frozen=True)
class Sums:
    """One row's part of the loss, before it is divided by the counts of the step."""

    kd: torch.Tensor
    heard: int
    ce: torch.Tensor | float = 0.0
    labelled: int = 0


@dataclass(frozen=True)
class TaskCase:
    """A task with all that a step needs.

    Args:
        make: Takes layers, seed and further config, and gives a model.
        rows: Eight rows.
        collator: Pads them.
        by_hand: Takes outputs of student and teacher for one row without padding, the row and the temperature.
    """

    make: Callable[..., Any]
    rows: Callable[[], Dataset]
    collator: Callable[[], Any]
    by_hand: Callable[[Any, Any, Any, float], Sums]

    def student(self, **config: Any) -> Any:
        """Two layers, no dropout, so that one step has one right gradient."""
        return self.make(2, 8, **config)

    def teacher(self, **config: Any) -> Any:
        """Four layers, dropout where the family has it: only in evaluation mode does it give the same answer twice."""
        return self.make(4, 12, **config)


def gradient_by_hand(
    case: TaskCase, alpha: float, temperature: float, rows: Dataset | None = None
) -> dict[str, torch.Tensor]:
    """alpha · teacher term + (1 - alpha) · label term, row by row, without a batch, padding or trainer."""
    student, teacher, collate = case.student().train(), case.teacher().eval(), case.collator()
    parts = []
    for row in case.rows() if rows is None else rows:
        batch = dict(collate([row]))
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "start_positions", "end_positions")}
        if student.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = F.pad(batch["labels"][:, :-1], (1, 0))  # begins with token 0
        with torch.no_grad():
            theirs = teacher(**inputs)
        parts.append(case.by_hand(student(**inputs), theirs, batch, temperature))
    heard, labelled = sum(part.heard for part in parts), sum(part.labelled for part in parts)
    kd = sum(part.kd for part in parts) / heard
    ce = sum(part.ce for part in parts) / labelled if labelled else 0.0
    loss = alpha * kd + (1 - alpha) * ce if labelled else kd
    loss.backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


def softened(own: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(teacher ‖ student) in full over the last axis and all positions."""
    target = F.softmax(theirs / temperature, dim=-1)
    return temperature**2 * (target * (target.log() - F.log_softmax(own / temperature, dim=-1))).sum()


def entropy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Cross-entropy in full where there is a label, and how often there is one."""
    known = labels != -100
    chosen = F.log_softmax(logits[known], dim=-1).gather(-1, labels[known].unsqueeze(-1))
    return -chosen.sum(), int(known.sum())


# ---------------------------------------------------------------------- classification
def _classifier(layers, seed, **config):
    return tiny_bert_classifier(num_hidden_layers=layers, seed=seed, **(NO_DROPOUT if layers == 2 else {}), **config)


def _texts(**columns):
    return lambda: Dataset.from_dict({**tiny_tokenizer()(TEXTS), **columns})


def _padding():
    return DataCollatorWithPadding(tiny_tokenizer())


def _classes_by_hand(own, theirs, row, temperature):
    ce, labelled = entropy(own.logits, row["labels"].reshape(-1))
    return Sums(softened(own.logits, theirs.logits, temperature), 1, ce, labelled)


MULTI_HOT = [
    [float(i == label), float(label > 0), 1.0] if label >= 0 else [-100.0] * 3 for i, label in enumerate(CLASSES)
]


def _labels_by_hand(own, theirs, row, temperature):
    kd = 0.0
    for sign in (1, -1):  # the label is there, or it is not
        target = torch.sigmoid(sign * theirs.logits / temperature)
        kd = kd + (target * (target.log() - F.logsigmoid(sign * own.logits / temperature))).sum()
    labels = row["labels"]
    known = labels != -100
    z, y = own.logits[known], labels[known]
    ce = -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).sum()
    return Sums(temperature**2 * kd / labels.shape[-1], 1, ce, int(known.sum()))


def _values_by_hand(own, theirs, row, temperature):
    target = row["labels"].reshape(own.logits.shape)
    return Sums(((own.logits - theirs.logits) ** 2).sum(), 1, ((own.logits - target) ** 2).sum(), 1)


def _tagger(layers, seed, **config):
    return _bert(BertForTokenClassification, layers, seed, num_labels=3, **config)


def _bert(model_class, layers, seed, **config):
    torch.manual_seed(seed)
    dropout = NO_DROPOUT if layers == 2 else {}
    sizes = {**SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
    return randomize(model_class(BertConfig(num_hidden_layers=layers, **{**sizes, **dropout, **config})), seed)


def _tagged():
    encoded = tiny_tokenizer()(TEXTS)
    tags = [[-100, *[(i + j) % 3 for j in range(len(ids) - 2)], -100] for i, ids in enumerate(encoded["input_ids"])]
    tags[3][2:5] = [-100] * 3
    tags[5] = [-100] * len(tags[5])  # no label at all: the teacher is heard at every token
    return Dataset.from_dict({**encoded, "labels": tags})


def _tags_by_hand(own, theirs, row, temperature):
    labels = row["labels"][0]
    heard = (labels != -100) if (labels != -100).any() else torch.ones_like(labels, dtype=torch.bool)
    ce, labelled = entropy(own.logits[0], labels)
    return Sums(softened(own.logits[0, heard], theirs.logits[0, heard], temperature), int(heard.sum()), ce, labelled)


# ---------------------------------------------------------------------- answers
def _reader(layers, seed, **config):
    return _bert(BertForQuestionAnswering, layers, seed, **config)


def _answers():
    encoded = tiny_tokenizer()(TEXTS)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    start, end = [1] * 8, [length - 1 for length in lengths]
    start[5] = end[5] = -100
    return Dataset.from_dict({**encoded, "start_positions": start, "end_positions": end})


def _answers_by_hand(own, theirs, row, temperature):
    sides = (("start_logits", "start_positions"), ("end_logits", "end_positions"))
    kd = sum(softened(own[logits], theirs[logits], temperature) for logits, _ in sides)
    entropies = [entropy(own[logits], row[position].reshape(-1)) for logits, position in sides]
    return Sums(kd, 2, sum(ce for ce, _ in entropies), sum(count for _, count in entropies))


# ---------------------------------------------------------------------- language
def _masked(layers, seed, **config):
    return _bert(BertForMaskedLM, layers, seed, **config)


def _masked_rows():
    encoded = tiny_tokenizer()(TEXTS)
    labels = [[t if j % 3 == 1 else -100 for j, t in enumerate(ids)] for ids in encoded["input_ids"]]
    masked = [[4 if j % 3 == 1 else t for j, t in enumerate(ids)] for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "input_ids": masked, "labels": labels})


def _tokens_by_hand(own, theirs, row, temperature, shift=0):
    labels = row["labels"][0, shift:]
    own, theirs = (out.logits[0, : len(labels)] for out in (own, theirs))
    heard = labels != -100
    ce, labelled = entropy(own, labels)
    return Sums(softened(own[heard], theirs[heard], temperature), int(heard.sum()), ce, labelled)


def _causal(layers, seed, **config):
    torch.manual_seed(seed)
    sizes = {**SMALL, "vocab_size": VOCABULARY, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 2}
    settings = {**sizes, "eos_token_id": 3, "max_position_embeddings": 64, **config}
    return randomize(LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **settings)), seed)


def _causal_rows():
    encoded = tiny_tokenizer()(TEXTS, return_token_type_ids=False)
    labels = [[-100 if j < 2 else t for j, t in enumerate(ids)] for ids in encoded["input_ids"]]  # a prompt
    return Dataset.from_dict({**encoded, "labels": labels})


def _seq2seq(layers, seed, **config):
    torch.manual_seed(seed)
    settings = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "vocab_size": VOCABULARY, "pad_token_id": 0}
    settings |= {"decoder_start_token_id": 0, "eos_token_id": 3, "initializer_factor": 1.0}
    dropout = {"dropout_rate": 0.0} if layers == 2 else {}
    return randomize(
        T5ForConditionalGeneration(T5Config(num_layers=layers, **{**settings, **dropout, **config})), seed
    )


def _seq2seq_rows():
    encoded = tiny_tokenizer()(TEXTS, return_token_type_ids=False)
    return Dataset.from_dict({**encoded, "labels": [ids[1:] for ids in reversed(encoded["input_ids"])]})


# ---------------------------------------------------------------------- images, sound, embeddings
def _vision(layers, seed, **config):
    torch.manual_seed(seed)
    settings = {**SMALL, "image_size": 8, "patch_size": 4, "num_labels": 3, **(NO_DROPOUT if layers == 2 else {})}
    return randomize(ViTForImageClassification(ViTConfig(num_hidden_layers=layers, **{**settings, **config})), seed)


def _pictures():
    pixels = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Dataset.from_dict({"pixel_values": pixels.tolist(), "labels": CLASSES})


def _audio(layers, seed, **config):
    torch.manual_seed(seed)
    settings = {**SMALL, "patch_size": 4, "num_mel_bins": 8, "max_length": 16, "num_labels": 3}
    settings |= {"frequency_stride": 4, "time_stride": 4, **(NO_DROPOUT if layers == 2 else {})}
    return randomize(ASTForAudioClassification(ASTConfig(num_hidden_layers=layers, **{**settings, **config})), seed)


def _sounds():
    values = torch.randn(8, 16, 8, generator=torch.Generator().manual_seed(0))
    return Dataset.from_dict({"input_values": values.tolist(), "labels": CLASSES})


def _encoder(layers, seed, **config):
    return _bert(BertModel, layers, seed, **config)


def _vectors_by_hand(own, theirs, row, temperature):
    own, theirs = (out.last_hidden_state.mean(1)[0] for out in (own, theirs))
    return Sums(1 - (own @ theirs) / (own.norm() * theirs.norm()), 1)


TASK_CASES = {
    "single_label_classification": TaskCase(_classifier, _texts(labels=CLASSES), _padding, _classes_by_hand),
    "multi_label_classification": TaskCase(
        lambda layers, seed, **config: _classifier(layers, seed, problem_type="multi_label_classification", **config),
        _texts(labels=MULTI_HOT),
        _padding,
        _labels_by_hand,
    ),
    "regression": TaskCase(
        lambda layers, seed, **config: _classifier(layers, seed, **{"num_labels": 1, **config}),
        _texts(labels=[0.5, -1.0, 2.0, 0.0, 1.0, 3.0, -2.0, 0.25]),
        _padding,
        _values_by_hand,
    ),
    "token_classification": TaskCase(
        _tagger, _tagged, lambda: DataCollatorForTokenClassification(tiny_tokenizer()), _tags_by_hand
    ),
    "question_answering": TaskCase(_reader, _answers, _padding, _answers_by_hand),
    "masked_lm": TaskCase(
        _masked, _masked_rows, lambda: DataCollatorForTokenClassification(tiny_tokenizer()), _tokens_by_hand
    ),
    "causal_lm": TaskCase(
        _causal,
        _causal_rows,
        lambda: DataCollatorForSeq2Seq(tiny_tokenizer()),
        lambda own, theirs, row, temperature: _tokens_by_hand(own, theirs, row, temperature, shift=1),
    ),
    "seq2seq_lm": TaskCase(_seq2seq, _seq2seq_rows, lambda: DataCollatorForSeq2Seq(tiny_tokenizer()), _tokens_by_hand),
    "image_classification": TaskCase(_vision, _pictures, DefaultDataCollator, _classes_by_hand),
    "audio_classification": TaskCase(_audio, _sounds, DefaultDataCollator, _classes_by_hand),
    "feature_extraction": TaskCase(_encoder, _texts(), _padding, _vectors_by_hand),
}
