"""What a pruned model may cost: checked, read, compared."""

import math

import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.constraints import Limits, check_constraints, read_constraints, values_of
from hf_shrink.pruning.costs import Cost

DENSE = Cost(macs=1000, parameters=400, bytes=2_000_000, latency_ms=8)

REFUSED = [
    (None, "must be a dictionary such as"),
    ({}, "must be a dictionary such as"),
    ([("macs", 0.5)], "must be a dictionary such as"),
    (0.5, "must be a dictionary such as"),
    ({"flops": 0.5}, "must name some of macs, parameters, size_mb, latency_ms, got 'flops'"),
    ({"macs": 0.5, 3: 0.5}, "must name some of macs, parameters, size_mb, latency_ms, got 3"),
    ({"macs": 0}, "numbers above 0, got 0 for 'macs'"),
    ({"parameters": -0.5}, "numbers above 0, got -0.5 for 'parameters'"),
    ({"size_mb": -1}, "numbers above 0, got -1 for 'size_mb'"),
    ({"macs": math.nan}, "numbers above 0, got nan for 'macs'"),
    ({"macs": math.inf}, "numbers above 0, got inf for 'macs'"),
    ({"size_mb": math.inf}, "numbers above 0, got inf for 'size_mb'"),
    ({"macs": True}, "numbers above 0, got True for 'macs'"),
    ({"macs": "0.5"}, "numbers above 0, got '0.5' for 'macs'"),
    ({"latency_ms": 0}, "numbers above 0, got 0 for 'latency_ms'"),
    ({"size_mb": None}, "numbers above 0, got None for 'size_mb'"),
    ({"macs": 1.5}, r"a share in \(0, 1\] or a whole number for 'macs', got 1.5"),
    ({"parameters": 3e6}, "Write half as 0.5 and a count as 3000000"),
]


@pytest.mark.parametrize(("constraints", "message"), REFUSED, ids=str)
def test_what_is_no_constraint_is_refused(constraints, message):
    with pytest.raises(ShrinkError, match=message):
        check_constraints(constraints)


@pytest.mark.parametrize(
    ("constraints", "most"),
    [
        ({"macs": 0.5}, {"macs": 500}),
        ({"macs": 1.0}, {"macs": 1000}),
        ({"macs": 1}, {"macs": 1}),
        ({"parameters": 300, "macs": 0.25}, {"parameters": 300, "macs": 250}),
        ({"size_mb": 1.5}, {"size_mb": 1.5}),
        ({"size_mb": 0.5}, {"size_mb": 0.5}),  # never a share
        ({"size_mb": 2}, {"size_mb": 2}),
        ({"latency_ms": 0.5, "macs": 0.5}, {"latency_ms": 0.5, "macs": 500}),
    ],
)
def test_shares_counts_and_megabytes(constraints, most):
    assert check_constraints(constraints) is constraints
    assert read_constraints(constraints, DENSE).most == most


def test_values_have_the_names_of_constraints():
    assert values_of(DENSE) == {"macs": 1000, "parameters": 400, "size_mb": 2, "latency_ms": 8}


def test_all_limits_hold_and_the_worst_is_told():
    limits = Limits({"macs": 500, "parameters": 300, "size_mb": 1.0})
    assert limits.met_by(Cost(500, 300, 1_000_000))
    assert not limits.met_by(Cost(501, 1, 1))
    assert not limits.met_by(Cost(1, 301, 1))
    assert not limits.met_by(Cost(1, 1, 1_000_001))
    assert not Limits({"latency_ms": 7}).met_by(DENSE)
    assert limits.excess(DENSE) == 2
    assert limits.excess(Cost(250, 300, 900_000)) == 1
    assert limits.met_by(Cost(500 * (1 + 1e-12), 300, 1e6))  # the rounding of a share
