"""What parts cost: sums that come out as counts of the models that are cut so."""

import pytest

from hf_shrink.architectures import architecture_of, find_layers
from hf_shrink.evaluation.macs import count_macs
from hf_shrink.evaluation.size import count_parameters
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.costs import Cost, count_costs
from hf_shrink.pruning.dead_units import find_blocks, find_widths
from hf_shrink.pruning.layer_removal import drop_layers
from tests.architectures.models import FAMILIES, tiny_model
from tests.pruning.silencing import GROUPED, SINGLE, kill_heads, kill_units

LENGTH = 9
DROPPED = {"whisper": [2, 0], "t5": [0], "gated-t5": [1, 0]}  # T5's first layers hold what all need


def counted(model):
    return {"macs": count_macs(model, sequence_length=LENGTH), "parameters": count_parameters(model)}


def exact(cost):
    return {"macs": cost.macs, "parameters": cost.parameters}


def without(table, model, dropped):
    left = table.total
    for stack, layers in find_layers(model).items():
        for index in dropped:
            assert index < len(layers)
            left = left - table.layers[stack][index]
    return left


@pytest.mark.parametrize("family", FAMILIES)
def test_sums_are_the_counts_of_what_is_cut_so(family, tmp_path):
    model = tiny_model(family)
    table = count_costs(model, LENGTH)
    assert exact(table.total) == counted(model)

    model.save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert abs(table.total.bytes - size) <= max(0.02 * size, 4096)

    (stack, *_) = architecture_of(model).stacks
    cut = kill_units(tiny_model(family))
    if "heads" in architecture_of(model).cuts:
        cut = kill_heads(cut, (GROUPED if stack.key_value_heads_field else SINGLE)[0])
    widths, left = find_widths(cut), table.total
    for width in widths:
        for block in width.blocks:
            assert width.smallest < width.units
            left = left - table.units[block.name] * (width.units - width.smallest)
    assert exact(left) == pytest.approx(counted(compact(cut)), rel=1e-12)

    dropped = DROPPED.get(family, [1, 3])
    assert exact(without(table, model, dropped)) == counted(drop_layers(model, dropped))


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_a_head_that_no_config_can_lose_costs_its_part_too(family):
    model = tiny_model(family)
    table = count_costs(model, LENGTH)
    for _, block in find_blocks(model, "heads"):
        unit, units = table.units[block.name], len(block.live)
        sizes = {piece.name: piece.parameter.numel() for piece in block.pieces}
        biases = sum(size for name, size in sizes.items() if "bias" in name)  # and T5's relative positions
        weights = sum(sizes.values()) - biases
        assert (biases > 0) == (
            family == "bert"
            or block.name == "encoder.block.0.layer.0.SelfAttention.o"
            or block.name == "decoder.block.0.layer.0.SelfAttention.o"
        )
        assert unit.parameters * units == weights + biases
        assert unit.bytes == 4 * unit.parameters
        width = block.pieces[-1].width * units
        assert unit.macs * units == LENGTH * weights + 2 * LENGTH * LENGTH * width


def test_macs_grow_with_the_length_and_bytes_with_the_type():
    model = tiny_model("bert")
    short, long = count_costs(model, 5), count_costs(model, 40)
    assert long.total.macs > 8 * short.total.macs
    assert long.total.parameters == short.total.parameters
    half = count_costs(tiny_model("bert").bfloat16(), 5)
    tensors = len(model.state_dict())
    assert half.total.bytes - 128 * tensors == 2 * half.total.parameters
    assert {name: cost.bytes for name, cost in half.units.items()} == {
        name: cost.bytes / 2 for name, cost in short.units.items()
    }


def test_costs_add_up():
    assert Cost(5, 4, 3) - Cost(1, 1, 1) * 2 + Cost(0, 1, 0) == Cost(3, 3, 1)
