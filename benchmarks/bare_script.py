"""The tutorial as a script, with nothing around it: what a run of the pipeline is compared with."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

with np.load(Path(os.environ["MNIST_PIPELINE_DATA_DIR"]) / "mnist.npz") as file:
    x_train, y_train, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
x_train, x_test = x_train / 255.0, x_test / 255.0

model = tf.keras.Sequential(
    [
        tf.keras.Input((28, 28)),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(128, activation="relu"),
        tf.keras.layers.Dropout(0.2),
        tf.keras.layers.Dense(10),
    ]
)
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
untrained = model(x_train[:1]).numpy()
print(tf.nn.softmax(untrained).numpy(), loss(y_train[:1], untrained).numpy())

model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
model.fit(x_train, y_train, epochs=9)
model.evaluate(x_test, y_test, verbose=2)
with_probabilities = tf.keras.Sequential([model, tf.keras.layers.Softmax()])
print(with_probabilities(x_test[:8]).numpy().argmax(axis=1), y_test[:8])
