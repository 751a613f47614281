"""An experiment-tracking pipeline, composed by Hydra and tracked in MLflow.

Importing it changes nothing in the process. `Images` is what a function of your own returns to `data=`, and
`fit_picture` makes an image of a picture as `data=folder` does.
"""

from typing import Any

__all__ = ["Images", "fit_picture"]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is first used: it costs a moment, and most commands do not need it."""
    if name == "Images":
        from mnist_pipeline.data.dataset import Images

        return Images
    if name == "fit_picture":
        from mnist_pipeline.data.pictures import fit_picture

        return fit_picture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
