"""Schedules by hand-computed values, their order over a run, and where a ramp lies in it."""

import math
from types import SimpleNamespace

import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.config import PruningConfig
from hf_shrink.pruning.schedule import SCHEDULES, Ramp, make_ramp, sparsity_at


def settings(**changes):
    values = {
        "start_step": 0.0,
        "end_step": 1.0,
        "pruning_frequency": 10,
        "schedule": "cubic",
        "initial_sparsity": 0.0,
        "final_sparsity": 0.8,
        "milestones": [0.5, 1.0],
    }
    return SimpleNamespace(**(values | changes))


# ------------------------------------------------------------------ sparsity over progress
@pytest.mark.parametrize(
    ("schedule", "progress", "sparsity"),
    [
        ("constant", 0.0, 0.8),
        ("constant", 0.3, 0.8),
        ("one_shot", 0.0, 0.8),
        ("linear", 0.0, 0.2),
        ("linear", 0.25, 0.35),
        ("cubic", 0.0, 0.2),
        ("cubic", 0.5, 0.725),  # 0.8 - 0.6 / 8
        ("cubic", 0.9, 0.7994),
        ("exponential", 0.0, 0.2),
        ("exponential", 0.5, 0.6),  # density sqrt(0.8 * 0.2)
        ("exponential", 0.25, 1 - 0.8 * 0.25**0.25),
        ("multi_step", 0.0, 0.2),
        ("multi_step", 0.24, 0.2),
        ("multi_step", 0.25, 0.4),
        ("multi_step", 0.7, 0.6),
        ("multi_step", 0.99, 0.8),
    ],
)
def test_by_hand(schedule, progress, sparsity):
    found = sparsity_at(progress, schedule=schedule, initial=0.2, final=0.8, milestones=[0.25, 0.7, 0.9])
    assert found == pytest.approx(sparsity, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("initial", "final"), [(0.0, 0.8), (0.1, 0.3), (0.5, 0.5), (0.0, 0.95), (1 / 3, 2 / 3)])
def test_it_never_falls_and_ends_exactly(schedule, initial, final):
    curve = [
        sparsity_at(step / 97, schedule=schedule, initial=initial, final=final, milestones=[0.25, 0.5, 1.0])
        for step in range(98)
    ]
    assert curve == sorted(curve)
    assert initial <= curve[0] <= final
    assert curve[-1] == final  # to the bit


def test_every_schedule_says_what_it_is():
    assert set(SCHEDULES) == {"constant", "linear", "cubic", "exponential", "multi_step", "one_shot"}
    assert all(function.__doc__ for function in SCHEDULES.values())


@pytest.mark.parametrize("progress", [-0.01, 1.01, math.nan])
def test_progress_out_of_range(progress):
    with pytest.raises(ShrinkError, match="`progress` must be in"):
        sparsity_at(progress, schedule="linear", initial=0.0, final=0.5)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ShrinkError, match=r"`schedule` must be one of .*'linear'.*got 'quadratic'"):
        sparsity_at(0.5, schedule="quadratic", initial=0.0, final=0.5)


# ------------------------------------------------------------------ steps
def test_masks_are_chosen_from_start_to_end():
    ramp = make_ramp(settings(start_step=5, end_step=28, pruning_frequency=10), 40)
    assert [step for step in range(41) if ramp.is_due(step)] == [5, 15, 25, 28]


def test_the_end_is_not_due_twice():
    ramp = make_ramp(settings(start_step=0.0, end_step=1.0, pruning_frequency=10), 20)
    assert [step for step in range(30) if ramp.is_due(step)] == [0, 10, 20]


def test_one_shot_is_due_once():
    ramp = make_ramp(settings(schedule="one_shot", start_step=0.25, end_step=0.0), 40)
    assert [step for step in range(41) if ramp.is_due(step)] == [10]
    assert ramp.end == 10
    assert [ramp.sparsity(step) for step in (0, 9, 10, 11, 40)] == [0.0, 0.0, 0.8, 0.8, 0.8]


def test_sparsity_before_within_and_after():
    ramp = make_ramp(settings(schedule="linear", start_step=10, end_step=20, initial_sparsity=0.2), 40)
    assert [ramp.sparsity(step) for step in (0, 9, 20, 21, 40)] == [0.0, 0.0, 0.8, 0.8, 0.8]
    assert ramp.sparsity(10) == 0.2
    assert ramp.sparsity(15) == pytest.approx(0.5)


def test_milestones_of_a_ramp():
    ramp = make_ramp(settings(schedule="multi_step", end_step=10, milestones=[0.3, 0.7], pruning_frequency=1), 10)
    assert [ramp.sparsity(step) for step in range(11)] == [0.0] * 3 + [0.4] * 4 + [0.8] * 4


def test_constant_holds_from_the_start():
    ramp = make_ramp(settings(schedule="constant", start_step=10, end_step=20), 40)
    assert [ramp.sparsity(step) for step in (9, 10, 20)] == [0.0, 0.8, 0.8]
    assert ramp.is_due(20)


@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [
        (0.0, 1.0, (0, 150)),
        (0.1, 0.5, (15, 75)),
        (0.333, 0.667, (50, 100)),  # nearest
        (2, 150, (2, 150)),
        (0.1, 100.0, (15, 100)),
        (0, 1, (0, 150)),  # 1 is the whole run
    ],
)
def test_shares_and_steps(start, end, steps):
    ramp = make_ramp(settings(start_step=start, end_step=end), 150)
    assert (ramp.start, ramp.end) == steps
    assert isinstance(ramp.start, int)
    assert isinstance(ramp.end, int)


def test_a_config_makes_a_ramp():
    config = PruningConfig(final_sparsity=0.5, start_step=0.1, pruning_frequency=7, milestones=[0.2, 0.9])
    expected = Ramp(10, 100, 7, "cubic", config.initial_sparsity, 0.5, (0.2, 0.9))
    assert make_ramp(config, 100) == expected


# ------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0.5, 0.5, r"`end_step` must be after start_step, got 0.5 \(step 50 of 100\) .* 0.5 \(step 50\)"),
        (60, 0.5, r"got 0.5 \(step 50 of 100\) for a start_step of 60 \(step 60\)"),
        (0.001, 0.004, r"step 0 of 100"),  # shares apart, steps together
        (0.0, 101, r"`end_step` must be at most 100, the steps of this run, got 101\. Train longer"),
        (101, 1.0, "`start_step` must be at most 100"),
        (math.nan, 1.0, "`start_step` must be a share"),
        (0.0, math.nan, "`end_step` must be a share"),
        (0.0, math.inf, "`end_step` must be a share"),
        (-0.1, 1.0, "`start_step` must be a share"),
        (0.0, 10.5, "`end_step` must be a share of the run .* or a whole step"),
    ],
)
def test_steps_that_do_not_lie_in_the_run(start, end, message):
    with pytest.raises(ShrinkError, match=message):
        make_ramp(settings(start_step=start, end_step=end), 100)


def test_one_shot_after_the_run_is_refused():
    with pytest.raises(ShrinkError, match="`start_step` must be at most 100"):
        make_ramp(settings(schedule="one_shot", start_step=101), 100)


@pytest.mark.parametrize("max_steps", [0, -1, math.nan])
def test_a_run_of_unknown_length_is_refused(max_steps):
    with pytest.raises(ShrinkError, match="`max_steps` must be at least 1"):
        make_ramp(settings(), max_steps)
