import pytest

from hf_shrink.quantization import quantize
from tests.models import tiny_tokenizer
from tests.quantization.texts import real_proportions


@pytest.fixture(scope="session")
def model():
    """A float classifier; tests must leave it as it is."""
    return real_proportions()


@pytest.fixture(scope="session")
def artifact(model, tmp_path_factory):
    """Its artifact: most tests only look at it, for an export takes seconds."""
    return quantize(
        model, "onnx-int8", output_dir=tmp_path_factory.mktemp("int8") / "tickets", processing_class=tiny_tokenizer()
    )
