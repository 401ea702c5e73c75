import logging

from hf_shrink.quantization.silence import quiet


def test_loggers_are_as_before_and_the_root_stays_bare(monkeypatch, caplog):
    root, one = logging.getLogger(), logging.getLogger("some.library")
    with quiet("some.library", "root"):
        one.warning("nothing to do about it")
        one.error("this matters")
    assert [record.message for record in caplog.records] == ["this matters"]
    monkeypatch.setattr(root, "handlers", [])  # as in a user's process; pytest has put its own there
    with quiet("root"):
        logging.info("the first message to the root gives it a handler")
    assert root.handlers == []
    assert (one.level, root.level) == (logging.NOTSET, logging.WARNING)
