"""The search for the smallest artifact that keeps an accuracy, with makers that only count."""

import json
import math
import random

import pytest

from hf_shrink.quantization.accuracy_search import Candidate, Trial, find_smallest

NAMES = tuple(f"m{i}" for i in range(40))


class Method:
    """A quantizer whose drop is the sum over the modules that it packs."""

    def __init__(self, name, harm, *, packed=10, in_float=40, order=NAMES):
        self.name, self.harm, self.sizes, self.order = name, harm, (packed, in_float), order
        self.made, self.ordered = [], 0

    def make(self, ignore):
        assert ignore not in self.made, "made twice"
        self.made.append(ignore)
        packed, in_float = self.sizes
        size = sum(in_float if name in ignore else packed for name in NAMES)
        drop = sum(harm for name, harm in self.harm.items() if name not in ignore)
        return Trial(self.name, ignore, size, drop, artifact=len(self.made))

    def ask_order(self):
        self.ordered += 1
        return self.order

    def candidate(self):
        return Candidate(self.name, self.ask_order, self.make)


def search(*methods, max_drop=0.01):
    return find_smallest([method.candidate() for method in methods], max_drop)


def test_nothing_stays_in_float_where_nothing_need():
    method = Method("int8", {"m0": 0.009})
    found = search(method)
    assert (found.met, found.best.ignore, method.made, method.ordered) == (True, (), [()], 0)


@pytest.mark.parametrize("bad", [1, 2, 3, 5, 6, 7, 11, 19, 20])
def test_the_fewest_modules_stay_in_float(bad):
    method = Method("int8", dict.fromkeys(NAMES[:bad], 0.02))
    found = search(method)
    assert found.met
    assert found.best.ignore == NAMES[:bad]
    assert found.best in found.trials
    assert method.ordered == 1
    assert len(method.made) <= 2 + 2 * math.ceil(math.log2(bad + 1))


def test_the_order_is_worth_it():
    bad = dict.fromkeys(NAMES[:4], 0.02)
    by_sensitivity = search(Method("int8", bad))
    by_chance = list(NAMES)
    random.Random(0).shuffle(by_chance)
    shuffled = search(Method("int8", bad, order=by_chance))
    assert len(by_sensitivity.best.ignore) == 4
    assert not shuffled.met or len(shuffled.best.ignore) > 8


def test_what_cannot_be_met_gives_the_best_and_says_so():
    found = search(Method("int8", dict.fromkeys(NAMES, 0.02)))
    assert not found.met
    assert len(found.best.ignore) == 20  # half of the modules, and not all of them
    assert found.best.drop == min(trial.drop for trial in found.trials)
    harmless = search(Method("int8", {"elsewhere": 0.5}))
    assert (harmless.met, harmless.best.ignore) == (False, ())  # of equal drops the smallest


def test_a_drop_that_is_no_number_keeps_nothing():
    found = search(Method("int8", {"m0": math.nan}))
    assert (found.met, found.best.ignore) == (True, ("m0",))
    found = search(Method("int8", {"elsewhere": math.nan}))
    assert (found.met, found.best.ignore) == (False, ())
    assert found.to_dict()["drop"] is None


def test_the_cheapest_method_that_keeps_it_is_taken():
    found = search(Method("int4", {"elsewhere": 1}, packed=5), Method("int8", {}), Method("never", {}))
    assert (found.met, found.best.method, found.best.ignore) == (True, "int8", ())
    assert "never" not in {trial.method for trial in found.trials}


def test_a_cheaper_method_with_few_modules_in_float_wins_only_while_it_is_smaller():
    few = Method("int4", dict.fromkeys(NAMES[:3], 0.02), packed=5)  # 3 in float: 305 against 400
    found = search(few, Method("int8", {}))
    assert (found.best.method, found.best.ignore) == ("int4", NAMES[:3])
    many = Method("int4", dict.fromkeys(NAMES[:8], 0.02), packed=5)  # 8 in float: 480 against 400
    found = search(many, Method("int8", {}))
    assert (found.best.method, found.best.ignore) == ("int8", ())
    assert max(len(ignore) for ignore in many.made) <= 8  # and is not grown further


def test_without_a_limit_the_first_is_measured_once():
    method = Method("int8", {"m0": 0.5})
    found = search(method, Method("other", {}), max_drop=math.inf)
    assert (found.best.drop, len(found.trials)) == (0.5, 1)


def test_a_model_of_one_module_is_not_left_in_float():
    found = search(Method("int8", {"m0": 1}, order=("m0",)))
    assert (found.met, found.best.ignore) == (False, ())


def test_the_trail_is_plain_values():
    found = search(Method("int8", {"m0": 0.02, "m1": 0.02}))
    record = json.loads(json.dumps(found.to_dict()))
    assert record["met"] is True
    assert [(trial["in_float"], trial["bytes"], trial["drop"]) for trial in record["trials"]] == [
        (0, 400, 0.04),
        (1, 430, 0.02),
        (2, 460, 0.0),
    ]
