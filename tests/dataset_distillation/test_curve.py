import numpy as np

from hf_shrink.dataset_distillation.bake_off import Arm
from hf_shrink.dataset_distillation.curve import CurvePoint, draw_curve, smallest_budget
from tests.dataset_distillation.clusters import pool


def test_more_rows_make_better_heads_and_all_rows_are_the_same_for_all():
    rows = pool()
    curve = draw_curve(rows, 40, Arm("kmeans"))
    assert [point.rows for point in curve] == [6, 12, 30, 40, 60, 120, 180, 300, 600]
    assert curve[0].score < curve[4].score < curve[-1].score + 0.05
    assert curve[-1].score == curve[-1].stratified
    assert np.mean([p.score - p.stratified for p in curve[:5]]) > 0.02


def test_budgets_below_one_row_a_class_are_left_out():
    assert min(point.rows for point in draw_curve(pool(rows=120), 30, Arm("stratified"))) >= 4


def test_a_budget_of_all_rows_is_the_last_point():
    curve = draw_curve(pool(rows=120), 120, Arm("stratified"))
    assert [point.rows for point in curve][-1] == 120
    assert len({point.rows for point in curve}) == len(curve)


def test_the_smallest_budget_is_the_first_that_reaches_its_share():
    scores = [(10, 0.70), (20, 0.91), (40, 0.90), (100, 0.94), (200, 0.95)]
    curve = [CurvePoint(rows, score, 0.0, score, 0.0) for rows, score in scores]
    assert smallest_budget(curve, 0.95) == 20
    assert smallest_budget(curve, 0.98) == 100
    assert smallest_budget(curve, 1.0) is None
