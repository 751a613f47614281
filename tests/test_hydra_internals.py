from hydra.core.override_parser.overrides_parser import OverridesParser

from mnist_pipeline.config import hydra_internals


def test_the_parser_knows_the_flags_of_a_hydra_app() -> None:
    parsed = hydra_internals.make_parser().parse_args(["--cfg", "job", "-m", "--config-dir", "/x", "a=1", "b=2"])
    assert (parsed.cfg, parsed.multirun, parsed.config_dir, parsed.overrides) == ("job", True, "/x", ["a=1", "b=2"])


def test_a_sweep_is_split_in_the_order_of_its_keys() -> None:
    parsed = OverridesParser.create().parse_overrides(["a=1,2", "b=x", "c=3,4"])
    assert hydra_internals.split_sweep(parsed) == [
        ["a=1", "b=x", "c=3"],
        ["a=1", "b=x", "c=4"],
        ["a=2", "b=x", "c=3"],
        ["a=2", "b=x", "c=4"],
    ]


def test_values_are_listed_and_written_in_the_same_grammar() -> None:
    choice, single = OverridesParser.create().parse_overrides(["a=1,'x y'", "b={c: [1, null]}"])
    assert list(map(hydra_internals.write_value, hydra_internals.list_values(choice))) == ["1", "'x y'"]
    assert list(map(hydra_internals.write_value, hydra_internals.list_values(single))) == ["{c:[1,null]}"]
