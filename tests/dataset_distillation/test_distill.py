import json
import logging

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value, load_dataset
from threadpoolctl import threadpool_limits

from hf_shrink import DatasetReport, ShrinkError, distill_dataset, push_dataset_to_hub
from hf_shrink.dataset_distillation.candidates import as_picks
from tests.dataset_distillation.clusters import CLASSES, clustered, labelled_rows, noise_pool
from tests.dataset_distillation.encoding import save, texts, tiny_encoder
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.processes import run_processes

FAST = {"curve": False, "duplicates": None}


@pytest.fixture(scope="module")
def given():
    return labelled_rows()


# ---------------------------------------------------------------------- what comes out
def test_auto_keeps_the_budget_the_classes_and_what_it_measured(given):
    rows, vectors = given
    small = distill_dataset(rows, 0.05, embeddings=vectors)
    assert len(small) == 30
    assert small.column_names[:5] == ["text", "label", "source_index", "rank", "weight"]
    assert small.features["label"] == ClassLabel(names=list(CLASSES))
    assert set(small["label"]) == {0, 1, 2, 3}
    assert sorted(small["rank"][:]) == list(range(30))
    assert np.mean(small["weight"]) == pytest.approx(1)
    for row in small:
        assert row["text"] == rows[row["source_index"]]["text"]
    report = DatasetReport.of(small)
    assert report.selector in ("kmeans", "facility_location", "herding", "ccs")
    assert report.verdict.startswith("It beat a stratified sample by")
    assert report.coverage.mean < report.stratified_coverage.mean
    assert report.curve[-1].rows == 600
    assert (report.rows_before, report.rows, report.encoder) == (600, 30, "the user")


def test_auto_is_the_stratified_sample_where_nothing_beats_it():
    blind = noise_pool()
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(CLASSES))})
    texts_of = [f"row {i}" for i in range(400)]
    rows = Dataset.from_dict({"text": texts_of, "label": blind.strata.ids.tolist()}, features=features)
    auto = distill_dataset(rows, 40, embeddings=blind.embeddings, label_noise=False, **FAST)
    plain = distill_dataset(rows, 40, method="stratified", embeddings=blind.embeddings, **FAST)
    assert DatasetReport.of(auto).verdict.startswith("No method tried beat a stratified sample")
    assert DatasetReport.of(auto).selector == "stratified"
    assert auto["source_index"][:] == plain["source_index"][:]


def test_a_method_that_loses_to_the_sample_says_so(given, caplog):
    rows, vectors = given

    def first_rows(candidates, count, generator):
        return as_picks(np.argsort(candidates.embeddings[:, 0], kind="stable")[:count])

    logging.getLogger("hf_shrink").addHandler(caplog.handler)
    small = distill_dataset(rows, 40, method=first_rows, embeddings=vectors, duplicates=None)
    logging.getLogger("hf_shrink").removeHandler(caplog.handler)
    assert DatasetReport.of(small).verdict.endswith("less than a stratified sample on held-out rows.")
    assert "less than a stratified sample of as many rows" in caplog.text


def test_a_named_method_that_is_not_measured_says_so(given):
    rows, _ = given
    small = distill_dataset(rows, {"per_class": 5}, method="stratified", duplicates=None)
    assert np.bincount(small["label"]).tolist() == [5] * 4
    report = DatasetReport.of(small)
    assert (report.encoder, report.curve, report.metric) == (None, (), "")
    assert report.verdict == "It was not held against a stratified sample."


def test_rows_are_chosen_alike_for_lists_arrays_and_tensors(given):
    rows, vectors = given
    found = [
        distill_dataset(rows, 30, embeddings=kind, **FAST)
        for kind in (vectors, vectors.tolist(), vectors.astype(np.float64), torch.from_numpy(vectors), 3 * vectors)
    ]
    assert len({tuple(small["source_index"]) for small in found}) == 1
    assert len({small._fingerprint for small in found}) == 1


@pytest.mark.parametrize("method", ["auto", "kmeans", "facility_location", "d2"])
def test_rows_are_chosen_alike_for_any_number_of_threads(given, method):
    rows, vectors = given
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            found.append(distill_dataset(rows, 30, method=method, embeddings=vectors, **FAST)["source_index"][:])
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.slow
def test_rows_are_chosen_alike_for_any_number_of_processes(tmp_path):
    found = {}
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        save(tiny_encoder(), folder / "model")
        run_processes(count, "tests.dataset_distillation.distill_in_processes", folder, 1)
        for path in folder.glob("*-*.json"):
            found.setdefault(path.name.split("-")[0], []).append(path.read_text())
    for method, texts_of in found.items():
        assert len(texts_of) == 7, method
        assert len(set(texts_of)) == 1, method


def test_another_seed_is_another_sample(given):
    rows, _ = given
    first, second = (distill_dataset(rows, 30, method="stratified", seed=seed, **FAST) for seed in (0, 1))
    assert set(first["source_index"]) != set(second["source_index"])


# ---------------------------------------------------------------------- kinds of rows
def test_rows_with_several_labels():
    vectors, ids = clustered()
    feature = List(ClassLabel(names=["a", "b", "c", "rare"]))
    labels = [sorted({int(k) % 3, int(k) // 2}) + ([3] if i % 60 == 0 else []) for i, k in enumerate(ids)]
    features = Features({"text": Value("string"), "label": feature})
    rows = Dataset.from_dict({"text": [f"row {i}" for i in range(600)], "label": labels}, features=features)
    small = distill_dataset(rows, 60, embeddings=vectors)
    report = DatasetReport.of(small)
    assert report.metric == "micro F1"
    plain = distill_dataset(rows, 60, method="stratified", **FAST)
    assert sum(3 in row for row in plain["label"]) == 1  # one in ten of the ten


def test_numbers_as_labels():
    vectors, _ = clustered()
    values = (vectors @ np.arange(24)).tolist()
    features = Features({"text": Value("string"), "score": Value("float32")})
    rows = Dataset.from_dict({"text": [f"row {i}" for i in range(600)], "score": values}, features=features)
    small = distill_dataset(rows, 60, embeddings=vectors)
    assert DatasetReport.of(small).metric == "R²"
    edges = np.quantile(values, np.linspace(0, 1, 11)[1:-1])
    assert np.bincount(np.searchsorted(edges, small["score"]), minlength=10).tolist() == [6] * 10


def test_texts_without_labels_are_drawn_by_lot_and_it_is_said():
    vectors, _ = clustered()
    rows = Dataset.from_dict({"text": [f"row {i}" for i in range(600)]})
    small = distill_dataset(rows, 60, embeddings=vectors)
    assert "nothing to measure a method by" in DatasetReport.of(small).verdict
    assert len(distill_dataset(rows, 60, method="kmeans", embeddings=vectors)) == 60


def test_a_budget_of_tokens(given):
    rows, vectors = given
    rows = texts(600).add_column("label", rows["label"][:])
    tokenizer = tiny_tokenizer()
    small = distill_dataset(rows, {"tokens": 500}, embeddings=vectors, processing_class=tokenizer, **FAST)
    used = sum(len(ids) for ids in tokenizer(small["text"][:])["input_ids"])
    assert 495 <= used <= 500
    assert DatasetReport.of(small).tokens == used


def test_a_stream_is_read_once(given):
    rows, _ = given
    passes = []

    def generate():
        passes.append(1)
        yield from rows

    stream = IterableDataset.from_generator(generate, features=rows.features)
    small = distill_dataset(stream, 40, method="stratified", stream_rows=200)
    assert len(passes) == 1
    assert len(small) == 40
    assert max(small["source_index"]) > 200
    for row in small:
        assert row["text"] == rows[row["source_index"]]["text"]
    assert DatasetReport.of(small).rows_before == 600


def test_a_small_dataset_is_made_smaller_again(given):
    rows, vectors = given
    once = distill_dataset(rows, 100, method="kmeans", embeddings=vectors, **FAST)
    twice = distill_dataset(once, 20, method="stratified", **FAST)
    assert twice.column_names == ["text", "label", "source_index", "rank", "weight"]
    for row in twice:
        assert row["text"] == once[row["source_index"]]["text"]


# ---------------------------------------------------------------------- what goes before
def test_test_rows_and_duplicates_go_first_and_are_counted(given):
    rows, vectors = given
    texts_of = rows["text"][:]
    texts_of[5] = texts_of[4].upper()  # a duplicate
    rows = rows.remove_columns("text").add_column("text", texts_of)
    test = rows.select([0, 1, 2]).map(lambda row: {"text": row["text"].upper() + " "})
    small = distill_dataset(rows, 596, method="random", embeddings=vectors, exclude=test, curve=False)
    assert not {0, 1, 2, 5} & set(small["source_index"])
    stages = {stage.name: (stage.before, stage.after) for stage in DatasetReport.of(small).stages}
    assert stages == {
        "given": (600, 600),
        "rows of test sets": (600, 597),
        "exact duplicates": (597, 596),
        "chosen": (596, 596),
    }
    with pytest.raises(ShrinkError, match=r"`budget` must be in \[1?4, 596\] rows"):
        distill_dataset(rows, 597, method="random", embeddings=vectors, exclude=test, curve=False)


def test_embeddings_follow_the_rows_that_are_left(given):
    rows, vectors = given
    test = rows.select(range(50))
    small = distill_dataset(rows, 30, method="kmeans", embeddings=vectors, exclude=test, **FAST)
    alone = distill_dataset(rows.select(range(50, 600)), 30, method="kmeans", embeddings=vectors[50:], **FAST)
    assert [i - 50 for i in small["source_index"]] == alone["source_index"][:]


def test_words_alone_say_nothing_of_test_rows_by_meaning(given, monkeypatch):
    from hf_shrink.dataset_distillation import encoder, preparation

    for module in (encoder, preparation):
        monkeypatch.setattr(module, "usual_encoder", lambda: None)
    rows, _ = given
    small = distill_dataset(rows, 30, exclude=texts(5).select_columns(["text"]), **FAST)
    report = DatasetReport.of(small)
    assert report.encoder == "TF-IDF and SVD"
    assert "rows like those of test sets" not in {stage.name for stage in report.stages}  # another SVD, another space
    assert report.cost_ratio is None


def test_wrong_labels_are_left_out_where_asked(given):
    rows, vectors = given
    labels = np.asarray(rows["label"])
    wrong = np.random.default_rng(0).permutation(600)[:120]
    labels[wrong] = (labels[wrong] + 1) % 4
    noisy = rows.remove_columns("label").add_column("label", labels.tolist(), feature=rows.features["label"])
    left = {
        cut: np.isin(
            distill_dataset(noisy, 100, method="stratified", embeddings=vectors, label_noise=cut, **FAST)[
                "source_index"
            ],
            wrong,
        ).mean()
        for cut in (True, False)
    }
    assert left[False] > 0.15
    assert left[True] < left[False] / 4


def test_scores_of_a_run_are_used_where_they_are(given):
    rows, vectors = given
    hard = np.zeros(600, dtype=np.float32)
    hard[[3, 77, 250, 400, 599]] = 1
    scored = rows.add_column("score_el2n", hard.tolist())
    small = distill_dataset(scored, 40, method="el2n", embeddings=vectors, **FAST)
    assert {3, 77, 250, 400, 599} <= set(small["source_index"])
    own = distill_dataset(rows, 40, method="el2n", embeddings=vectors, **FAST)
    assert np.isfinite(own["score_el2n"]).all()


def test_rows_like_those_that_matter(given):
    rows, vectors = given
    wanted = np.flatnonzero(np.asarray(rows["label"]) == 2)[:10]
    small = distill_dataset(rows, 30, method="rds", targets=vectors[wanted], embeddings=vectors, **FAST)
    assert np.mean(np.asarray(small["label"]) == 2) > 0.9


def test_a_teacher_leaves_its_answers_and_cuts_texts_as_asked():
    rows = texts(60).add_column("label", [i % 3 for i in range(60)])
    teacher, tokenizer = tiny_bert_classifier(), tiny_tokenizer()
    settings = {"method": "stratified", "teacher": teacher, "processing_class": tokenizer, **FAST}
    small = distill_dataset(rows, 9, max_length=4, **settings)
    inputs = tokenizer(small["text"][:], truncation=True, max_length=4, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = teacher(**inputs).logits
    assert np.asarray(small["soft_label"], dtype=np.float32) == pytest.approx(logits.numpy(), abs=0.01)


def test_a_tokenizer_that_counts_reads_nothing_for_the_encoder(tmp_path):
    rows = texts(60).add_column("label", [i % 3 for i in range(60)])
    save(tiny_encoder(), tmp_path / "model")
    other = tiny_tokenizer(["where", "cash", "card"])  # numbers the words otherwise
    settings = {"method": "kmeans", "encoder": tmp_path / "model", **FAST}
    counted = distill_dataset(rows, {"tokens": 200}, processing_class=other, **settings)
    lengths = [len(ids) for ids in other(counted["text"][:])["input_ids"]]
    assert 198 <= sum(lengths) <= 200
    plain = distill_dataset(rows, len(counted), **settings)
    assert len(set(plain["source_index"]) & set(counted["source_index"])) > len(counted) / 2


def test_soft_labels_of_a_head_stand_in_the_order_of_the_classes(given):
    rows, vectors = given
    small = distill_dataset(rows, 40, embeddings=vectors, soft_labels=True, **FAST)
    scores = np.asarray(small["soft_label"], dtype=np.float32)
    assert scores.shape == (40, 4)
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(40), abs=0.01)
    assert (scores.argmax(axis=1) == np.asarray(small["label"])).mean() > 0.8


# ---------------------------------------------------------------------- folders and the Hub
def test_a_folder_holds_rows_report_and_pictures_and_a_run_goes_on(tmp_path):
    save(tiny_encoder(), tmp_path / "model")
    rows = texts(120).add_column("label", [i % 3 for i in range(120)])
    settings = {"encoder": tmp_path / "model", "output_dir": tmp_path / "out", "duplicates": None}
    first = distill_dataset(rows, 30, **settings)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "train.parquet",
        "dataset_report.json",
        "curve.png",
        "map.png",
        "embeddings",
    }
    again = distill_dataset(rows, 30, **settings)
    assert again["source_index"][:] == first["source_index"][:]
    assert DatasetReport.of(again).encode_seconds is None  # they lay there already
    stored = load_dataset("parquet", data_files=str(tmp_path / "out" / "train.parquet"), split="train")
    assert stored.to_dict() == first.to_dict()
    report = json.loads((tmp_path / "out" / "dataset_report.json").read_text())
    assert report["rows"] == 30


def test_what_is_pushed_comes_back_with_its_card(given, hub):
    rows, vectors = given
    small = distill_dataset(rows, 30, embeddings=vectors, soft_labels=True)
    licenses = ["cc-by-4.0", "cc-by-nc-4.0", "mit"]
    push_dataset_to_hub(small, "user/rows-distilled", source="user/rows", license=licenses)
    back = load_dataset("user/rows-distilled", split="train")
    assert back.to_dict() == small.to_dict()
    assert back.features == small.features
    assert DatasetReport.of(back) == DatasetReport.of(small)
    from huggingface_hub import DatasetCard

    card = DatasetCard.load("user/rows-distilled", repo_type="dataset")
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.source_datasets == ["user/rows"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.annotations_creators == ["machine-generated"]
    assert DatasetReport.of(small).to_markdown() in card.text


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"budget": 601}, r"`budget` must be in \[4, 600\] rows"),
        ({"budget": 3}, "one for each of the 4 classes"),
        ({"budget": {"per_class": 500}}, "at most the rows of the smallest class"),
        ({"budget": "all"}, "`budget` must be a share"),
        ({"label_column": "labels"}, "`label_column` must be one of"),
        ({"text_column": "txt"}, "`text_column` must be one of"),
        ({"method": "kmean"}, "Did you mean 'kmeans'"),
        ({"method_kwargs": {"iterations": 3}}, "`method_kwargs` must be left out with method='auto'"),
        ({"method": "kmeans", "method_kwargs": {"neighbours": 3}}, "`method_kwargs` must hold options of kmeans"),
        ({"duplicates": "exakt"}, "Did you mean 'exact'"),
        ({"label_noise": "yes"}, "`label_noise` must be True, False or 'auto'"),
        ({"embeddings": np.ones((600, 4))}, "`embeddings` must differ from row to row"),
        ({"embeddings": np.ones((10, 4))}, "`embeddings` must have one row for each of the 600"),
        ({"embeddings": np.full((600, 4), np.nan)}, "row 0 has NaN or infinity"),
        ({"stream_rows": 0}, "`stream_rows` must be at least 1"),
        ({"method": "rds"}, "`targets` must be given"),
        ({"embeddings": None, "encoder": "./nowhere"}, "`encoder` must be .* there is no folder ./nowhere"),
        ({"teacher": "./nowhere"}, "`teacher` must be .* there is no folder ./nowhere"),
        ({"budget": {"tokens": 100}}, "`processing_class` must be given for a budget of tokens"),
    ],
)
def test_bad_input_gets_one_clear_error(given, settings, says):
    rows, vectors = given
    with pytest.raises(ShrinkError, match=says):
        distill_dataset(rows, **{"budget": 30, "embeddings": vectors, **settings})


def test_a_teacher_that_cannot_be_loaded_is_refused_before_rows_are_chosen(given, tmp_path, monkeypatch):
    from hf_shrink.dataset_distillation import distill

    rows, vectors = given
    monkeypatch.setattr(distill, "choose", lambda *args: pytest.fail("rows were chosen"))
    with pytest.raises(ShrinkError, match="must hold a config.json"):
        distill_dataset(rows, 30, embeddings=vectors, teacher=tmp_path)


def test_a_test_set_that_swallows_everything_is_refused(given):
    rows, vectors = given
    with pytest.raises(ShrinkError, match="`exclude` must leave some rows"):
        distill_dataset(rows, 30, embeddings=vectors, exclude=rows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"label_noise": True}, "`label_noise` must be False for rows whose labels are not one class each"),
        ({"soft_labels": True}, "`soft_labels` must be False for rows whose labels are not one class each"),
        ({"method": "el2n"}, "Add the column score_el2n with score_dataset"),
    ],
)
def test_what_needs_classes_says_so_before_anything_runs(settings, says):
    rows = Dataset.from_dict({"text": ["a", "b", "c"] * 10})
    with pytest.raises(ShrinkError, match=says):
        distill_dataset(rows, 5, encoder="nobody/nothing", **settings)


def test_empty_texts_and_empty_datasets_are_refused(given):
    rows, _ = given
    with pytest.raises(ShrinkError, match="`dataset` must hold rows, got none"):
        distill_dataset(rows.select([]), 1)
    empty = rows.map(lambda row, i: {"text": "" if i == 17 else row["text"]}, with_indices=True)
    with pytest.raises(ShrinkError, match="`text_column` must be filled in every row, but row 17"):
        distill_dataset(empty, 30, **FAST)
