"""How far a predicted latency can be trusted: models cut to a number of milliseconds, and what they then take.

python benchmarks/latency_constraint.py --data-dir DATA --work-dir structure

DATA holds sst2/ with train, validation and test.parquet; WORK the fine-tuned model, which is made where it is missing.
Each model is timed right after it was cut, in turns with the dense one. The machine should do nothing else.
"""

import argparse
import json
from pathlib import Path

import torch
from distillation_quality import TASK, Data, make_teacher

from hf_shrink import prune
from hf_shrink.evaluation.latency import measure_latencies
from hf_shrink.inputs import default_collator, load_model

RESULTS = Path(__file__).parent / "results" / "latency_constraint.json"
LENGTH = 32  # tokens
SHARES = (0.8, 0.6, 0.4)  # of the dense model's latency
ROUNDS = 3


def main() -> None:
    """Print measured over asked, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("structure"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, folder = Data.load(options.data_dir / "sst2"), options.work_dir / "sst2" / "teacher"
    make_teacher(data, folder)
    dense = load_model(folder)
    ratios: dict[str, list[float]] = {f"measured / asked, {share} of the dense": [] for share in SHARES}
    for _ in range(ROUNDS):
        for share, found in zip(SHARES, ratios.values(), strict=True):
            asked = share * measure_latencies([dense], sequence_length=LENGTH, runs=100)[0].p50_ms
            smaller = prune(
                dense,
                constraints={"latency_ms": asked},
                calibration_dataset=data.splits["train"],
                calibration_size=256,
                processing_class=data.tokenizer,
                data_collator=default_collator(data.tokenizer, TASK),
                sequence_length=LENGTH,
                reconstruct=False,
            )
            measured = measure_latencies([smaller, dense], sequence_length=LENGTH, runs=100)[0].p50_ms
            found.append(measured / asked)
            print(f"asked {asked:.2f} ms, measured {measured:.2f} ms", flush=True)
    RESULTS.write_text(json.dumps({"ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
