"""Adapters as students: their gradient, what is saved, and a base that stays as it is."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForSequenceClassification

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from tests.distillation.gradients import assert_same_gradient
from tests.distillation.tasks import TASK_CASES

CASE = TASK_CASES["single_label_classification"]
LORA = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"], lora_dropout=0.3)


def train(folder, batch_size, accumulation, **options):
    args = DistillationTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0,
        learning_rate=1e-2,
        disable_dropout=True,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        **options,
    )
    torch.manual_seed(0)  # of the adapter
    trainer = DistillationTrainer(
        model=CASE.student(),
        teacher_model=CASE.teacher(),
        args=args,
        train_dataset=CASE.rows(),
        data_collator=CASE.collator(),
        peft_config=LORA,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("options", [{}, {"hidden_weight": 1.0}], ids=["logits", "hidden"])
def test_an_adapter_learns_the_same_however_rows_are_spread(tmp_path, options):
    whole, spread = (train(tmp_path, size, 8 // size, **options) for size in (8, 1))
    weights = [{n: p for n, p in t.model.named_parameters() if "lora_B" in n} for t in (whole, spread)]
    assert_same_gradient(*weights, tolerance=1e-5)
    assert all(p.abs().max() > 0 for p in weights[0].values())  # they begin at 0


def test_only_the_adapter_is_saved_and_it_fits_its_base(tmp_path):
    trainer = train(tmp_path, 8, 1)
    trainer.save_model(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    CASE.student().save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    inputs = {k: v for k, v in CASE.collator()([dict(row) for row in CASE.rows()]).items() if k != "labels"}
    with torch.no_grad():
        own, plain = trainer.model.eval()(**inputs).logits, CASE.student()(**inputs).logits
        torch.testing.assert_close(loaded(**inputs).logits, own)
    assert (own - plain).abs().max() > 1e-4
