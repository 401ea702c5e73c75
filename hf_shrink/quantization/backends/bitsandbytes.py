"""8 and 4 bits through bitsandbytes, in folders that transformers loads by itself."""

from typing import Any

from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.heads import head_names
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.packing import PACKED_TASKS, dtype_of, pack

GROUP = 64  # weights that share a scale in 4 bits
ROWS = 32  # outputs that the kernel for AVX512-BF16 takes at a time
FACTS: dict[str, Any] = {
    "extra": None,  # the project itself depends on it
    "libraries": ("bitsandbytes",),
    "stages": 2,
    "calibrated": False,
    "tasks": PACKED_TASKS,
}
FOUR_BITS = Format(
    bits=4, group_size=GROUP, symmetric=True, embedding_bits=16, activations=None, scale_bits=8, float_bits=16
)


@QUANTIZERS.add(
    "bnb-int8",
    paper="arXiv:2208.07339",
    format=Format(bits=8, group_size=None, symmetric=True, embedding_bits=16, activations="dynamic", float_bits=16),
    **FACTS,
)
def bnb_int8(job: Job, *, dtype: str = "float16", threshold: float = 6.0) -> Made:
    """Weights in int8, activations in int8 but for outliers, for memory and adapters (Dettmers et al., 2022).

    On a CPU it is slower than the float model. Heads and embeddings stay in float.

    Args:
        job: Its folder gets what `from_pretrained` loads.
        dtype: Of what stays in float: "float16", "bfloat16" or "float32". The products take float16, and warn at each
            call where they get another one.
        threshold: Columns of the activations with a larger value are multiplied in float; 0 leaves none in float.

    Returns:
        The options, what stayed in float, and the model in memory.

    Raises:
        ShrinkError: If the threshold is below 0.
    """
    if not threshold >= 0:
        raise ShrinkError(f"`threshold` must be at least 0, got {threshold}. The paper's is 6.0.")
    settings = {"load_in_8bit": True, "llm_int8_threshold": float(threshold)}
    return _pack(job, dtype, settings, {"threshold": threshold})


@QUANTIZERS.add("bnb-nf4", paper="arXiv:2305.14314", format=FOUR_BITS, **FACTS)
def bnb_nf4(job: Job, *, dtype: str = "float16", compute_dtype: str = "float32", double_quant: bool = True) -> Made:
    """Weights in 4 bits on the quantiles of a normal distribution, for memory and QLoRA (Dettmers et al., 2023).

    On a CPU with AVX512-BF16 it is faster than the float model, on others about as fast or slower. Heads, embeddings
    and layers whose shape does not fit stay in float.

    Args:
        job: Its folder gets what `from_pretrained` loads.
        dtype: Of what stays in float: "float16", "bfloat16" or "float32".
        compute_dtype: What weights become to be multiplied with; "bfloat16" is faster on GPUs, and slow on CPUs that
            lack it.
        double_quant: Whether the scales are stored in 8 bits.

    Returns:
        The options, what stayed in float, and the model in memory.
    """
    return _pack_4bit(job, "nf4", dtype, compute_dtype, double_quant)


@QUANTIZERS.add("bnb-fp4", paper="arXiv:2305.14314", format=FOUR_BITS, **FACTS)
def bnb_fp4(job: Job, *, dtype: str = "float16", compute_dtype: str = "float32", double_quant: bool = True) -> Made:
    """Weights in 4 bits as floating point numbers; nf4 is nearly always closer (Dettmers et al., 2023).

    Args:
        job: Its folder gets what `from_pretrained` loads.
        dtype: Of what stays in float: "float16", "bfloat16" or "float32".
        compute_dtype: As in "bnb-nf4".
        double_quant: Whether the scales are stored in 8 bits.

    Returns:
        The options, what stayed in float, and the model in memory.
    """
    return _pack_4bit(job, "fp4", dtype, compute_dtype, double_quant)


def _pack_4bit(job: Job, quant_type: str, dtype: str, compute_dtype: str, double_quant: bool) -> Made:
    settings = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quant_type,
        "bnb_4bit_use_double_quant": double_quant,
        "bnb_4bit_compute_dtype": dtype_of(compute_dtype, "compute_dtype"),
    }
    return _pack(job, dtype, settings, {"compute_dtype": compute_dtype, "double_quant": double_quant})


def _pack(job: Job, dtype: str, settings: dict[str, Any], options: dict[str, Any]) -> Made:
    rest = dtype_of(dtype, "dtype")
    in_float = _in_float(job, four_bits="load_in_4bit" in settings)
    # Saved before the first answer: on CPUs with AVX512-BF16, answering lays 4-bit weights out anew, and bitsandbytes
    # 0.50.2 then saves scales that are transposed, or rounded once more.
    packed = pack(job, BitsAndBytesConfig(llm_int8_skip_modules=in_float, **settings), rest)
    record = {"options": {"dtype": dtype, **options}, "layers_in_float": in_float, "float_share": _float_share(packed)}
    return Made(record, model=packed)


def _in_float(job: Job, *, four_bits: bool) -> list[str]:
    """Full names of the products that are not packed; transformers matches them by their beginnings or ends."""
    heads = head_names(job.model)
    products = {name: module for name, module in job.model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    kept = [
        name
        for name, module in products.items()
        if name in job.ignore
        or name in heads
        or type(module) not in (nn.Linear, Conv1D)  # whose class knows more than a product
        or (four_bits and not _fits(module))
    ]
    if len(kept) == len(products):
        why = f" whose inputs are a multiple of {GROUP} and outputs of {ROWS}" if four_bits else ""
        raise ShrinkError(
            f"`model` must have linear layers{why} beside its heads, but {type(job.model).__name__} has none left to "
            "pack. Choose another method, or ignore less."
        )
    return kept


def _fits(layer: nn.Module) -> bool:
    """Whether each row is made of whole groups, and the kernel of CPUs with AVX512-BF16 takes their number.

    Without it such a CPU fails at the first answer: "N must be divisible by block_n".
    """
    shape = tuple(layer.weight.shape)  # type: ignore[union-attr, arg-type]
    outputs, inputs = shape[::-1] if isinstance(layer, Conv1D) else shape
    return outputs % ROWS == 0 and inputs % GROUP == 0


def _float_share(packed: PreTrainedModel) -> float:
    floats = sum(p.numel() for p in packed.parameters() if p.is_floating_point())
    return round(floats / packed.num_parameters(), 4)  # which counts two numbers in a byte of 4-bit weights
