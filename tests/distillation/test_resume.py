"""A run that was cut off and resumed is the run that was not."""

import pytest
import torch
from safetensors.torch import load_file

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.errors import ShrinkError
from tests.distillation.tasks import TASK_CASES

CASE = TASK_CASES["single_label_classification"]
RUNS = {
    "plain": {},
    "hidden states through projections": {"hidden_weight": 2.0, "layer_map": "uniform"},
    "accumulated": {"hidden_weight": 2.0, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
}


def run(folder, *, resume=None, **options):
    """Twelve steps with dropout, a checkpoint in the middle; the student is narrower than its teacher."""
    settings = {"per_device_train_batch_size": 2, **options}
    args = DistillationTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=3,
        learning_rate=1e-3,
        save_steps=6,
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        **settings,
    )
    trainer = DistillationTrainer(
        model=CASE.make(3, 8, hidden_size=16),
        teacher_model=CASE.teacher(),
        args=args,
        train_dataset=CASE.rows(),
        data_collator=CASE.collator(),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights_of(trainer):
    """All that is trained: the student, and the projections in the order in which the optimizer has them."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("case", RUNS)
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, case):
    whole = run(tmp_path / "whole", **RUNS[case])
    middle = tmp_path / "whole" / "checkpoint-6"
    resumed = run(tmp_path / "resumed", resume=str(middle), **RUNS[case])
    for own, other in zip(weights_of(whole), weights_of(resumed), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-7)
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


def test_a_checkpoint_without_its_projections_would_be_seen(tmp_path):
    options = RUNS["hidden states through projections"]
    whole = run(tmp_path / "whole", **options)
    middle = tmp_path / "whole" / "checkpoint-6"
    model = load_file(middle / "model.safetensors")
    assert set(model) == {name for name, _ in whole.model.named_parameters()}
    early, late = (
        load_file(tmp_path / "whole" / f"checkpoint-{step}" / "distillation_projections.safetensors")
        for step in (6, 12)
    )
    assert early.keys() == late.keys()
    assert all((early[name] != late[name]).any() for name in early)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    options = RUNS["hidden states through projections"]
    run(tmp_path / "whole", save_only_model=True, **options)
    with pytest.raises(ShrinkError, match="`resume_from_checkpoint`"):
        run(tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-6"), **options)
