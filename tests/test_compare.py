import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from mnist_pipeline.reports import comparison_page
from mnist_pipeline.reports.compare import Comparison, compare
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking.record import RunRecord


def past(
    validation: float | None,
    *,
    seed: int = 0,
    width: int = 128,
    test: float = 0.9,
    started_ms: int = 0,
    commit: str = "c",
    code: str = "same",
) -> RunRecord:
    params = {
        "data.name": "mnist", "data.split_seed": "0", "data.npz_url": f"http://{seed}",
        "model.hidden_width": str(width), "model.dropout_rate": "0.2", "train.seed": str(seed),
    }  # fmt: skip
    ranked = {} if validation is None else {"validation/accuracy": validation}
    return RunRecord(
        run_id=f"{width:04}{seed:04}{started_ms:024}",
        experiment_id="1",
        name=f"w{width}-s{seed}",
        status="FINISHED",
        address="",
        started_ms=started_ms,
        params=params,
        metrics={**ranked, "test/accuracy": test, "time/train_sec": width / 10},
        tags={"kind": "train", "mlflow.source.git.commit": commit, "training.fingerprint": f"{width} {seed} {code}"},
        read_bytes=lambda path: b"",
    )


def compared(*runs: RunRecord, group_by: Sequence[str] | None = None) -> Comparison:
    return compare(runs, aliases={}, group_by=group_by)


def test_the_best_is_first_and_only_the_params_that_differ_are_shown() -> None:
    found = compare(
        [past(0.91, width=32), past(0.97, width=64), past(0.95, width=64, seed=1)],
        aliases={past(0, width=64).run_id: ["mnist-classifier@champion"]},
    )
    assert list(found.table["name"]) == ["w64-s0", "w64-s1", "w32-s0"]
    assert found.differing == ("model.hidden_width", "train.seed")
    assert list(found.table["model.hidden_width"]) == [64, 64, 32]
    assert list(found.table["aliases"]) == ["mnist-classifier@champion", "", ""]
    assert "data.npz_url" not in found.table  # it decides nothing
    assert "validation/loss" not in found.table  # no run has it


def test_seeds_are_one_configuration_with_mean_spread_and_interval() -> None:
    found = compared(*(past(value, seed=seed) for seed, value in enumerate([0.90, 0.92, 0.94])))
    (group,) = found.groups.to_dict("records")
    assert group["num_runs"] == 3
    assert group["validation/accuracy_mean"] == pytest.approx(0.92)
    assert group["validation/accuracy_std"] == pytest.approx(0.02)
    half = 4.302653 * 0.02 / math.sqrt(3)  # the 97.5 % quantile of t with 2 degrees of freedom
    assert group["validation/accuracy_low"] == pytest.approx(0.92 - half, abs=1e-6)
    assert group["validation/accuracy_high"] == pytest.approx(0.92 + half, abs=1e-6)
    assert "3 runs: mean validation accuracy 0.9200 ± 0.0497" in comparison_page.describe(found)


def test_a_single_seed_has_no_interval() -> None:
    found = compared(past(0.9, width=32), past(0.8, width=64))
    assert found.groups["validation/accuracy_low"].isna().all()
    assert found.leads == ()
    assert found.leader is None
    described = comparison_page.describe(found)
    assert "single seed" in described
    assert "train.seed=0,1,2" in described


def test_the_lead_is_measured_seed_by_seed() -> None:
    better = [past(value, seed=seed, width=64) for seed, value in enumerate([0.92, 0.95, 0.94])]
    worse = [past(value, seed=seed, width=32) for seed, value in enumerate([0.90, 0.92, 0.90])]
    found = compared(*better, *worse, past(0.1, seed=7, width=32))  # whose seed the other has not
    (lead,) = found.leads
    assert (lead.name, lead.num_pairs) == ("hidden_width=32", 3)
    half = 4.302653 * 0.01 / math.sqrt(3)  # the differences are 0.02, 0.03, 0.04
    assert (lead.mean, lead.low, lead.high) == pytest.approx((0.03, 0.03 - half, 0.03 + half), abs=1e-6)
    assert "Ahead of hidden_width=32 by +3.00 points (95% interval +0.52 to +5.48, 3 seeds): more than chance." in (
        comparison_page.describe(found)
    )


def test_a_single_seed_does_not_hide_the_result_of_several() -> None:
    several = [
        past(value + seed * value / 100, seed=seed, width=width)
        for width, value in ((64, 0.9), (32, 0.8))
        for seed in range(3)
    ]
    found = compared(past(0.95, width=128), *several)
    assert found.groups["name"][0] == "hidden_width=128"
    assert found.leader == "hidden_width=64"
    text = comparison_page.describe(found)
    assert text.startswith("Highest: hidden_width=128, mean validation accuracy 0.9500, but a single seed")
    assert "Best of several seeds: hidden_width=64, mean validation accuracy 0.9090. Ahead of hidden_width=32" in text


def test_more_pairs_of_configurations_have_wider_intervals() -> None:
    runs = [
        past(value + 0.01 * rank, seed=seed, width=width)
        for rank, width in enumerate((16, 32, 64))
        for seed, value in enumerate([0.90, 0.92 + 0.01 * rank, 0.91])
    ]
    found = compared(*runs)
    half = 7.6488 * np.std([0.01, 0.02, 0.01], ddof=1) / math.sqrt(3)  # of three pairs each has 5/3 %
    (lead,) = [lead for lead in found.leads if lead.name == "hidden_width=32"]
    assert lead.high - lead.mean == pytest.approx(half, abs=1e-4)


@pytest.mark.slow
def test_choosing_the_best_by_looking_is_paid_for() -> None:
    """Of four equal configurations the best seems better than another in at most 5 % of the cases."""
    random = np.random.default_rng(0)
    num_wrong = 0
    for _ in range(150):
        values = random.normal(0.95, 0.01, size=(4, 4))
        found = compared(
            *(past(values[rank, seed], seed=seed, width=2**rank) for rank in range(4) for seed in range(4))
        )
        num_wrong += any(lead.low > 0 for lead in found.leads)
    assert num_wrong <= 14  # beyond that with a chance under 1 %, if it is 5 %


def test_a_repeated_training_is_not_another_seed() -> None:
    found = compared(past(0.9), past(0.9, started_ms=5), past(0.8, seed=1))
    assert list(found.groups["num_runs"]) == [2]
    assert any("1 run repeats another exactly" in note for note in found.notes)


def test_without_a_validation_split_the_test_accuracy_ranks_with_a_note() -> None:
    found = compared(past(None, width=32, test=0.8), past(None, width=64, test=0.9))
    assert list(found.table["name"]) == ["w64-s0", "w32-s0"]
    assert any("ranked by test accuracy" in note for note in found.notes)
    mixed = compared(past(None, width=32, test=0.99), past(0.7, width=64))
    assert list(mixed.table["name"]) == ["w64-s0", "w32-s0"]
    assert any("1 without a validation split" in note for note in mixed.notes)


def test_runs_of_different_commits_are_noted() -> None:
    assert any("different code" in note for note in compared(past(0.9), past(0.8, seed=1, commit="d")).notes)


def test_groups_can_be_chosen_by_the_last_part_of_a_key() -> None:
    runs = [past(0.9, width=32), past(0.8, width=32, seed=1), past(0.7, width=64)]
    assert list(compared(*runs, group_by=["seed"]).groups["name"]) == ["seed=0", "seed=1"]
    assert list(compared(*runs, group_by=["model.hidden_width"]).groups["name"]) == [
        "hidden_width=32",
        "hidden_width=64",
    ]
    with pytest.raises(ConfigError, match=r"--group-by hiden_width: .* did you mean hidden_width\?"):
        compared(*runs, group_by=["hiden_width"])


def test_identical_seeds_give_no_interval() -> None:
    found = compared(*(past(0.9 + width / 1000, seed=seed, width=width) for width in (32, 64) for seed in range(2)))
    assert found.groups["validation/accuracy_high"].isna().all()
    assert (found.leader, found.leads) == (None, ())


def test_a_group_of_more_than_seeds_has_no_interval() -> None:
    runs = [past(0.9 + width / 1000 + seed / 100, seed=seed, width=width) for width in (32, 64) for seed in range(2)]
    found = compared(*runs, group_by=["dropout_rate"])
    assert list(found.groups["num_runs"]) == [4]
    assert found.groups["validation/accuracy_high"].isna().all()
    assert any("differ in more than their seeds" in note for note in found.notes)


def test_one_train_seed_on_several_splits_is_one_seed() -> None:
    runs = [
        dataclasses.replace(one, params={**one.params, "data.split_seed": str(split)})
        for split in range(5)
        for one in (past(0.90 + split / 1000), past(0.92 + split / 1000, seed=1))
    ]
    (group,) = compared(*runs).groups.to_dict("records")
    half = 12.7062 * np.std([0.902, 0.922], ddof=1) / math.sqrt(2)  # two values, not ten
    assert group["validation/accuracy_high"] - group["validation/accuracy_mean"] == pytest.approx(half, abs=1e-5)


def test_the_same_params_with_other_code_are_another_configuration() -> None:
    older = [past(0.8 + seed / 100, seed=seed, commit="aaaaaaaa", code="old") for seed in range(3)]
    newer = [past(0.9 + seed / 50, seed=seed, commit="bbbbbbbb", code="new", started_ms=5) for seed in range(3)]
    found = compared(*older, *newer)
    assert list(found.groups["name"]) == ["code=bbbbbbb", "code=aaaaaaa"]
    assert list(found.groups["num_runs"]) == [3, 3]
    assert found.leads[0].mean == pytest.approx(0.11)
    uncommitted = compared(*older, past(0.99, commit="aaaaaaaa", code="other versions", started_ms=9))
    assert list(uncommitted.groups["num_runs"]) == [3]  # the older one counts, not the better one
    assert any("uncommitted code" in note for note in uncommitted.notes)


def test_runs_without_an_accuracy_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="none of 1 runs has logged validation/accuracy or test/accuracy"):
        compared(dataclasses.replace(past(None), metrics={"test/accuracy": math.inf}))


def test_numbers_that_are_written_alike_are_not_joined() -> None:
    found = compared(*(
        dataclasses.replace(one, params={**one.params, "train.learning_rate": rate})
        for one, rate in ((past(0.9), "0.00100000001"), (past(0.8), "0.001"))
    ))  # fmt: skip
    assert set(found.groups["name"]) == {"learning_rate=0.00100000001", "learning_rate=0.001"}


def of_model(validation: float, *, name: str, **params: object) -> RunRecord:
    options = {"model.name": name, "train.optimizer": "adam", **{key.replace("__", "."): params[key] for key in params}}
    known = past(validation)
    shown = {key: str(value) for key, value in options.items()}
    others = {key: value for key, value in known.params.items() if not key.startswith("model.")}
    run_id = str(abs(hash(tuple(shown.items()))))
    return dataclasses.replace(known, name=name, run_id=run_id, params={**others, **shown}, tags={"kind": "train"})


def test_runs_of_several_models_are_grouped_by_the_model_and_by_what_differs_within_it() -> None:
    wide, narrow = (of_model(0.9, name="dense", model__hidden_width=width, train__num_threads=1) for width in (64, 32))
    conv = of_model(0.99, name="conv", model__filters=[8, 16], model__kernel_size=3, train__num_threads=2)
    found = compared(wide, narrow, conv)
    # What only says which model it is differs from nothing.
    assert found.differing == ("model.name", "model.hidden_width")
    assert list(found.groups["name"]) == ["model=conv", "model=dense hidden_width=64", "model=dense hidden_width=32"]
    assert "Highest: model=conv" in comparison_page.describe(found)
    threads = of_model(0.9, name="dense", model__hidden_width=64, train__num_threads=2)
    assert "train.num_threads" in compared(wide, threads, conv).differing
    by_model = compared(wide, narrow, conv, group_by=["model"])
    assert list(by_model.groups["name"]) == ["model=conv", "model=dense"]


def test_the_keys_of_an_optimiser_differ_only_among_its_runs() -> None:
    adam = of_model(0.9, name="dense", **{"train.optimizer": "adam", "train.optimizer.beta_1": 0.9})
    slow, fast = (
        of_model(0.9, name="dense", **{"train.optimizer": "sgd", "train.optimizer.momentum": momentum})
        for momentum in (0.1, 0.9)
    )
    assert compared(adam, slow, fast).differing == ("train.optimizer", "train.optimizer.momentum")
    assert list(compared(adam, slow, fast).groups["name"]) == [
        "optimizer=adam", "optimizer=sgd momentum=0.1", "optimizer=sgd momentum=0.9",
    ]  # fmt: skip
