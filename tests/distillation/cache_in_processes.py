"""Cache the rows of one task, in this process or under torchrun.

python -m tests.distillation.cache_in_processes FOLDER
"""

import sys

import torch

from tests.distillation.caching import make_cache
from tests.processes import leave

if __name__ == "__main__":
    torch.set_num_threads(1)
    make_cache(sys.argv[1])
    leave()
