"""The artifacts of a sweep: the table of its trials, its plots, the verdict, and the winner as a preset."""

import html as html_text
import io
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from matplotlib.ticker import NullFormatter
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from mnist_pipeline.config.sections import Config
from mnist_pipeline.executors.failure import REASON
from mnist_pipeline.pipeline import provenance
from mnist_pipeline.plotting import to_png
from mnist_pipeline.sweep.confirm import POWER, Comparison, Verdict
from mnist_pipeline.sweep.figures import darken_trials, draw_intervals
from mnist_pipeline.sweep.plan import SweepPlan, describe_sweep
from mnist_pipeline.sweep.settings import SweepConfig
from mnist_pipeline.sweep.space import Space
from mnist_pipeline.sweep.study import RUN, SOURCE, Study
from mnist_pipeline.system import paths
from mnist_pipeline.system.text import markdown
from mnist_pipeline.tracking.record import Artifact, Metric, RunRecord, Tag, show_tables
from mnist_pipeline.tracking.tracker import Content, Run, log_contents

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.run import RunResult

MAX_LEGEND_ENTRIES = 12
_DARK = [[0.0, "rgb(107, 174, 214)"], [1.0, "rgb(8, 48, 107)"]]  # plotly's, from the worst to the best
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def tabulate_trials(study: Study) -> pd.DataFrame:
    """Return one row per trial, in the order of their numbers.

    Returns:
        Columns: number, state, value (of the metric at the last epoch), epochs (trained), one column per swept key,
        duration_sec, run_id, source (run whose epochs were reused), reason (of a failure).
    """
    return pd.DataFrame([_row(trial, study.space) for trial in study.trials()])


def _row(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": _STATES.get(trial.state, trial.state.name.lower()),
        "value": trial.value,
        "epochs": trial.last_step or 0,
        **space.clean(trial.params),
        "duration_sec": trial.duration.total_seconds() if trial.duration else None,
        "run_id": trial.user_attrs.get(RUN),
        "source": trial.user_attrs.get(SOURCE),
        "reason": trial.user_attrs.get(REASON),
    }


def log_surroundings(plan: SweepPlan, parent: Run) -> None:
    """Log the baseline and the overrides of the sweep, the versions, the machine, and uncommitted changes of the code.

    Let MLflow's page of the trials have the swept keys and the metric as axes.
    """
    contents = {Artifact.CONFIG: plan.base.to_yaml(), Artifact.OVERRIDES: plan.request.overrides_to_yaml()}
    log_contents(parent, contents)
    parent.show_trials(params=list(plan.config.space), metric=plan.config.metric)
    log_contents(parent, provenance.describe(paths.checkout()))


def log_search(study: Study, config: SweepConfig, parent: Run) -> None:
    """Log the table of trials, the plots, and how many trials ended how."""
    table = tabulate_trials(study)
    contents: dict[str, Content] = {
        Artifact.TRIALS: lambda path: table.to_parquet(path, index=False),
        Artifact.TRIALS_CSV: table.to_csv(index=False),
        Artifact.TRIALS_TABLE: table.to_json(orient="split", index=False),
        **draw_plots(study.optuna, config),
    }
    log_contents(parent, contents)
    parent.set_tags(show_tables(Artifact.TRIALS_TABLE))
    counts = {f"sweep/num_{name}": float((table["state"] == name).sum()) for name in _STATES.values()}
    best = study.ranked()[:1]
    values = {f"sweep/best_{config.metric.replace('/', '_')}": trial.value for trial in best if trial.value is not None}
    parent.log_metrics({**counts, **values}, step=0, timestamp_ms=time.time_ns() // 1_000_000)


def draw_plots(study: optuna.Study, config: SweepConfig) -> dict[str, bytes | str]:
    """Return Optuna's plots by their paths: each as PNG, and all in one interactive page that needs no network."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    import optuna.visualization as interactive
    import optuna.visualization.matplotlib as still

    drawn: dict[str, bytes | str] = {}
    pages: list[str] = []
    with warnings.catch_warnings(), mpl.rc_context():  # Optuna sets a style globally
        warnings.simplefilter("ignore")  # Optuna marks its matplotlib plots as experimental
        mpl.use("Agg")  # the plots use pyplot, which would look for a display
        for name, (size, plot) in _choose_plots(study, config).items():
            figure = np.ravel(plot(still))[0].figure
            figure.set_size_inches(size)
            for axes in figure.axes:
                darken_trials(axes)
                # Labels between the powers of ten would overlap on a short logarithmic axis.
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.yaxis.set_minor_formatter(NullFormatter())
                legend = axes.get_legend()
                if legend is not None and len(legend.get_texts()) > MAX_LEGEND_ENTRIES:
                    legend.remove()
            with io.BytesIO() as buffer:
                figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
                drawn[f"sweep/{name}.png"] = buffer.getvalue()
            plt.close(figure)
            html = (
                plot(interactive)
                .update_traces(line_colorscale=_DARK, selector={"type": "parcoords"})
                .to_html(full_html=False, include_plotlyjs=not pages)
            )
            heading = html_text.escape(name.replace("_", " ").capitalize())
            pages.append(f"<h2>{heading}</h2>\n{html}")
    title = f"The study {html_text.escape(study.study_name)}"
    drawn[Artifact.PLOTS] = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f'<body style="font-family: sans-serif"><h1>{title}</h1>\n' + "\n".join(pages) + "\n</body></html>\n"
    )
    return drawn


Plots = dict[str, tuple[tuple[float, float], Callable[[Any], Any]]]
"""By name: size in inches, and a function of a plotting module of Optuna."""


def _choose_plots(study: optuna.Study, config: SweepConfig) -> Plots:
    """Return the plots that these trials allow.

    Where models are swept, the keys of each are drawn for its own trials: Optuna leaves out trials that lack a key.
    """
    space = config.space
    always = [key for key in space if space.condition(key) is None]
    plots: Plots = {
        "optimization_history": ((9, 4.5), lambda by: by.plot_optimization_history(study, target_name=config.metric)),
        "learning_curves": ((9, 5), lambda by: by.plot_intermediate_values(study)),
        **_choose_plots_of(study, always, config.metric),
    }
    for group, options in space.options.items():
        for name in options:
            own = [key for key in space if space.condition(key) in (None, (group, name)) and key != group]
            plots |= {
                f"{plot}_{group}={name}": drawn
                for plot, drawn in _choose_plots_of(_only(study, group, name), own, config.metric).items()
            }
    return plots


def _only(study: optuna.Study, group: str, name: str) -> optuna.Study:
    """Return a study in memory with the trials that chose an option."""
    part = optuna.create_study(direction=study.direction)
    part.add_trials([trial for trial in study.get_trials(deepcopy=False) if trial.params.get(group) == name])
    return part


def _choose_plots_of(study: optuna.Study, keys: Sequence[str], metric: str) -> Plots:
    """Return the plots of the values of some keys, which all trials have."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [key for key in sorted(keys) if len({trial.params.get(key) for trial in trials}) > 1]
    if len(trials) < 2 or not varied:
        return {}
    about: dict[str, Any] = {"params": varied, "target_name": metric}
    width = 3.2 * len(varied)
    plots: Plots = {
        "slices": ((width + 2, 4), lambda by: by.plot_slice(study, **about)),
        "parallel_coordinates": ((width + 2, 5), lambda by: by.plot_parallel_coordinate(study, **about)),
    }
    if len(trials) > 3 and len(varied) > 1:
        plots["importances"] = ((8, 3.5), lambda by: by.plot_param_importances(study, **about))
        plots["contours"] = ((width + 3, width + 1), lambda by: by.plot_contour(study, **about))
    return plots


def log_verdict(verdict: Verdict, winner: Mapping[str, Any], base: Config, parent: Run, *, study: Study) -> None:
    """Log the intervals of the confirmation, and the winner as a preset.

    Args:
        verdict: Of the confirmation.
        winner: The winning values of the swept keys.
        base: The baseline.
        parent: The run of the sweep.
        study: Of the sweep.
    """
    shown = {
        "winner": verdict.winner or "baseline",
        "confidence": verdict.confidence,
        "differences": [_to_plain(comparison) for comparison in verdict.comparisons],
        "looks": [[_to_plain(comparison) for comparison in look] for look in verdict.looks],
        "detectable_gain": verdict.detectable_gain,
        "power": POWER,
        "params": dict(winner),
    }
    options, values = study.space.resolve(base, winner)
    contents: dict[str, Content] = {
        Artifact.WINNER_PRESET: describe_preset(options, values, study=study.name),
        Artifact.VERDICT: json.dumps(shown, indent=2),
    }
    if verdict.comparisons:
        contents[Artifact.VERDICT_PICTURE] = to_png(draw_intervals(verdict.comparisons))
    log_contents(parent, contents)
    parent.set_tags({Tag.WINNER: verdict.winner or "baseline"})


def _to_plain(comparison: Comparison) -> dict[str, Any]:
    return {**vars(comparison), "outcome": comparison.outcome.value}


def log_conclusion(
    plan: SweepPlan, study: Study, parent: Run, verdict: Verdict | None, final: "RunResult | RunRecord | None"
) -> None:
    """Let the sweep's page begin with the verdict, and log the winner's test accuracy."""
    if verdict is None:
        said = "**Not confirmed**: `sweep.confirm` trains the best trials again, on fresh seeds."
    else:
        said = f"**The winner is {verdict.describe()}.**"
    tags = {}
    if final is not None:
        accuracy = final.metrics[Metric.TEST_ACCURACY]
        page = final.address.partition("#")[2]
        said += f" Its test accuracy is **{accuracy:.4f}** ([{markdown(final.name)}](#{page}))."
        tags[Tag.WINNER_RUN] = final.run_id
        now = time.time_ns() // 1_000_000
        parent.log_metrics({Metric.WINNER_TEST_ACCURACY: accuracy}, step=0, timestamp_ms=now)
    search = describe_sweep(plan.config, plan.request)
    for best in study.ranked()[:1]:
        search += f" The best of them has {best.value:.4f}, in part by chance."
    page = f"[Compare the trials](#{parent.trials_page})"
    parent.set_tags({**tags, Tag.DESCRIPTION: f"{said}\n\n{search} {page}"})


def describe_preset(options: Mapping[str, str], values: Mapping[str, Any], *, study: str) -> str:
    """Return the text of a preset.

    Args:
        options: By the dotted key of the group, such as train.optimizer.
        values: By dotted key.
        study: Name of the study that it comes from.
    """
    nested = OmegaConf.create()
    if options:
        nested.defaults = [{f"override /{group.replace('.', '/')}": name} for group, name in options.items()]
    for key, value in values.items():
        OmegaConf.update(nested, key, value)
    header = f"# The winner of the study {study}. Put this file into conf/preset/, then: preset=winner"
    return f"# @package _global_\n{header}\n{OmegaConf.to_yaml(nested)}"
