"""Safetensors in which a tensor is stored as it is, or as a bitmask and the values that are not zero."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from hf_shrink.errors import ShrinkError

CHUNK = 2**20  # elements held at a time; a multiple of 8, so that bitmasks join without a gap
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # as integers -0.0 and NaN keep their bits
CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {code: dtype for dtype, code in CODES.items()}


@dataclass(frozen=True)
class _Part:
    """One tensor of the file: a weight as it is, or the bitmask or the values of one."""

    name: str
    part: Literal["dense", "bitmask", "values"]
    source: Tensor
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.part == "bitmask" else self.source.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def content(self) -> Iterator[np.ndarray]:
        for chunk in _chunks(self.source):
            bits = chunk.cpu().numpy()
            if self.part == "bitmask":
                yield np.packbits(bits != 0, bitorder="little")
            else:
                yield bits if self.part == "dense" else bits[bits != 0]


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[str]:
    """Write tensors as one safetensors file, packed where that makes them smaller.

    One pass counts what is not zero, a second one writes; no more than a chunk of a tensor is held beside it.

    Args:
        file: Open for writing, at its start.
        tensors: Of any shape and layout, on any device, by name.
        metadata: Further entries of the file's metadata.

    Returns:
        Names of the packed ones.

    Raises:
        ShrinkError: If the tensors change meanwhile.
    """
    counts = {name: _count_nonzero(tensor) for name, tensor in tensors.items()}
    packed = [name for name, tensor in tensors.items() if _packed_size(tensor, counts[name]) < tensor.nbytes]
    layouts = {name: [CODES[tensors[name].dtype], *tensors[name].shape] for name in packed}
    parts = [part for name in tensors for part in _parts(name, tensors[name], counts[name], name in layouts)]
    # Wide types first: then every tensor starts at a multiple of its element's size, as readers of the format expect.
    parts.sort(key=lambda part: -part.dtype.itemsize)
    end = _write_header(file, parts, {**metadata, "format": "pt", "packed": json.dumps(layouts)})
    for part in parts:
        for piece in part.content():
            file.write(piece.data)
    if file.tell() != end:
        raise ShrinkError("`model` must stay as it is while it is saved, but its zeros changed. Save it at rest.")
    return packed


def read_metadata(path: Path) -> dict[str, str]:
    """Read what was written beside the tensors.

    Args:
        path: A safetensors file.

    Returns:
        The metadata; empty where there is none.
    """
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read which tensors were written.

    Args:
        path: What `write_tensors` wrote.

    Returns:
        Their shapes by name.
    """
    with safe_open(path, framework="pt") as file:
        layouts = json.loads(file.metadata()["packed"])
        hidden = {_part_name(name, kind) for name in layouts for kind in ("bitmask", "values")}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys() if name not in hidden}
    return shapes | {name: tuple(shape) for name, (_, *shape) in layouts.items()}


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Read one tensor after the other, bit for bit as it was.

    Args:
        path: What `write_tensors` wrote.

    Yields:
        Name and dense tensor in memory of its own.
    """
    layouts = json.loads(read_metadata(path)["packed"])
    for name in read_shapes(path):
        with safe_open(path, framework="pt") as file:  # opened anew, else all that was read stays mapped
            tensor = _unpack(file, name, *layouts[name]) if name in layouts else file.get_tensor(name).clone()
        yield name, tensor


def _count_nonzero(tensor: Tensor) -> int:
    return sum(int(chunk.count_nonzero()) for chunk in _chunks(tensor))


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """The bits of a tensor in its logical order, without a copy where it is contiguous."""
    flat = tensor.detach().reshape(-1)
    return iter(flat.view(BITS[tensor.dtype.itemsize]).split(CHUNK) if len(flat) else ())


def _packed_size(tensor: Tensor, nonzero: int) -> int:
    return _mask_size(tensor.numel()) + nonzero * tensor.dtype.itemsize


def _mask_size(elements: int) -> int:
    return (elements + 7) // 8


def _parts(name: str, tensor: Tensor, nonzero: int, packed: bool) -> list[_Part]:
    if not packed:
        return [_Part(name, "dense", tensor, tuple(tensor.shape))]
    return [
        _Part(_part_name(name, "bitmask"), "bitmask", tensor, (_mask_size(tensor.numel()),)),
        _Part(_part_name(name, "values"), "values", tensor, (nonzero,)),
    ]


def _part_name(name: str, kind: str) -> str:
    return f"{name}/{kind}"


def _write_header(file: BinaryIO, parts: list[_Part], metadata: Mapping[str, str]) -> int:
    """Write the header's length in 8 bytes and the header as JSON; the tensors follow without a gap, to the end given.

    Padded to 8 bytes, so that the first tensor lies at a multiple of them.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for part in parts:
        start, end = end, end + part.size
        header[part.name] = {"dtype": CODES[part.dtype], "shape": list(part.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    return 8 + len(text) + end


def _unpack(file: Any, name: str, code: str, *shape: int) -> Tensor:
    dtype = DTYPES[code]
    mask = file.get_tensor(_part_name(name, "bitmask"))
    values = file.get_tensor(_part_name(name, "values")).view(BITS[dtype.itemsize]).numpy()
    tensor = torch.zeros(shape, dtype=dtype)
    start = 0
    for chunk, packed in zip(_chunks(tensor), mask.split(CHUNK // 8), strict=True):
        kept = np.unpackbits(packed.numpy(), count=len(chunk), bitorder="little").view(bool)
        end = start + int(np.count_nonzero(kept))
        chunk.numpy()[kept] = values[start:end]  # the chunk is a view of the tensor
        start = end
    return tensor
