"""What PruningCallback adds to a training step, against the same Trainer without it, in one run.

python benchmarks/pruning_step.py --rounds 7

Each round trains every arm for the same steps on the same batches, in turn, so that a busy machine slows all of them;
a ratio is taken within its round; every other round goes backwards. The steps counted are those in which sparsity
rises: masks are chosen every tenth.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from distillation import WARM_UP, StepTimes
from transformers import Trainer, TrainingArguments, set_seed

from hf_shrink import PruningCallback, PruningConfig
from hf_shrink.cli.quickstart_stages import BANKING77, MAX_LENGTH, TASK, model_source
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.inputs import default_collator, load_model, load_processing_class, load_rows, tokenize_rows

RESULTS = Path(__file__).parent / "results" / "pruning_step.json"
FREQUENCY = 10  # steps
ARMS = {
    "Trainer": None,
    "magnitude": {"method": "magnitude"},
    "Trainer once more": None,  # its ratio to the first says how far the machine can be trusted
    "magnitude, 2:4": {"method": "magnitude", "structure": "2:4"},
    "taylor": {"method": "taylor"},
    "movement": {"method": "movement"},
}


def seconds_a_step(arm: str, rows, tokenizer, options) -> float:  # noqa: ANN001
    """Train one arm for some steps."""
    set_seed(0)
    times, pruning = StepTimes(), []
    if ARMS[arm] is not None:
        pruning = [PruningCallback(PruningConfig(**ARMS[arm], pruning_frequency=FREQUENCY))]
    with TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            per_device_train_batch_size=options.batch_size,
            max_steps=options.steps,
            report_to=[],
            save_strategy="no",
            logging_steps=20,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = Trainer(
            model=load_model(model_source(None), task=TASK, num_labels=77),
            args=args,
            train_dataset=rows,
            data_collator=default_collator(tokenizer, TASK),
            callbacks=[*pruning, times],
        )
        trainer.train()
    return times.mean()


def main() -> None:
    """Run the rounds and print medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=WARM_UP + 1 + 3 * FREQUENCY)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    tokenizer = load_processing_class(model_source(None))
    rows = tokenize_rows(load_rows(BANKING77, split="train"), tokenizer, task=TASK, max_length=MAX_LENGTH)
    rows = rows.select(range(options.steps * options.batch_size))
    found = []
    for number in range(options.rounds):
        order = options.arms[:: -1 if number % 2 else 1]
        found.append({arm: seconds_a_step(arm, rows, tokenizer, options) for arm in order})
    ratios = {f"{arm} / Trainer": [s[arm] / s["Trainer"] for s in found] for arm in options.arms if arm != "Trainer"}
    for name, values in ratios.items():
        print(f"{name:30} {median(values):.3f}   ({min(values):.3f} to {max(values):.3f})")
    result = {"environment": asdict(find_environment()), "options": vars(options), "seconds": found, "ratios": ratios}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
