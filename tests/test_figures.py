import dataclasses
import warnings
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import optuna
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial
from optuna.visualization.matplotlib import plot_parallel_coordinate

from mnist_pipeline import plotting
from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import EvaluateConfig
from mnist_pipeline.data import catalogue, splits
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.data.figures import draw_class_counts, draw_samples
from mnist_pipeline.evaluate.evaluation import Evaluation, evaluate_logits
from mnist_pipeline.evaluate.figures import draw_confusion, draw_mistakes, draw_predictions, draw_reliability
from mnist_pipeline.model.score import Score
from mnist_pipeline.sweep.figures import darken_trials
from mnist_pipeline.train.epochs import Epoch, History
from mnist_pipeline.train.figures import draw_learning_curves

SETTINGS = EvaluateConfig(num_calibration_bins=15, num_mistakes=25)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalogue.load(compose.compose(["data=digits"]).data)


def evaluate(dataset: Dataset, *, sureness: float) -> Evaluation:
    logits = np.random.default_rng(0).normal(size=(len(dataset.test), 10)).astype(np.float32)
    logits[np.arange(len(logits)), dataset.test.labels] += sureness
    return evaluate_logits(logits, dataset.test.labels, class_names=dataset.class_names, config=SETTINGS)


def make_history(*, validated: bool) -> History:
    return [
        Epoch(
            number=number,
            train=Score(1 / number, 0.9),
            validation=Score(1 / number, 0.8) if validated else None,
            train_sec=1.0,
            images_per_sec=1.0,
            ended_ms=0,
        )
        for number in (1, 2, 3)
    ]


def assert_drawn(figure: Figure, path: Path) -> None:
    path.write_bytes(plotting.to_png(figure))
    pixels = matplotlib.image.imread(path)
    assert pixels.std() > 0.02
    assert min(pixels.shape[:2]) > 150


@pytest.mark.parametrize("sureness", [1.0, 100.0], ids=["many mistakes", "no mistakes"])
def test_every_figure_of_the_evaluation_is_drawn(sureness: float, digits: Dataset, tmp_path: Path) -> None:
    evaluation = evaluate(digits, sureness=sureness)
    names = digits.class_names
    assert_drawn(draw_confusion(evaluation), tmp_path / "confusion.png")
    assert_drawn(draw_reliability(evaluation), tmp_path / "reliability.png")
    assert_drawn(draw_predictions(evaluation, digits.test, class_names=names, most=8), tmp_path / "predictions.png")
    mistakes = draw_mistakes(evaluation, digits.test, class_names=names)
    if sureness == 100.0:
        assert mistakes.axes[0].get_title() == "no mistakes"
    else:
        assert len(mistakes.axes[0].images) == 25
        assert_drawn(mistakes, tmp_path / "mistakes.png")


def test_the_figures_of_the_data_are_drawn(digits: Dataset, tmp_path: Path) -> None:
    counts = splits.count_classes(digits)
    assert_drawn(draw_class_counts(counts, name="digits"), tmp_path / "counts.png")
    assert_drawn(draw_samples(digits.train, class_names=digits.class_names), tmp_path / "samples.png")


@pytest.mark.parametrize(("validated", "num_lines"), [(True, 2), (False, 1)])
def test_learning_curves_show_the_splits_there_are(validated: bool, num_lines: int, tmp_path: Path) -> None:
    figure = draw_learning_curves(make_history(validated=validated))
    assert [len(axes.lines) for axes in figure.axes] == [num_lines, num_lines]
    assert_drawn(figure, tmp_path / "curves.png")


def test_class_names_are_drawn_literally(digits: Dataset, tmp_path: Path) -> None:
    names = ("$\\bad$", "a, b", *digits.class_names[2:])
    odd = dataclasses.replace(digits, class_names=names)
    evaluation = evaluate(odd, sureness=1.0)
    confusion = draw_confusion(evaluation)
    assert [label.get_text() for label in confusion.axes[0].get_xticklabels()][:2] == ["\\$\\bad\\$", "a, b"]
    figures = [
        confusion,
        draw_mistakes(evaluation, odd.test, class_names=names),
        draw_predictions(evaluation, odd.test, class_names=names, most=25),
        draw_class_counts(splits.count_classes(odd), name="odd"),
        draw_samples(odd.train, class_names=names),
    ]
    for number, figure in enumerate(figures):
        assert_drawn(figure, tmp_path / f"{number}.png")  # a formula that is wrong would raise here


def test_the_palest_trials_are_darker_than_the_ground() -> None:
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate((0.1, 0.5, 0.9)):
        params = {"a": float(number), "b": float(2 - number)}
        spaces: dict[str, BaseDistribution] = {name: FloatDistribution(0, 2) for name in params}
        study.add_trial(create_trial(params=params, distributions=spaces, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = plot_parallel_coordinate(study)
    (lines,) = [drawn for drawn in axes.figure.axes[0].collections if isinstance(drawn, LineCollection)]
    darken_trials(axes)
    palest = max(sum(colour[:3]) / 3 for colour in lines.to_rgba(np.asarray(lines.get_array())))
    assert palest < sum(to_rgb(axes.get_facecolor())) / 3 - 0.1
    plt.close("all")
