import pytest

from hf_shrink.errors import MissingExtraError, ShrinkError, require


def test_require_imports():
    assert require("json.decoder", extra="onnx").__name__ == "json.decoder"


def test_a_missing_library_names_its_extra():
    with pytest.raises(MissingExtraError, match=r'pip install "hf_shrink\[onnx\]"') as error:
        require("no_such_library.part", extra="onnx")
    assert isinstance(error.value, ShrinkError)
    assert isinstance(error.value, ImportError)


def test_a_broken_library_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import something_else_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_else") as error:
        require("broken_library", extra="onnx")
    assert not isinstance(error.value, ShrinkError)
