"""A fresh process in which hf_shrink cannot be imported: what a user has who never heard of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WITHOUT_US = """
import importlib.util, sys
from pathlib import Path
sys.path = [entry for entry in sys.path if not (Path(entry) / "hf_shrink").exists()]
assert importlib.util.find_spec("hf_shrink") is None, "hf_shrink can still be imported"
"""

CLASSIFY = """
import json
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
print(json.dumps(model(**tokenizer(text, return_tensors="pt")).logits.tolist()))
"""


def run_stock(code: str, *arguments: str, cwd: Path) -> Any:
    """Run code in such a process.

    Args:
        code: What to run; it prints JSON last.
        *arguments: Its command line.
        cwd: Where it runs.

    Returns:
        What it printed.
    """
    command = [sys.executable, "-I", "-c", WITHOUT_US + code, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
