"""What a model costs and how good it is, against its original: measured, never guessed."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "METRICS": "hf_shrink.evaluation.metrics",
        "Entry": "hf_shrink.evaluation.report",
        "Environment": "hf_shrink.evaluation.environment",
        "Latency": "hf_shrink.evaluation.latency",
        "Measurement": "hf_shrink.evaluation.measurement",
        "MethodUse": "hf_shrink.evaluation.provenance",
        "Provenance": "hf_shrink.evaluation.provenance",
        "ShrinkReport": "hf_shrink.evaluation.report",
        "as_compute_metrics": "hf_shrink.evaluation.quality",
        "compare": "hf_shrink.evaluation.comparison",
        "count_macs": "hf_shrink.evaluation.macs",
        "count_parameters": "hf_shrink.evaluation.size",
        "measure": "hf_shrink.evaluation.measurement",
        "measure_latencies": "hf_shrink.evaluation.latency",
        "measure_latency": "hf_shrink.evaluation.latency",
        "size_on_disk": "hf_shrink.evaluation.size",
    },
)
