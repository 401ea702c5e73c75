from dataclasses import asdict

import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import MethodUse, Provenance
from tests.evaluation.example import example_provenance


def test_it_survives_a_dictionary():
    assert Provenance.from_dict(asdict(example_provenance())) == example_provenance()
    lists = Provenance(datasets=["a"], language=["en"], notes=["b"])
    assert lists == Provenance(datasets=("a",), language=("en",), notes=("b",))


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "me/model.v2_small"])
def test_hub_ids_are_taken(name):
    assert Provenance(base_model=name).base_model == name


@pytest.mark.parametrize("path", ["/home/me/model", "./model", "../model", "out/model/checkpoint-3", "C:\\model", ""])
def test_a_local_path_is_no_base_model(path):
    with pytest.raises(ShrinkError, match="`base_model` must be a Hub id"):
        Provenance(base_model=path)


def test_one_name_is_not_a_tuple_of_letters():
    with pytest.raises(ShrinkError, match="`datasets` must be a tuple, got 'banking77'"):
        Provenance(datasets="banking77")


def test_options_are_json():
    assert MethodUse("a", "A", options={"layers": (0, 2)}).options == {"layers": [0, 2]}
    for value in (object(), float("nan")):
        with pytest.raises(ShrinkError, match="`options` must hold JSON values only"):
            MethodUse("a", "A", options={"x": value})
