import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.registry import Registry


@pytest.fixture
def registry():
    methods = Registry("method", "json")  # any package will do: its modules register nothing

    @methods.add("double", paper="arXiv:0000.00000", extra="onnx")
    def double(x: int, *, offset: int = 1) -> int:
        """Double it.

        And more.
        """
        return 2 * x + offset

    return methods


def test_a_method_carries_its_facts(registry):
    method = registry["double"]
    assert (method.paper, method.summary, method.options) == ("arXiv:0000.00000", "Double it.", {"offset": 1})
    assert method.facts == {"extra": "onnx"}
    assert list(registry) == ["double"]


def test_names_and_callables_resolve(registry):
    assert registry.resolve("double")(3) == 7
    assert registry.resolve(abs) is abs


def test_an_unknown_name_gets_the_close_one(registry):
    with pytest.raises(
        ShrinkError, match=r"`method` must be one of \['double'\], got 'duoble'. Did you mean 'double'\?"
    ):
        registry["duoble"]


def test_a_name_is_given_once(registry):
    with pytest.raises(ShrinkError, match="already"):
        registry.add("double", paper="arXiv:1")(lambda x: x)
