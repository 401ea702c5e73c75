"""Train a text classifier on a dataset of columns `text` and `label`; --help names all arguments."""

from dataclasses import dataclass, field

from datasets import load_dataset
from hf_shrink import PruningCallback, PruningConfig
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)


@dataclass
class ScriptArguments:
    """What is trained, and on what."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the model to train."})
    dataset_name: str = field(metadata={"help": "Folder or Hub id of the data, with splits train and validation."})
    max_length: int = field(default=64, metadata={"help": "Tokens to cut a row to."})


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of the rows whose highest score is the label's."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main() -> None:
    """Train, evaluate, save."""
    parser = HfArgumentParser((ScriptArguments, TrainingArguments))
    script, training = parser.parse_args_into_dataclasses()
    set_seed(training.seed)  # the new head is random

    data = load_dataset(script.dataset_name)
    names = data["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(script.model_name_or_path)
    data = data.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=script.max_length), batched=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        script.model_name_or_path,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )

    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=[PruningCallback(PruningConfig(final_sparsity=0.8, end_step=0.6))],
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    trainer.save_model()


if __name__ == "__main__":
    main()
