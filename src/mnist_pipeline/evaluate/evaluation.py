"""The evaluation of a trained model on a split, as plain values and tables."""

from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax

from mnist_pipeline.config.sections import EvaluateConfig
from mnist_pipeline.data.dataset import Split
from mnist_pipeline.model.prediction import predict_logits
from mnist_pipeline.model.score import Score, score
from mnist_pipeline.stats import confuse, score_classes


@dataclass(frozen=True)
class Evaluation:
    """A model's result on a split.

    Attributes:
        score: Loss and accuracy over all images.
        calibration_error: Expected calibration error, 0..1.
        per_class: One row per class: class, precision, recall, f1 (0..1 each), num_images.
        confusion: Counts; one row per true class, one column per predicted class.
        calibration: One row per bin that holds images: confidence_from, confidence_to, num_images, and the means of
            confidence and accuracy in it.
        predictions: One row per image, in the order of the split: index, label, predicted, and one column per class
            with its probability (float32), named `probability_<class>`.
        mistakes: The wrong rows of `predictions`, the most confident first, at most as many as configured.
    """

    score: Score
    calibration_error: float
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    calibration: pd.DataFrame
    predictions: pd.DataFrame
    mistakes: pd.DataFrame


def evaluate(model: keras.Model, split: Split, *, class_names: tuple[str, ...], config: EvaluateConfig) -> Evaluation:
    """Score `model` (uint8 images to logits) over every image of `split`."""
    logits = predict_logits(model, split.images)
    return evaluate_logits(logits, split.labels, class_names=class_names, config=config)


def evaluate_logits(
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    *,
    class_names: tuple[str, ...],
    config: EvaluateConfig,
) -> Evaluation:
    """Compute the result from logits float32 `(n, num_classes)` and labels int32 `(n,)`."""
    probabilities = softmax(logits.astype(np.float64), axis=1)
    predictions = _tabulate_predictions(probabilities.astype(np.float32), labels, class_names)
    confusion = confuse(labels, probabilities.argmax(axis=1), num_classes=len(class_names))
    calibration = _calibrate(probabilities, labels, num_bins=config.num_calibration_bins)
    gaps = (calibration["confidence"] - calibration["accuracy"]).abs()
    return Evaluation(
        score=score(logits, labels),
        calibration_error=float((gaps * calibration["num_images"]).sum() / len(labels)),
        per_class=_tabulate_classes(confusion, class_names),
        confusion=pd.DataFrame(
            confusion, index=pd.Index(class_names, name="label"), columns=pd.Index(class_names, name="predicted")
        ),
        calibration=calibration,
        predictions=predictions,
        mistakes=_most_confident_mistakes(predictions, class_names, most=config.num_mistakes),
    )


def _tabulate_predictions(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], class_names: tuple[str, ...]
) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "index": np.arange(len(labels), dtype=np.int32),
            "label": labels,
            "predicted": probabilities.argmax(axis=1).astype(np.int32),
        }
    )
    columns = [f"probability_{name}" for name in class_names]
    return pd.concat([table, pd.DataFrame(probabilities, columns=columns)], axis=1)


def _tabulate_classes(confusion: npt.NDArray[np.int64], class_names: tuple[str, ...]) -> pd.DataFrame:
    precision, recall, f1 = score_classes(confusion)
    num_images = confusion.sum(axis=1)
    return pd.DataFrame(
        {"class": class_names, "precision": precision, "recall": recall, "f1": f1, "num_images": num_images}
    )


def _calibrate(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int32], *, num_bins: int) -> pd.DataFrame:
    """Bin the images by confidence, in bins of equal width that are open below (Guo et al., 2017, arXiv:1706.04599)."""
    confidence = probabilities.max(axis=1)
    images = pd.DataFrame(
        {
            "bin": np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1),
            "confidence": confidence,
            "accuracy": (probabilities.argmax(axis=1) == labels).astype(float),
        }
    )
    binned = images.groupby("bin").agg(
        num_images=("confidence", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    bounds = pd.DataFrame(
        {"confidence_from": binned.index / num_bins, "confidence_to": (binned.index + 1) / num_bins}, index=binned.index
    )
    return pd.concat([bounds, binned], axis=1).reset_index(drop=True)


def _most_confident_mistakes(predictions: pd.DataFrame, class_names: tuple[str, ...], *, most: int) -> pd.DataFrame:
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    confidence = wrong[[f"probability_{name}" for name in class_names]].max(axis=1)
    return wrong.assign(confidence=confidence).sort_values(["confidence", "index"], ascending=[False, True]).head(most)
