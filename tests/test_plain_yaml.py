"""YAML that somebody else wrote is bounded, and nothing in it is resolved."""

import pytest
from omegaconf import OmegaConf

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


@pytest.mark.parametrize(
    "text", ["1e3", "yes", "null", "0x1f", "1_000", "nan", "", "a: b", "${x}", "ä", "two\nlines", "~", "01"]
)
def test_what_is_written_is_read_back_by_hydra(text: str) -> None:
    values = {"text": text, "list": [text, 1, 2.5, None, True], "nested": {"number": 1e-5}}
    written = plain_yaml.write(values)
    assert OmegaConf.to_container(OmegaConf.create(written), resolve=False) == values
    assert plain_yaml.read(written.encode()) == values
