"""A sweep as it is written by hand: Optuna's optimize, Keras's fit, nested MLflow runs, a model logged a trial."""

import json
import os
import sys
import time
from pathlib import Path

import keras
import mlflow
import numpy as np
import optuna

configurations = json.loads(sys.argv[1])
data = np.load(Path(os.environ["MNIST_PIPELINE_DATA_DIR"]) / "mnist.npz")
x_train, y_train = data["x_train"] / 255.0, data["y_train"]
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[2]}/mlflow.db")
mlflow.create_experiment("by hand", artifact_location=f"file://{sys.argv[2]}/artifacts")
mlflow.set_experiment("by hand")


def objective(trial: optuna.Trial) -> float:
    """Train one of the listed configurations."""
    chosen = configurations[trial.number]
    params = {
        "hidden_width": chosen["model.hidden_width"],
        "dropout_rate": chosen["model.dropout_rate"],
        "num_epochs": chosen["train.num_epochs"],
    }
    with mlflow.start_run(nested=True):
        mlflow.log_params(params)
        model = keras.Sequential(
            [
                keras.layers.Flatten(input_shape=(28, 28)),
                keras.layers.Dense(params["hidden_width"], activation="relu"),
                keras.layers.Dropout(params["dropout_rate"]),
                keras.layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        history = model.fit(
            x_train[5000:],
            y_train[5000:],
            validation_data=(x_train[:5000], y_train[:5000]),
            epochs=params["num_epochs"],
            verbose=0,
        )
        for epoch, accuracy in enumerate(history.history["val_accuracy"]):
            mlflow.log_metric("val_accuracy", accuracy, step=epoch)
        mlflow.tensorflow.log_model(model, name="model")
    return float(history.history["val_accuracy"][-1])


start = time.perf_counter()
with mlflow.start_run():
    study = optuna.create_study(
        direction="maximize",
        storage=f"sqlite:///{sys.argv[2]}/optuna.db",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.optimize(objective, n_trials=len(configurations))
print(time.perf_counter() - start, study.best_value)
