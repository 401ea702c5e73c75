"""Metrics: local functions of predictions and references, a few a file; none fetches anything.

A metric is added with `@METRICS.add(name, paper=…, tasks=…, …)`; beside the paper it records:

- `tasks`: the tasks whose predictions it can read.
- `higher_is_better`: False for errors.
- `percent`: whether it is a share that is printed in percent.
- `trials`: the tasks in which its value is the share of rows that are right, each row one independent trial; there it
  gets a Wilson interval and McNemar's test, elsewhere the bootstrap.
"""

from hf_shrink.registry import Registry

METRICS = Registry("metric", __name__)

__all__ = ["METRICS"]
