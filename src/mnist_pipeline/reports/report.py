"""The report on a run: configuration, data, results, how to reproduce it, and the limits of the model.

The page consists of what the run logged, tables and pictures; it needs neither the data nor TensorFlow.
"""

from collections.abc import Sequence

import pandas as pd

from mnist_pipeline.reports import reproducing, reproduction_page
from mnist_pipeline.reports.configurations import CONFIDENCE
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.reports.page import Code, Item, Lines, Page, Section, Table, Text, tabulate
from mnist_pipeline.reports.values import list_names, show, show_count, show_share, when
from mnist_pipeline.stats import find_share_interval
from mnist_pipeline.system.text import plain
from mnist_pipeline.tracking.record import Artifact, Metric, RunRecord, Tag


def lay_out(logged: Logged, *, aliases: Sequence[str], uri: str) -> Page:
    """Return the report on a run that trained a model; `uri` is that of the store."""
    if logged.run.is_untested:
        return _lay_out_untested(logged, uri)
    sections = (
        Section("The run", describe_run(logged.run, aliases)),
        logged.section("Data", _show_data),
        logged.section("Model", _show_model),
        logged.section("Training", _show_training),
        logged.section("Evaluation", _show_evaluation),
        logged.section("Calibration", _show_calibration),
        logged.section("Mistakes", _show_mistakes),
        Section("How to reproduce it", (*_reproduce(logged, uri), *reproduction_page.show(logged))),
        Section("Intended use and limits", _limit(logged)),
    )
    return Page(title=logged.run.name, lead=_sum_up(logged), sections=sections)


def _lay_out_untested(logged: Logged, uri: str) -> Page:
    run = logged.run
    accuracy = run.metrics.get(Metric.VALIDATION_ACCURACY)
    scored = "" if accuracy is None else f" with validation accuracy {accuracy:.4f}"
    study = f" of the study {run.tags[Tag.STUDY]}" if Tag.STUDY in run.tags else ""
    lead = (
        f"A {run.kind} run{study}{scored}. Such runs are not scored on the test split, and keep no model: the sweep "
        "trains its winner again."
    )
    sections = (
        Section("The run", describe_run(run, ())),
        logged.section("Training", _show_untested_training),
        Section("How to reproduce it", (*_reproduce(logged, uri), *reproduction_page.show(logged))),
    )
    return Page(title=run.name, lead=lead, sections=sections)


def _show_untested_training(logged: Logged) -> tuple[Item, ...]:
    items: list[Item] = [_tabulate_configuration(logged.run)]
    history = logged.read_history()
    if history is not None:
        items.append(tabulate("Every epoch", history, show=show))
    return tuple(items)


def _tabulate_configuration(run: RunRecord) -> Table:
    params = {key: value for key, value in run.params.items() if key.split(".")[0] in ("model", "train")}
    table = pd.DataFrame({"key": list(params), "value": list(params.values())}, dtype=str)
    return tabulate("Configuration", table, show=show)


def _sum_up(logged: Logged) -> str:
    predictions = logged.read_predictions()
    data_name = logged.run.params.get("data.name", "its data")
    if predictions is None:
        return f"A run on {data_name} whose predictions for the test split cannot be read."
    num_right = int((predictions["label"] == predictions["predicted"]).sum())
    low, high = find_share_interval(num_right, len(predictions), confidence=CONFIDENCE)
    return (
        f"Classifies {num_right:,} of {len(predictions):,} test images of {data_name} correctly: test accuracy "
        f"{num_right / len(predictions):.4f} ({CONFIDENCE:.0%} interval {low:.4f} to {high:.4f}, "
        "Wilson's)."
    )


def describe_run(run: RunRecord, aliases: Sequence[str]) -> tuple[Item, ...]:
    """Return the facts about a run: what, when, by whom, and how it ended."""
    tags = run.tags
    description = plain(tags.get(Tag.DESCRIPTION, ""))
    lines = {
        "run": f"{run.name} ({run.run_id})",
        Tag.KIND: tags.get(Tag.KIND, "unknown"),
        "registered as": f"{', '.join(aliases)} (when this page was written)" if aliases else "",
        "study": tags.get("study", ""),
        "status": run.status + (f": {tags['reason'].splitlines()[0]}" if tags.get("reason") else ""),
        "started": f"{when(run.started_ms)} by {tags.get('mlflow.user', 'unknown')}",
        "took": f"{run.metrics['time/total_sec']:.1f} s" if Metric.TOTAL_SEC in run.metrics else "",
        Tag.FINGERPRINT: tags.get(Tag.FINGERPRINT, ""),
        "result digest": tags.get(Tag.RESULT_DIGEST, ""),
    }
    items: list[Item] = [Text(description)] if description else []
    items.append(Lines({name: value for name, value in lines.items() if value}))
    if run.status != "FINISHED":
        text = f"This run is {run.status}: only what it has logged is shown."
        if run.status == "RUNNING":
            text += " If its command was killed, the same command resumes it."
        items.append(Text(text, is_warning=True))
    return tuple(items)


def _show_data(logged: Logged) -> tuple[Item, ...]:
    tags = logged.run.tags
    items: list[Item] = []
    if Tag.DATA_FALLBACK in tags:
        text = f"{tags.get('data.requested')} was not available: this run fell back to {tags[Tag.DATA_FALLBACK]}."
        items.append(Text(text, is_warning=True))
    counts = _read_counts(logged)
    if counts is not None:
        counts = counts.astype({"class": str})
        sizes = {split: f"{counts[split].sum():,} images" for split in counts.columns[1:]}
        digests = logged.read_texts(Artifact.DIGESTS) or {}
        lines = {split: f"{size}, SHA-256 {digests.get(split, 'unknown')}" for split, size in sizes.items()}
        items.append(Lines({"data set": logged.run.params.get("data.name", ""), **lines}))
        items.append(logged.picture(Artifact.CLASS_COUNTS_PICTURE, alt=_alt_of_counts(counts)))
        items.append(tabulate("Images of each class", counts, show=show_count))
    items.append(logged.picture(Artifact.SAMPLES_PICTURE, alt="The first ten images of each class, one row per class."))
    if tags.get(Tag.DATA_SOURCES):
        items.append(Text(f"Sources: {tags[Tag.DATA_SOURCES]}."))
    return tuple(items)


def _read_counts(logged: Logged) -> pd.DataFrame | None:
    return logged.read_table(Artifact.CLASS_COUNTS, columns=["class", "train", "test"])


def _alt_of_counts(counts: pd.DataFrame) -> str:
    total = counts[counts.columns[1:]].sum(axis=1)
    return f"Bars: images per class in each split, from {total.min():,} to {total.max():,} per class."


def _show_model(logged: Logged) -> tuple[Item, ...]:
    items: list[Item] = []
    layers = logged.read_table(Artifact.LAYERS, columns=["layer"])
    if layers is not None:
        items.append(tabulate("Layers, from the raw image to logits", layers, show=show_count))
    untrained = logged.read_json(Artifact.UNTRAINED)
    metrics = logged.run.metrics
    lines = {
        "parameters": f"{metrics['model/num_parameters']:,.0f}" if Metric.NUM_PARAMETERS in metrics else "",
        "model file": f"{metrics['model/size_bytes']:,.0f} bytes" if Metric.MODEL_BYTES in metrics else "",
        "takes": "raw images, uint8, pixels 0..255",
        "returns": "a probability per class, float32; scaling and softmax are inside",
        "untrained loss": f"{untrained['loss']:.3f}; by chance {untrained['expected_loss']:.3f}"
        if untrained is not None
        else "",
    }
    return (*items, Lines({name: value for name, value in lines.items() if value}))


def _show_training(logged: Logged) -> tuple[Item, ...]:
    history = logged.read_history()
    alt = "Learning curves: loss and accuracy by epoch, in training and in validation."
    if history is not None:
        last = history.iloc[-1]
        alt += f" They end at a training loss of {last['train/loss']:.4f} after epoch {last['epoch']:.0f}."
    items: list[Item] = [
        _tabulate_configuration(logged.run),
        logged.picture(Artifact.LEARNING_CURVES_PICTURE, alt=alt),
    ]
    if history is not None:
        items.append(tabulate("Every epoch", history, show=show))
    return tuple(items)


def _show_evaluation(logged: Logged) -> tuple[Item, ...]:
    metrics = logged.run.metrics
    scores = {
        "test accuracy": metrics.get(Metric.TEST_ACCURACY),
        "test loss": metrics.get(Metric.TEST_LOSS),
        "calibration error": metrics.get(Metric.CALIBRATION_ERROR),
        "validation accuracy": metrics.get(Metric.VALIDATION_ACCURACY),
    }
    items: list[Item] = [Lines({name: f"{value:.4f}" for name, value in scores.items() if value is not None})]
    per_class = logged.read_table(Artifact.PER_CLASS, columns=["class", "precision", "recall", "f1"])
    if per_class is not None:
        per_class = per_class.astype({"class": str})
        items.append(tabulate("Each class of the test split", per_class, show=show_share))
    confusion = logged.read_table(Artifact.CONFUSION, columns=["label"])
    if confusion is not None:
        confusion = confusion.set_index("label").astype(int).reset_index()
    items.append(logged.picture(Artifact.CONFUSION_PICTURE, alt=_alt_of_confusion(confusion)))
    if confusion is not None:
        heading = "label \\ predicted"
        confusion = confusion.rename(columns={"label": heading}).astype({heading: str})
        caption = "Confusion matrix: test images by label (rows) and prediction (columns)"
        items.append(tabulate(caption, confusion, show=show_count))
    return tuple(items)


def _show_calibration(logged: Logged) -> tuple[Item, ...]:
    items: list[Item] = []
    error = logged.run.metrics.get(Metric.CALIBRATION_ERROR)
    if error is not None:
        items.append(
            Text(
                "If the model is 90 % confident, it should be right nine times out of ten. On average it is off by "
                f"{error:.2%} (expected calibration error)."
            )
        )
    alt = "Reliability diagram: accuracy against confidence, and the number of images in each bin."
    items.append(logged.picture(Artifact.RELIABILITY_PICTURE, alt=alt))
    calibration = logged.read_table(Artifact.CALIBRATION, columns=["confidence", "accuracy"])
    if calibration is not None:
        items.append(tabulate("By confidence", calibration, show=show_share))
    return tuple(items)


def _show_mistakes(logged: Logged) -> tuple[Item, ...]:
    alt = "The most confident mistakes on the test images; the table below has the predictions."
    picture = logged.picture(Artifact.MISTAKES_PICTURE, alt=alt)
    found = logged.read_json(Artifact.MISTAKES_TABLE)
    if found is None:
        return (picture,)
    table = pd.DataFrame(found["data"], columns=found["columns"]).astype({"image": str})
    return picture, tabulate("The most confident mistakes", table, show=show_share)


def _alt_of_confusion(confusion: pd.DataFrame | None) -> str:
    text = "Confusion matrix of the test split."
    if confusion is None:
        return text
    counts = confusion.set_index("label")
    counts.index = counts.index.astype(str)
    wrong = {
        (label, predicted): number
        for predicted, column in counts.items()
        for label, number in column.items()
        if label != predicted
    }
    (label, predicted), most = max(wrong.items(), key=lambda one: one[1], default=(("", ""), 0))
    if not most:
        return f"{text} No image is confused with another class."
    return (
        f"{text} The most frequent confusion: {label} predicted as {predicted}, {most:,} times. The table below has "
        "all counts."
    )


def _reproduce(logged: Logged, uri: str) -> tuple[Item, ...]:
    run = logged.run
    items = reproducing.check_out(logged, uri)
    overrides = reproducing.deciding_overrides(run.params, run.tags)
    if overrides:
        items.append(Code(reproducing.command("train", overrides)))
    if target := run.tags.get(Tag.MODEL_TARGET):
        items.append(
            Text(f"Its model is built by {target}: add --config-dir with the folder of the file that names it.")
        )
    if run.tags.get(Tag.RESULT_DIGEST):
        items.append(
            Text(
                "On the same kind of machine, with the same versions (environment/versions.json), the command ends "
                f"with the result digest {run.tags[Tag.RESULT_DIGEST][:32]}."
            )
        )
    return tuple(items)


def _limit(logged: Logged) -> tuple[Item, ...]:
    """State the intended use and the limits: no figure of this report holds beyond its test split."""
    counts = _read_counts(logged)
    classes = [] if counts is None else list(map(str, counts["class"]))
    data_name = logged.run.params.get("data.name", "its data")
    what = f"one of {len(classes)} classes ({list_names(classes)})" if classes else "one of its classes"
    texts = (
        f"It is for images like those of {data_name}: each shows {what}, and is brought to the size and the "
        "colours that it was trained on.",
        "It is not for anything else. It cannot report that an image shows none of its classes, or several: it always "
        "names one, and may do so with high confidence. Images from other sources, such as other cameras, scanners, "
        "writers and places, were not tested. Do not use it where a mistake harms someone, such as for amounts, doses, "
        "identities or mail, without a test on your own images and a person who checks.",
        "The figures above hold for one test split. They are optimistic if they are used to select or change models; "
        "promotion in the registry accounts for its own use of that split, and for no other.",
    )
    return tuple(map(Text, texts))
