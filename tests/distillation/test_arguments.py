import dataclasses

import pytest
import yaml
from transformers import HfArgumentParser, TrainingArguments

from hf_shrink.distillation import DistillationTrainingArguments
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError

OWN = [
    f
    for f in dataclasses.fields(DistillationTrainingArguments)
    if f.name not in TrainingArguments.__dataclass_fields__
]


def test_command_line_round_trip(tmp_path):
    (args,) = HfArgumentParser(DistillationTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--temperature", "3.5", "--alpha", "0.9"]
        + [
            "--logit_loss",
            "dkd",
            "--logit_loss_kwargs",
            '{"non_target_weight": 4.0}',
            "--teacher_model_init_kwargs",
            '{"dtype": "bfloat16"}',
        ]
    )
    assert (args.temperature, args.alpha, args.logit_loss) == (3.5, 0.9, "dkd")
    assert args.loss_options == {"temperature": 3.5, "non_target_weight": 4.0}
    assert args.teacher_model_init_kwargs == {"dtype": "bfloat16"}


def test_yaml_round_trip(tmp_path):
    written = DistillationTrainingArguments(output_dir=str(tmp_path), alpha=0.25, temperature=4.0)
    file = tmp_path / "args.yaml"
    file.write_text(yaml.safe_dump({f.name: getattr(written, f.name) for f in OWN} | {"output_dir": str(tmp_path)}))
    (read,) = HfArgumentParser(DistillationTrainingArguments).parse_yaml_file(str(file))
    assert all(getattr(read, f.name) == getattr(written, f.name) for f in OWN)


def test_every_own_field_is_explained():
    assert OWN
    assert all(f.metadata["help"].rstrip().endswith(".") for f in OWN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", float("nan")),
        ("temperature", 0.0),
        ("temperature", float("inf")),
        ("alpha", float("nan")),
        ("alpha", 1.5),
        ("alpha", -0.1),
        ("logit_loss", "forward_lk"),
        ("beta", float("nan")),
        ("beta", 1.5),
        ("hidden_weight", float("nan")),
        ("hidden_weight", -1.0),
        ("hidden_loss", "forward_kl"),  # compares logits
        ("attention_weight", float("nan")),
        ("attention_weight", float("inf")),
        ("attention_loss", "minilm_relation"),  # compares relations
        ("relation_weight", float("nan")),
        ("relation_weight", -1.0),
        ("relation_loss", "attention_kl"),  # compares attention
        ("pooling", "average"),
        ("task", "classification"),
        ("preset", "fast"),
        ("logit_loss_kwargs", {"non_target_weight": 4.0}),  # of another loss
        ("logit_loss_kwargs", {"temperature": 4.0}),  # has its own argument, which would be overridden silently
    ],
)
def test_a_senseless_value_is_refused(tmp_path, name, value):
    with pytest.raises(ShrinkError, match=f"`{name}`"):
        DistillationTrainingArguments(output_dir=str(tmp_path), **{name: value})


def test_a_typing_error_gets_a_hint(tmp_path):
    with pytest.raises(ShrinkError, match="Did you mean 'forward_kl'"):
        DistillationTrainingArguments(output_dir=str(tmp_path), logit_loss="forward_lk")


def test_a_preset_fills_in_defaults_and_no_more(tmp_path):
    args = DistillationTrainingArguments(output_dir=str(tmp_path), preset="classification", alpha=0.7)
    expected = {**PRESETS["classification"], "alpha": 0.7}
    assert {name: getattr(args, name) for name in expected} == expected
    plain = DistillationTrainingArguments(output_dir=str(tmp_path))
    assert {f.name for f in OWN if getattr(args, f.name) != getattr(plain, f.name)} <= {*expected, "preset"}
