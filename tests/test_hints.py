import pytest

from mnist_pipeline.system.hints import command
from mnist_pipeline.system.nearest import nearest


def test_commands_are_written_as_the_person_typed_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("promote", "data=digits") == "mnist-pipeline promote data=digits"
    monkeypatch.setenv("MAKELEVEL", "1")
    assert command("promote") == "make promote"
    assert command("promote", "data=digits") == "make promote data=digits"
    assert command("doctor", "--fix") == 'make doctor ARGS="--fix"'
    assert command("rollback", '--reason "a b"') == "make rollback ARGS='--reason \"a b\"'"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hiden_width", "hidden_width"),
        ("epochs", "num_epochs"),
        ("dropout", "dropout_rate"),
        ("optimizer", None),
        ("num", None),
        ("", None),
    ],
)
def test_only_near_names_are_proposed(typed: str, meant: str | None) -> None:
    known = ["hidden_width", "dropout_rate", "num_epochs", "num_threads", "batch_size", "learning_rate", "seed"]
    assert nearest(typed, known) == meant
