"""A realistic report for the tests of the report, the card and the picture: teacher, student, int8 student."""

from hf_shrink.evaluation.environment import Environment
from hf_shrink.evaluation.latency import Latency
from hf_shrink.evaluation.provenance import MethodUse, Provenance
from hf_shrink.evaluation.report import Entry, ShrinkReport


def example_report() -> ShrinkReport:
    """Three entries with every field measured, on the numbers of a Banking77 run."""
    return ShrinkReport(
        task="single_label_classification",
        metric="accuracy",
        dataset="PolyAI/banking77",
        split="test",
        rows=3080,
        entries=(example_teacher(), example_student(), example_int8()),
        interval="Wilson 95 %",
        macs_shape=(1, 16),
        provenance=example_provenance(),
        environment=Environment(
            hf_shrink="0.1.0",
            python="3.11.13",
            torch="2.13.0",
            transformers="5.23.0",
            onnxruntime="1.32.0",
            cpu="AMD EPYC 7B13",
            cores=2,
            threads=2,
        ),
    )


def example_latency(p50_ms: float, dtype: str = "float32") -> Latency:
    return Latency(
        p50_ms=p50_ms,
        p95_ms=round(1.15 * p50_ms, 3),
        runs=50,
        batch_size=1,
        sequence_length=16,
        threads=2,
        dtype=dtype,
        device="cpu",
    )


def example_teacher() -> Entry:
    return Entry(
        name="teacher",
        value=0.931,
        low=0.9215,
        high=0.9394,
        size_bytes=90_985_000,
        parameters=22_742_861,
        macs=171_900_000,
        latency=example_latency(6.84),
        peak_memory_bytes=214_000_000,
    )


def example_student() -> Entry:
    return Entry(
        name="student",
        method="distillation",
        value=0.922,
        low=0.912,
        high=0.931,
        agreement=0.957,
        p_value=0.0081,
        difference_low=-0.0153,
        difference_high=-0.0029,
        size_bytes=69_690_000,
        parameters=17_419_085,
        macs=86_020_000,
        latency=example_latency(3.61),
        peak_memory_bytes=171_000_000,
    )


def example_int8() -> Entry:
    return Entry(
        name="student int8",
        method="onnx-int8",
        value=0.9198,
        low=0.9097,
        high=0.9289,
        agreement=0.951,
        p_value=0.21,
        difference_low=-0.0185,
        difference_high=0.0014,
        size_bytes=17_812_000,
        parameters=17_419_085,
        macs=86_020_000,
        macs_note="of the float source",
        latency=example_latency(1.02, "float32+int8"),
        peak_memory_bytes=58_000_000,
    )


def example_provenance() -> Provenance:
    return Provenance(
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        license="apache-2.0",
        datasets=("PolyAI/banking77",),
        dataset_license="cc-by-4.0",
        language=("en",),
        pipeline_tag="text-classification",
        methods=(
            MethodUse("forward_kl", "Knowledge distillation", "arXiv:1503.02531", {"temperature": 2.0, "alpha": 0.5}),
            MethodUse("onnx-int8", "Dynamic int8 quantization", "https://onnxruntime.ai", {"per_channel": True}),
        ),
        notes=("The student keeps layers 0, 2 and 5 of the original.",),
    )
