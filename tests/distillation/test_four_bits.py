"""Students and teachers in 4 bits: QLoRA, its way back to a float model, and a teacher that costs little memory."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, Trainer, TrainingArguments

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.inputs import load_model
from tests.distillation.tasks import TASK_CASES
from tests.models import tiny_bert_classifier

CASE = TASK_CASES["single_label_classification"]
LORA = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value", "dense"])
SHAPE = {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 128, "initializer_range": 0.1}
ARGUMENTS = {
    "per_device_train_batch_size": 8, "max_steps": 12, "learning_rate": 1e-2, "logging_steps": 1, "use_cpu": True,
    "report_to": [], "save_strategy": "no", "lr_scheduler_type": "constant",
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A float model, and the same in 4 bits as `quantize(model, "bnb-nf4")` writes it."""
    place = tmp_path_factory.mktemp("models")
    tiny_bert_classifier(3, **SHAPE).save_pretrained(place / "float")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=["classifier"])  # fmt: skip
    AutoModelForSequenceClassification.from_pretrained(
        place / "float", quantization_config=config, dtype=torch.float16
    ).save_pretrained(place / "nf4")
    return place


def batch():
    return {k: v for k, v in CASE.collator()([dict(row) for row in CASE.rows()]).items() if k != "labels"}


def answers(model):
    with torch.no_grad():
        return model.eval()(**batch()).logits.float()


def losses(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def train(model, folder, **options):
    trainer = DistillationTrainer(
        model=model,
        args=DistillationTrainingArguments(output_dir=str(folder), **{**ARGUMENTS, **options.pop("arguments", {})}),
        train_dataset=CASE.rows(),
        data_collator=CASE.collator(),
        **options,
    )
    trainer.train()
    return trainer


def test_an_adapter_on_4_bits_learns_with_trainer(folders, tmp_path):
    base = prepare_model_for_kbit_training(load_model(folders / "nf4"), use_gradient_checkpointing=False)
    model = get_peft_model(base, LORA)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), **ARGUMENTS),
        train_dataset=CASE.rows(),
        data_collator=CASE.collator(),
    )
    trainer.train()
    values = losses(trainer)
    assert values[-1] < 0.8 * values[0]


def test_an_adapter_on_4_bits_learns_from_a_float_teacher_and_merges_into_the_float_base(folders, tmp_path):
    base = load_model(folders / "nf4")
    packed = {name: p.clone() for name, p in base.named_parameters() if not p.is_floating_point()}
    trainer = train(base, tmp_path, teacher_model=CASE.teacher(), peft_config=LORA, arguments={"alpha": 1.0})
    values = losses(trainer, "kd_loss")
    assert values[-1] < 0.8 * values[0]
    trained = dict(trainer.model.named_parameters())
    left = {name.removeprefix("base_model.model.").replace(".base_layer", ""): p for name, p in trained.items()}
    assert packed
    assert all(torch.equal(left[name], value) for name, value in packed.items())

    trainer.save_model(str(tmp_path / "adapter"))
    base = AutoModelForSequenceClassification.from_pretrained(folders / "float")
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    assert all(p.dtype == torch.float32 for p in merged.parameters())
    own, plain, taught = answers(merged), answers(load_model(folders / "float")), answers(trainer.model)
    assert (own - taught).norm() < 0.5 * (plain - taught).norm()  # it brings what was learnt on 4 bits


def test_a_4_bit_teacher_says_what_its_dequantized_twin_says_and_gets_no_gradient(folders, tmp_path):
    arguments = {"alpha": 1.0, "max_steps": 1, "max_grad_norm": 0, "disable_dropout": True}
    terms = []
    for teacher in (load_model(folders / "nf4"), load_model(folders / "nf4").dequantize().float()):
        before = answers(teacher)  # bitsandbytes may lay the weights out anew as it answers
        trainer = train(CASE.student(), tmp_path, teacher_model=teacher, arguments=arguments)
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
        assert torch.equal(before, answers(teacher))
        terms.append(losses(trainer, "kd_loss")[0])
    assert 0 < terms[0] == pytest.approx(terms[1], rel=0.02)
