"""`DistillationTrainer.push_to_hub()`, which is Trainer's own, uploads our card beside the student."""

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForSequenceClassification

from hf_shrink.hub import model_card
from tests.distillation.one_step import one_step
from tests.distillation.tasks import TASK_CASES
from tests.evaluation.example import example_report
from tests.hub.cards import front_matter, validate_card
from tests.hub.test_upload import logits, text_of
from tests.models import tiny_tokenizer


@pytest.fixture
def trainer(repo_id, tmp_path):
    teacher = TASK_CASES["single_label_classification"].teacher()
    return one_step(tmp_path / "out", 8, 1, teacher_model=teacher, hub_model_id=repo_id)[1]


def test_card_from_the_log(repo_id, trainer):
    trainer.push_to_hub(dataset_tags="PolyAI/banking77", license="mit", language="en")
    card = text_of(repo_id, "README.md")
    assert validate_card(card, "model") == ([], [])
    data = front_matter(card)[0]
    assert data["datasets"] == ["PolyAI/banking77"]
    assert {"hf-shrink", "forward_kl", "distillation"} <= set(data["tags"])
    assert "base_model" not in data  # built from a config: it began as nothing on the Hub
    assert "| temperature | 3 |" in card
    assert "| alpha | 0.7 |" in card
    assert "Last evaluation" not in card
    pulled = AutoModelForSequenceClassification.from_pretrained(repo_id)
    trained = trainer.accelerator.unwrap_model(trainer.model)
    assert torch.equal(logits(pulled, tiny_tokenizer()), logits(trained, tiny_tokenizer()))
    assert "hf-shrink" in HfApi().model_info(repo_id).tags


def test_evaluation_stands_on_the_card(trainer, tmp_path):
    values = trainer.evaluate(trainer.train_dataset.filter(lambda row: row["labels"] >= 0))
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| agreement | {values['eval_agreement']:.6g} |" in card
    assert "runtime" not in card


def test_card_from_the_report(repo_id, trainer, tmp_path):
    report = example_report()
    report.to_json(tmp_path / "out" / "shrink_report.json")
    trainer.push_to_hub()
    assert text_of(repo_id, "README.md").split("---", 2)[2] == model_card(report, repo_id=repo_id).split("---", 2)[2]
    assert "distillation" in front_matter(text_of(repo_id, "README.md"))[0]["tags"]


def test_other_processes_write_nothing(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    trainer.create_model_card()
    assert not (tmp_path / "out" / "README.md").exists()
