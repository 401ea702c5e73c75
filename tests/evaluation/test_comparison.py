import copy
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from scipy.stats import spearmanr
from tokenizers.normalizers import Lowercase, Replace, Sequence

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import METRICS, Provenance, ShrinkReport, compare
from hf_shrink.inputs import OnnxModel
from tests.evaluation.builders import (
    CLASSES,
    TAGS,
    classifier,
    labelled,
    logits_of,
    never_run,
    tagged,
    texts,
    tiny_bert,
    tiny_gpt2,
)
from tests.evaluation.test_chosen_metric import LocalMetric
from tests.models import WORDS, tiny_tokenizer

FAST = {"latency_runs": 0, "peak_memory": False, "progress": False}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("hf_shrink.evaluation.scores.RESAMPLES", 100)
    monkeypatch.setattr("hf_shrink.evaluation.scores.FOREIGN_RESAMPLES", 50)


def report_on(original, shrunk, rows, **options):
    return compare(
        original, shrunk, rows, **{"processing_class": tiny_tokenizer(), "batch_size": 5, **FAST, **options}
    )


# ------------------------------------------------------------------ tasks
def test_single_label_classification_is_that_of_each_row_alone():
    rows, models = labelled(), [classifier(), classifier(seed=1), classifier(layers=1)]
    report = report_on(models[0], models[1:], rows)
    found = [np.array([logits_of(model, text).argmax().item() for text in rows["text"]]) for model in models]
    for entry, ids in zip(report.entries, found, strict=True):
        assert entry.value == pytest.approx(np.mean(ids == np.array(rows["label"])))
        assert entry.low < entry.value < entry.high
    assert report.agreement == np.mean(found[0] == found[2])
    assert report.original.agreement is None
    assert report.entries[1].p_value is not None
    assert (report.task, report.metric, report.rows) == ("single_label_classification", "accuracy", 24)
    assert (report.interval, report.percent, report.higher_is_better) == ("Wilson 95 %", True, True)
    assert report.size_ratio > 1


def test_a_model_equals_itself():
    report = report_on(classifier(), classifier(), labelled())
    assert (report.agreement, report.retention, report.shrunk.p_value) == (1.0, 1.0, 1.0)
    assert report.verdict().endswith("no difference that these rows can show.")


def test_multi_label_classification():
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=CLASSES))})
    sets = [[0], [1, 2], [], [0, 1, 2]] * 3
    rows = Dataset.from_dict({"text": texts(12), "labels": sets}, features=features)
    models = [classifier(seed=seed, problem_type="multi_label_classification") for seed in (0, 1)]
    report = report_on(*models, rows, metric="f1_micro")
    wanted = np.array([[int(i in row) for i in range(3)] for row in sets])
    found = np.array([(logits_of(models[0], text) > 0).long().tolist() for text in rows["text"]])
    assert report.original.value == pytest.approx(METRICS["f1_micro"].function(found, wanted))
    assert (report.interval, report.shrunk.p_value) == ("bootstrap 95 %", None)
    assert report_on(*models, rows).original.value == pytest.approx((found == wanted).all(-1).mean())


def test_regression():
    draw = np.random.default_rng(0)
    rows = Dataset.from_dict({"text": texts(20), "label": draw.normal(size=20).tolist()})
    models = [tiny_bert("AutoModelForSequenceClassification", seed=seed, num_labels=1) for seed in (0, 1)]
    report = report_on(*models, rows, metric="spearman")
    found = [logits_of(models[1], text).item() for text in rows["text"]]
    assert report.task == "regression"
    assert report.shrunk.value == pytest.approx(spearmanr(found, rows["label"]).statistic)
    assert report.agreement is None
    assert not report_on(*models, rows, metric="mse").higher_is_better


def test_token_classification():
    rows = tagged()
    models = [
        tiny_bert("AutoModelForTokenClassification", seed=seed, id2label=dict(enumerate(TAGS))) for seed in (0, 1)
    ]
    report = report_on(*models, rows, metric="seqeval_f1")
    found, wanted = [], []
    for words, tags in zip(rows["tokens"], rows["ner_tags"], strict=True):
        logits = logits_of(models[0], " ".join(words))  # one token a word, between [CLS] and [SEP]
        found.append([TAGS[i] for i in logits[1:-1].argmax(-1).tolist()])
        wanted.append([TAGS[i] for i in tags])
    assert report.original.value == pytest.approx(METRICS["seqeval_f1"].function(found, wanted))
    assert 0 < report.agreement < 1
    accuracy = report_on(*models, rows, metric="accuracy")
    assert accuracy.original.value == pytest.approx(METRICS["accuracy"].function(found, wanted))
    assert accuracy.interval == "bootstrap 95 %"


@pytest.mark.parametrize("side", ["right", "left"])
def test_causal_language_model_perplexity_ignores_padding(side):
    rows, models = Dataset.from_dict({"text": texts(11)}), [tiny_gpt2(), tiny_gpt2(layers=1)]
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    report = report_on(*models, rows, metric="perplexity", processing_class=tokenizer)
    losses = []
    for text in rows["text"]:
        log_p = logits_of(models[1], text).log_softmax(-1)
        ids = torch.tensor(tokenizer(text)["input_ids"])
        losses += (-log_p[:-1].gather(-1, ids[1:, None])).flatten().tolist()
    assert report.shrunk.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert report.retention == pytest.approx(report.original.value / report.shrunk.value)
    assert report.shrunk.low < report.shrunk.value < report.shrunk.high
    assert tokenizer.padding_side == side
    assert report_on(*models, rows.map(lambda r: tokenizer(r["text"])), metric="perplexity").original.value == (
        pytest.approx(report.original.value)
    )


def test_masked_language_models_see_the_same_masks():
    rows = Dataset.from_dict({"text": texts(40)})
    models = [tiny_bert("AutoModelForMaskedLM", seed=seed) for seed in (0, 1)]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    report = report_on(models[0], [models[0], models[1]], rows, metric="perplexity", names=["a", "a again", "b"])
    assert torch.rand(1) == expected  # the caller's random numbers go on as if nothing had been drawn
    assert report.entries[1].value == report.original.value > 1
    assert report.entries[1].agreement == 1.0
    assert report.shrunk.value != report.original.value
    assert report_on(*models, rows, metric="perplexity").original.value == report.original.value


def test_exported_graph(graph_folder):
    report = report_on(classifier(), OnnxModel(graph_folder), labelled(), latency_runs=2, threads=1)
    module, graph = report.entries
    assert (graph.value, graph.agreement, graph.p_value) == (module.value, 1.0, 1.0)
    assert (graph.parameters, graph.macs) == (module.parameters, module.macs)
    assert (module.macs_note, graph.macs_note) == (None, "of the float source")
    assert graph.latency.threads == module.latency.threads == report.environment.threads == 1
    assert report.speedup == module.latency.p50_ms / graph.latency.p50_ms


# ------------------------------------------------------------------ models with a vocabulary of their own
def renumbered(model, kept):
    """The model for fewer words in another order, and a tokenizer of these."""
    tokenizer, smaller = tiny_tokenizer(), tiny_tokenizer(kept)
    names = sorted(smaller.get_vocab(), key=smaller.get_vocab().get)
    rows = [tokenizer.get_vocab()[name] for name in names]
    changed = copy.deepcopy(model)
    embeddings = torch.nn.Embedding.from_pretrained(model.get_input_embeddings().weight[rows].detach().clone())
    changed.set_input_embeddings(embeddings)
    changed.config.vocab_size = len(rows)
    if (head := model.get_output_embeddings()) is not None:
        smaller_head = torch.nn.Linear(head.in_features, len(rows), bias=head.bias is not None)
        smaller_head.weight = embeddings.weight
        if head.bias is not None:
            smaller_head.bias = torch.nn.Parameter(head.bias[rows].detach().clone())
        changed.set_output_embeddings(smaller_head)
    return changed, smaller


def test_a_smaller_vocabulary_reads_with_its_own_tokenizer(tmp_path):
    model, rows = classifier(seed=3), labelled()  # of which the tokens change the class
    smaller, tokenizer = renumbered(model, list(reversed(WORDS)))
    reader = tiny_tokenizer([*WORDS, "unused"])  # the same ids, so that there is a smaller vocabulary
    model.resize_token_embeddings(len(reader), mean_resizing=False)
    report = report_on(model, smaller, rows, processing_class=[reader, tokenizer])
    assert (report.agreement, report.shrunk.value) == (1.0, report.original.value)
    assert report_on(model, smaller, rows, processing_class=reader).agreement < 1
    for name, saved, its in (("teacher", model, reader), ("smaller", smaller, tokenizer)):
        saved.save_pretrained(tmp_path / name)
        its.save_pretrained(tmp_path / name)
    assert compare(tmp_path / "teacher", tmp_path / "smaller", rows, **FAST).agreement == 1.0


@pytest.mark.parametrize(("make", "task"), [(tiny_gpt2, "causal_lm"), (tiny_bert, "masked_lm")])
def test_perplexities_of_two_vocabularies_are_comparable(make, task):
    model = make() if task == "causal_lm" else make("AutoModelForMaskedLM")
    rows = Dataset.from_dict({"text": texts(15)})
    smaller, tokenizer = renumbered(model, list(reversed(WORDS)))
    readers = [tiny_tokenizer(), tokenizer]
    alike = report_on(model, smaller, rows, metric="perplexity", processing_class=readers)
    assert alike.agreement == 1.0
    assert alike.shrunk.value == pytest.approx(alike.original.value, rel=1e-5)


def test_a_likelihood_is_shared_out_over_the_original_tokens():
    rows = Dataset.from_dict({"text": ["my card is lost", "help me please"]})
    model = tiny_gpt2()
    joined = tiny_tokenizer()
    joined.backend_tokenizer.normalizer = Sequence([Lowercase(), Replace("card is", "cash")])
    report = report_on(model, model, rows, metric="perplexity", processing_class=[tiny_tokenizer(), joined])
    nats = 0.0
    for text in ("my cash lost", "help me please"):
        ids = torch.tensor(tiny_tokenizer()(text)["input_ids"])
        nats -= logits_of(model, text).log_softmax(-1)[:-1].gather(-1, ids[1:, None]).sum().item()
    assert report.shrunk.value == pytest.approx(math.exp(nats / (5 + 4)), rel=1e-4)
    assert report.agreement is None


def test_tokenised_rows_have_one_tokenizer():
    rows = labelled().map(lambda row: tiny_tokenizer()(row["text"]), remove_columns="text")
    with pytest.raises(
        ShrinkError, match="`processing_class` must be one for all models where the rows are tokenised"
    ):
        report_on(classifier(), classifier(), rows, processing_class=[tiny_tokenizer(), tiny_tokenizer()])


# ------------------------------------------------------------------ inputs
def test_folders_names_methods_and_provenance(tmp_path, graph_folder):
    for name, layers in (("teacher", 2), ("student", 1)):
        classifier(layers=layers).save_pretrained(tmp_path / name)
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")

    class Artifact:
        path = graph_folder
        method = "onnx-int8"

        def load(self):
            return OnnxModel(self.path)

    labelled().to_parquet(tmp_path / "test.parquet")
    report = compare(
        tmp_path / "teacher", [tmp_path / "student", Artifact()], tmp_path / "test.parquet", split="test", **FAST
    )
    assert [entry.name for entry in report.entries] == ["teacher", "student", "graph"]
    assert [entry.method for entry in report.entries] == [None, None, "onnx-int8"]
    assert (report.dataset, report.split) == ("test.parquet", "test")
    assert report.provenance == Provenance(pipeline_tag="text-classification")
    assert str(tmp_path) not in report.to_json(tmp_path / "report.json").read_text()
    assert ShrinkReport.from_json(tmp_path / "report.json") == report
    named = report_on(classifier(), classifier(), labelled(), names=["a", "b"], methods=[None, "copy"])
    assert [(entry.name, entry.method) for entry in named.entries] == [("a", None), ("b", "copy")]
    twins = report_on(classifier(), [classifier(), classifier()], labelled())
    assert len({entry.name for entry in twins.entries}) == 3


def test_lengths_threads_and_what_was_left_out():
    rows = labelled()
    lengths = sorted(len(ids) for ids in tiny_tokenizer()(rows["text"][:])["input_ids"])
    report = report_on(classifier(), classifier(layers=1), rows, latency_runs=2, threads=1)
    assert report.macs_shape == (1, round(np.median(lengths)))
    assert report.original.latency.sequence_length == round(np.median(lengths))
    assert report.original.peak_memory_bytes is None
    assert report_on(classifier(), classifier(), rows, sequence_length=9).macs_shape == (1, 9)
    bare = report_on(classifier(), classifier(), rows)
    assert (bare.original.latency, bare.speedup, bare.environment.threads) == (None, None, None)


def test_rows_are_cut_to_what_all_models_can_read():
    rows = labelled()
    rows = rows.map(lambda row: {"text": " ".join([row["text"]] * 20)})
    short = classifier(max_position_embeddings=16)
    assert report_on(classifier(), short, rows).macs_shape == (1, 16)
    with pytest.raises(ShrinkError, match="`max_length` must be at most 16 .*, but rows have up to 40 tokens"):
        report_on(classifier(), never_run(short), rows, max_length=40)


def test_mode_of_the_models_is_kept_and_dropout_is_off():
    model = classifier(hidden_dropout_prob=0.5).train()
    report = report_on(model, model, labelled())
    assert report.agreement == 1.0
    assert model.training


def test_classes_are_matched_by_name():
    rows, model = labelled(), classifier()
    order = [2, 0, 1]
    permuted = classifier(names=[CLASSES[i] for i in order])
    with torch.no_grad():
        permuted.load_state_dict(model.state_dict())
        for tensor in (permuted.classifier.weight, permuted.classifier.bias):
            tensor.copy_(tensor[order])
    report = report_on(model, permuted, rows)
    assert report.agreement == 1.0
    assert report.shrunk.value == report.original.value
    shuffled = rows.map(lambda r: {"label": order.index(r["label"])}).cast_column(
        "label", ClassLabel(names=[CLASSES[i] for i in order])
    )
    assert report_on(model, permuted, shuffled).original.value == report.original.value


def test_own_metrics(monkeypatch):
    rows, models = labelled(), [classifier(), classifier(seed=1)]
    accuracy = report_on(*models, rows)

    def wrong(predictions, references):
        return float(np.mean(predictions != references))

    own = report_on(*models, rows, metric=wrong, higher_is_better=False)
    assert (own.metric, own.higher_is_better, own.percent) == ("wrong", False, False)
    assert own.shrunk.value == pytest.approx(1 - accuracy.shrunk.value)
    module = report_on(*models, rows, metric=LocalMetric())
    assert module.shrunk.value == pytest.approx(accuracy.shrunk.value)
    assert module.shrunk.low < module.shrunk.value < module.shrunk.high


def test_numbers_that_are_none_are_refused():
    broken = classifier()
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    with pytest.raises(ShrinkError, match="`model` must give numbers, but BertForSequenceClassification gave NaN"):
        report_on(classifier(), broken, labelled())


# ------------------------------------------------------------------ refused before any model runs
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "`metric` must be one of"),
        ({"metric": "perplexity"}, "`metric` must fit the task 'single_label_classification'"),
        ({"metric": lambda predictions, references: references["x"]}, "`metric` '<lambda>' must take"),
        ({"label_column": "intent"}, "`label_column` must be one of"),
        ({"text_column": "question"}, "`text_column` must be one of"),
        ({"task": "question_answering"}, "`task` must be one of .* to be scored"),
        ({"names": ["teacher"]}, "`names` must hold 2 values"),
        ({"names": "ab"}, "`names` must hold 2 values"),
        ({"processing_class": [tiny_tokenizer()]}, "`processing_class` must hold 2 values"),
        ({"methods": [None]}, "`methods` must hold 2 values"),
        ({"split": "validation"}, "`split` must be left out"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"latency_runs": -1}, "`latency_runs` must be at least 1, got -1"),
        ({"sequence_length": 0}, "`sequence_length` must be at least 1, got 0"),
        (
            {"processing_class": tiny_tokenizer([f"word{i}" for i in range(50)] + ["card"])},
            "`processing_class` must be",
        ),
    ],
)
def test_bad_arguments(options, message):
    rows = labelled().map(lambda row: {"text": row["text"] + " card"})
    with pytest.raises(ShrinkError, match=message):
        report_on(never_run(classifier()), never_run(classifier()), rows, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (labelled().select([]), "`dataset` must hold at least 1 row, got 0"),
        (labelled().remove_columns("label"), "`label_column` must be given"),
        (labelled(names=["no", "yes", "maybe"]), "`label_column` must hold the model's classes"),
        (labelled().cast_column("label", Value("int64")).map(lambda r: {"label": 7}), r"class ids in \[0, 3\)"),
        (labelled().cast_column("label", Value("int64")).map(lambda r: {"label": -100}), "at least 1 labelled row"),
    ],
    ids=["empty", "unlabelled", "other classes", "out of range", "ignored"],
)
def test_bad_rows(rows, message):
    with pytest.raises(ShrinkError, match=message):
        report_on(never_run(classifier()), never_run(classifier()), rows)


def test_bad_models():
    rows, original = labelled(), never_run(classifier())
    with pytest.raises(ShrinkError, match="`shrunk` must name at least 1 model"):
        report_on(original, [], rows)
    with pytest.raises(ShrinkError, match="`shrunk` must have the original's 3 labels, got 2"):
        report_on(original, never_run(classifier(names=CLASSES[:2])), rows)
    with pytest.raises(ShrinkError, match=r"`shrunk` must have the original's 3 labels, got 3, .*'cash', 'transfer'"):
        report_on(original, never_run(classifier(names=["lost", "top up", "cash"])), rows)
    with pytest.raises(ShrinkError, match="`processing_class` must be given"):
        report_on(original, never_run(classifier()), rows, processing_class=None)
