"""One callback for every trainer: the stock ones, ours, and trl's."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.pruning import PruningCallback, PruningConfig
from tests.models import randomize, tiny_bert_classifier, tiny_tokenizer
from tests.pruning.training import TEXTS, arguments, masks_in, pruning_callbacks, revived, rows, train, zero_share

RAMP = {"start_step": 2, "end_step": 10, "pruning_frequency": 2}
CONFIGS = {
    "magnitude": PruningConfig("magnitude", final_sparsity=0.7, **RAMP),
    "movement": PruningConfig("movement", final_sparsity=0.7, score_learning_rate=0.5, **RAMP),
    "2:4": PruningConfig("magnitude", "2:4", **RAMP),
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def check(trainer, folder, config):
    """Plain keys, the masks' zeros, and no others."""
    for step in (4, 8, 12):
        checkpoint = folder / f"checkpoint-{step}"
        weights, masks = load_file(checkpoint / "model.safetensors"), masks_in(checkpoint)
        assert not any("mask" in name or "orig" in name for name in weights)
        assert masks.keys() <= weights.keys()
        assert revived(weights, masks) == 0
    pruner = pruning_callbacks(trainer)[0].pruner
    assert pruner.sparsity == pytest.approx(config.final_sparsity, abs=1e-3)
    assert zero_share(weights, masks) == pytest.approx(config.final_sparsity, abs=1e-3)


def test_distillation_trainer(tmp_path, config):
    trainer = DistillationTrainer(
        model=tiny_bert_classifier(num_hidden_layers=2),
        teacher_model=tiny_bert_classifier(seed=3),
        args=arguments(tmp_path, DistillationTrainingArguments, gradient_accumulation_steps=2, hidden_weight=1.0),
        train_dataset=rows(),
        processing_class=tiny_tokenizer(),
        callbacks=[PruningCallback(config)],
    )
    teacher = {name: tensor.clone() for name, tensor in trainer.teacher.model.state_dict().items()}
    trainer.train()
    check(trainer, tmp_path, config)
    assert all(torch.equal(teacher[name], tensor) for name, tensor in trainer.teacher.model.state_dict().items())


def test_seq2seq_trainer(tmp_path, config):
    tokenizer = tiny_tokenizer()
    settings = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    model = randomize(T5ForConditionalGeneration(T5Config(**settings, decoder_start_token_id=0)))
    encoded = tokenizer(TEXTS * 4)
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments(tmp_path, Seq2SeqTrainingArguments, predict_with_generate=True),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": encoded["input_ids"],
                "attention_mask": encoded["attention_mask"],
                "labels": encoded["input_ids"],
            }
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        callbacks=[PruningCallback(config)],
    )
    trainer.train()
    check(trainer, tmp_path, config)


def tiny_llama():
    torch.manual_seed(0)
    return randomize(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tiny_tokenizer()),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                pad_token_id=0,
                initializer_range=0.2,
            )
        )
    )


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")  # in trl 1.16, beside transformers 5.23
def test_sft_trainer(tmp_path, config):
    from trl import SFTConfig, SFTTrainer

    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "[SEP]"
    trainer = SFTTrainer(
        model=tiny_llama(),
        args=arguments(tmp_path, SFTConfig, gradient_accumulation_steps=2, max_length=32, bf16=False),
        train_dataset=Dataset.from_dict({"text": TEXTS * 8}),
        processing_class=tokenizer,
        callbacks=[PruningCallback(config)],
    )
    trainer.train()
    check(trainer, tmp_path, config)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-12")
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    assert torch.equal(reloaded(ids).logits, trainer.model.eval()(ids).logits)


def test_adapters_train_while_their_base_is_pruned(tmp_path):
    model = get_peft_model(tiny_bert_classifier(), LoraConfig(target_modules=["query", "value"], task_type="SEQ_CLS"))
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = train(tmp_path, CONFIGS["magnitude"], model=model)
    pruner = pruning_callbacks(trainer)[0].pruner
    assert not any("lora" in name or "classifier" in name for name in pruner.masks)
    assert revived(trainer.model.state_dict(), pruner.masks) == 0
    assert pruner.sparsity == pytest.approx(0.7, abs=1e-3)
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, dense[name])
        assert moved == ("lora" in name or "modules_to_save" in name or name in pruner.masks)
    kept = all(torch.equal(model.get_parameter(n)[mask], dense[n][mask]) for n, mask in pruner.masks.items())
    assert kept


def test_without_the_callback_the_trainer_is_as_it_was(tmp_path):
    # start_step beyond what is trained: the callback is there, and changes no bit.
    late = PruningConfig("magnitude", final_sparsity=0.5, start_step=11, end_step=12)
    args = {"max_steps": 12, "save_steps": 10}
    train(tmp_path / "with", late, **args)
    train(tmp_path / "without", **args)
    ours, plain = (load_file(tmp_path / case / "checkpoint-10" / "model.safetensors") for case in ("with", "without"))
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
