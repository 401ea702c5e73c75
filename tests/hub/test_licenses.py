import pytest

from hf_shrink import ShrinkError
from hf_shrink.hub.licenses import most_restrictive


@pytest.mark.parametrize(
    ("licenses", "binding"),
    [
        (["cc-by-4.0"], "cc-by-4.0"),
        (["cc0-1.0", "apache-2.0"], "apache-2.0"),
        (["apache-2.0", "cc-by-nc-4.0", "mit"], "cc-by-nc-4.0"),
        (["cc-by-nc-4.0", "cc-by-nc-sa-4.0"], "cc-by-nc-sa-4.0"),
        (["mit", "cc-by-4.0"], "mit"),  # alike: the first
        (["cc-by-sa-4.0", "gpl-3.0"], "other"),  # each asks for itself alone
        (["cc-by-4.0", "llama3"], "other"),  # not known
        (["llama3"], "llama3"),
    ],
)
def test_the_one_that_asks_most_binds(licenses, binding):
    assert most_restrictive(licenses) == binding


def test_none_is_refused():
    with pytest.raises(ShrinkError, match="`license` must hold an identifier"):
        most_restrictive([])
