"""`train.augment`: images changed at random, a pure function of the seed, the epoch and the step."""

import math
from collections.abc import Sequence

import tensorflow as tf

from mnist_pipeline.config.sections import AugmentConfig, Flip

_DIGITS = tuple("0123456789")
_MISLEADING_DEGREES = 90


def augment(images: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """Return changed images uint8, in the shape of `images`.

    All changes of the geometry are one bilinear interpolation; beyond its edges an image goes on as its edge.

    Args:
        images: uint8 (n, height, width[, channels]).
        config: The largest changes.
        seed: int64 (2,), of the draw.
    """
    shape = images.shape
    pixels = tf.cast(images if shape.rank == 4 else images[..., tf.newaxis], tf.float32)
    draws = tf.random.stateless_uniform([tf.shape(pixels)[0], 7], seed=seed, minval=-1.0, maxval=1.0)
    if any((config.shift, config.rotate, config.zoom, config.flip is not Flip.none)):
        pixels = _move(pixels, config, draws)
    if config.contrast:
        mean = tf.reduce_mean(pixels, axis=[1, 2], keepdims=True)
        pixels = mean + (pixels - mean) * (1 + config.contrast * draws[:, 6, tf.newaxis, tf.newaxis, tf.newaxis])
    changed = tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
    return tf.reshape(changed, tf.shape(images))


def _move(pixels: tf.Tensor, config: AugmentConfig, draws: tf.Tensor) -> tf.Tensor:
    height, width = pixels.shape[1], pixels.shape[2]
    angle = draws[:, 0] * (config.rotate * math.pi / 180)
    scale = 1 / (1 + config.zoom * draws[:, 1])
    mirrored = {Flip.horizontal: (True, False), Flip.vertical: (False, True), Flip.both: (True, True)}
    across, down = mirrored.get(config.flip, (False, False))
    flip_x = tf.where(draws[:, 4] < 0, -1.0, 1.0) if across else 1.0
    flip_y = tf.where(draws[:, 5] < 0, -1.0, 1.0) if down else 1.0
    # From a pixel of the result to the place in the image that it shows, around the centre.
    x_x, x_y = scale * tf.cos(angle) * flip_x, -scale * tf.sin(angle) * flip_y
    y_x, y_y = scale * tf.sin(angle) * flip_x, scale * tf.cos(angle) * flip_y
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    start_x = centre_x + draws[:, 2] * (config.shift * width) - x_x * centre_x - x_y * centre_y
    start_y = centre_y + draws[:, 3] * (config.shift * height) - y_x * centre_x - y_y * centre_y
    zero = tf.zeros_like(angle)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=tf.stack([x_x, x_y, start_x, y_x, y_y, start_y, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def describe_risk(config: AugmentConfig, class_names: Sequence[str]) -> str | None:
    """Return why the changes may turn one class into another; None if nothing speaks for it."""
    if tuple(class_names) != _DIGITS:
        return None
    if config.flip is not Flip.none:
        return f"train.augment.flip={config.flip.value}: the mirror image of most digits is no digit, or another one"
    if config.rotate >= _MISLEADING_DEGREES:
        return f"train.augment.rotate={config.rotate:g}: a 6 that is turned so far is a 9"
    return None
