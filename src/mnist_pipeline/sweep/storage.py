"""Where a study is kept. Optuna is not imported here."""

from pathlib import Path

from mnist_pipeline import paths


def journal_path(study: str) -> Path:
    """Return where the journal of a study is kept by default."""
    safe = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in study)
    return paths.mlruns_dir() / "optuna" / f"{safe}.journal"
