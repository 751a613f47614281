"""YAML that somebody else wrote is bounded, and nothing in it is resolved."""

import pytest

from mnist_pipeline.system import plain_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text", [BOMB, "[" * 1000, "x: " + "y" * plain_yaml.MAX_BYTES, "a: [", "\xff", "!!python/name:os.system"]
)
def test_yaml_of_others_is_bounded(text: str) -> None:
    with pytest.raises(ValueError, match=r"it|codec"):
        plain_yaml.read(text.encode("latin-1"))


def test_yaml_of_others_stays_as_it_is() -> None:
    assert plain_yaml.read(b"a: ${oc.env:HOME}\nb: [1, 2.5, null, yes]\n") == {
        "a": "${oc.env:HOME}",
        "b": [1, 2.5, None, True],
    }
