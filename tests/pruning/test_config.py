"""The settings of pruning: what goes through a parser and a file, and what is refused."""

from dataclasses import asdict

import pytest
import yaml
from transformers import HfArgumentParser

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import PruningConfig

CHANGED = {
    "method": "movement",
    "structure": "4:8",
    "final_sparsity": 0.3,
    "initial_sparsity": 0.1,
    "schedule": "multi_step",
    "start_step": 0.25,
    "end_step": 0.75,
    "pruning_frequency": 5,
    "scope": "local",
    "targets": ["re:.*attention.*", "Linear"],
    "ignore": ["bert.pooler.dense"],
    "milestones": [0.5, 1.0],
    "max_module_sparsity": 0.9,
    "score_learning_rate": 0.02,
    "seed": 3,
}


def test_every_field_goes_through_parser_and_yaml():
    config = PruningConfig(**CHANGED)
    assert CHANGED.keys() == asdict(config).keys()
    words = []
    for name, value in CHANGED.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    (parsed,) = HfArgumentParser(PruningConfig).parse_args_into_dataclasses(words)
    assert parsed == config
    assert PruningConfig(**yaml.safe_load(yaml.safe_dump(asdict(config)))) == config
    (default,) = HfArgumentParser(PruningConfig).parse_args_into_dataclasses([])
    assert default == PruningConfig()


@pytest.mark.parametrize(
    ("structure", "share"), [("unstructured", 0.8), ("2:4", 0.5), ("1:4", 0.75), ("neurons", 0.8), ("block:4x4", 0.8)]
)
def test_a_sparsity_left_out_is_the_structures_own(structure, share):
    assert PruningConfig(structure=structure).final_sparsity == share


NAN = float("nan")


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("method", {"method": "magic"}),
        ("structure", {"structure": "4:2"}),
        ("structure", {"structure": "rows"}),
        ("final_sparsity", {"final_sparsity": 1.0}),
        ("final_sparsity", {"final_sparsity": -0.1}),
        ("final_sparsity", {"final_sparsity": NAN}),
        ("final_sparsity", {"structure": "2:4", "final_sparsity": 0.6}),
        ("initial_sparsity", {"initial_sparsity": 0.9}),
        ("initial_sparsity", {"initial_sparsity": NAN}),
        ("schedule", {"schedule": "slow"}),
        ("scope", {"scope": "layer"}),
        ("start_step", {"start_step": -1}),
        ("start_step", {"start_step": 2.5}),
        ("end_step", {"start_step": 0.5, "end_step": 0.5}),
        ("end_step", {"start_step": 500, "end_step": 400}),
        ("end_step", {"end_step": NAN}),
        ("pruning_frequency", {"pruning_frequency": 0}),
        ("pruning_frequency", {"pruning_frequency": NAN}),
        ("milestones", {"milestones": [0.5, 0.5]}),
        ("milestones", {"milestones": [0.5, 1.5]}),
        ("milestones", {"milestones": []}),
        ("max_module_sparsity", {"max_module_sparsity": 0.0}),
        ("max_module_sparsity", {"max_module_sparsity": NAN}),
        ("max_module_sparsity", {"max_module_sparsity": 0.5, "final_sparsity": 0.6}),
        ("score_learning_rate", {"score_learning_rate": 0.0}),
        ("score_learning_rate", {"score_learning_rate": NAN}),
        ("targets", {"targets": []}),
        ("targets", {"targets": "Linear"}),
        ("ignore", {"ignore": "classifier"}),
    ],
)
def test_a_wrong_value_is_refused_by_name(argument, options):
    with pytest.raises(ShrinkError, match=f"^`{argument}` must"):
        PruningConfig(**options)


def test_a_share_may_end_before_a_step_begins():
    # Whether it does is known when the run's length is.
    assert PruningConfig(start_step=500, end_step=1.0).end_step == 1.0
