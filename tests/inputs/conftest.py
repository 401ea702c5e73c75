import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Call it to cut this machine off: the Hub's address then leads to a port that nobody listens at."""

    def cut():
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the clients wait before they try again
        nowhere = "http://127.0.0.1:9"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/{filename}")
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", nowhere)

    return cut
