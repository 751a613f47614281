"""A function of the user's own as a model: what it may do wrong is one line before anything is trained."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import command, digits_arrays
from forked import run_command
from PIL import Image
from sweep_home import KILL_AT

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import Component
from mnist_pipeline.data import catalogue as data_catalogue
from mnist_pipeline.model import catalogue
from mnist_pipeline.model.checking import require_loadable
from mnist_pipeline.model.layers import has_only_small_layers, output_bytes
from mnist_pipeline.pipeline.fingerprint import fingerprint
from mnist_pipeline.pipeline.names import describe_training, name_run
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.train.fit import fit

SOURCE = """
import keras
from {package}.width import WIDTH

class Own(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2

@keras.saving.register_keras_serializable(package="{package}")
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale

def layers(image_shape, *rest):
    first = [keras.Input(image_shape, dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    return keras.Sequential([*first, *rest])

def good(*, image_shape, num_classes, seed, width: int = WIDTH, names: list[str] = ["a"], kind: str = "plain"):
    if width > 64:
        raise ValueError(f"model.width={{width}}: expected at most 64")
    return layers(image_shape, keras.layers.Dense(width), keras.layers.Dense(num_classes))

def without_types(*, image_shape, num_classes, width):
    return None

def no_model(*, image_shape, num_classes):
    return 3

def wrong_size(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Dense(num_classes + 1))

def wrong_input(*, image_shape, num_classes):
    return layers((3, 3), keras.layers.Dense(num_classes))

def softmax(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Dense(num_classes, activation="softmax"))

def softmax_layer(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Dense(num_classes), keras.layers.Softmax())

def nested_softmax(*, image_shape, num_classes):
    head = keras.Sequential([keras.Input((8,)), keras.layers.Dense(num_classes), keras.layers.Softmax()])
    return layers(image_shape, keras.layers.Dense(8), head)

def scaled(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Dense(16, "relu"), Scale(), keras.layers.Dense(num_classes))

def unregistered(*, image_shape, num_classes):
    return layers(image_shape, Own(), keras.layers.Dense(num_classes))

def lambda_layer(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(num_classes))

def two_outputs(*, image_shape, num_classes):
    image = keras.Input(image_shape, dtype="uint8")
    flat = keras.layers.Flatten()(image)
    return keras.Model(image, [keras.layers.Dense(num_classes)(flat), keras.layers.Dense(num_classes)(flat)])

def two_inputs(*, image_shape, num_classes):
    one, other = keras.Input(image_shape), keras.Input(image_shape)
    flat = keras.layers.Flatten()(keras.layers.Add()([one, other]))
    return keras.Model([one, other], keras.layers.Dense(num_classes)(flat))

def without_weights(*, image_shape, num_classes):
    pooled = [keras.layers.Reshape((num_classes, 4)), keras.layers.GlobalMaxPooling1D(data_format="channels_first")]
    return keras.Sequential([keras.Input(image_shape, dtype="uint8"), keras.layers.Cropping1D((0, 3)), *pooled])

def wrong_shape(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Reshape((7, 7)), keras.layers.Flatten(), keras.layers.Dense(num_classes))

def huge(*, image_shape, num_classes):
    return layers(image_shape, keras.layers.Dense(10**10), keras.layers.Dense(num_classes))

def everything(*, image_shape, num_classes, seed):
    return layers(
        image_shape,
        keras.layers.Dense(16, kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(1.0)),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("gelu"),
        keras.layers.Dropout(0.2, seed=seed),
        keras.layers.GaussianNoise(0.1, seed=seed),
        keras.layers.Dense(num_classes),
    )
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package in the current folder with functions, and a configuration beside it that names each of them."""
    name = f"own_{abs(hash(request.node.name)) % 10**8}"  # each test its own: Python imports a module once
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "width.py").write_text("WIDTH = 8\n")
    (tmp_path / name / "my_model.py").write_text(SOURCE.format(package=name).replace("= WIDTH", "= 8"))
    (tmp_path / "own" / "model").mkdir(parents=True)
    for line in SOURCE.splitlines():
        if line.startswith("def "):
            function = line.removeprefix("def ").partition("(")[0]
            file = tmp_path / "own" / "model" / f"{function}.yaml"
            file.write_text(f"_target_: {name}.my_model.{function}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def composed(model: str, *overrides: str) -> Component:
    return compose.check([f"model={model}", *overrides], config_dir="own")[0].model


def build(component: Component, image_shape: tuple[int, ...] = (8, 8)) -> keras.Model:
    return catalogue.build(component, image_shape=image_shape, num_classes=10, seed=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_model", "model=no_model: its function returned int: expected a Keras model"),
        ("wrong_size", "its output has the shape (11,): expected (10,), a logit for each of the classes"),
        ("wrong_input", "its input has the shape (3, 3): expected that of an image, (8, 8)"),
        ("softmax", "is a softmax: leave that out, since the loss takes logits"),
        ("softmax_layer", "is a softmax: leave that out"),
        ("nested_softmax", "is a softmax: leave that out"),
        ("unregistered", "add the line @keras.saving.register_keras_serializable(package="),
        ("lambda_layer", "is a Lambda, which cannot be loaded safely: make it a layer class"),
        ("two_outputs", "it has 1 inputs and 2 outputs: expected one of each"),
        ("two_inputs", "it has 2 inputs and 1 outputs: expected one of each"),
        ("without_weights", "it has no weights to train"),
        ("huge", "GB of memory"),
        ("wrong_shape", "total size of the tensor must be unchanged"),
    ],
)
def test_what_cannot_be_trained_is_refused(package: str, model: str, message: str) -> None:
    component = composed(model)
    with pytest.raises(ConfigError) as caught:
        build(component)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"model={model}: ")
    assert "\n" not in str(caught.value)


def test_its_own_errors_are_those_of_a_configuration(package: str) -> None:
    component = composed("good", "model.width=65")
    with pytest.raises(ConfigError, match=r"^model=good: model.width=65: expected at most 64$"):
        build(component)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=good", "model.widht=3"], "unknown key model.widht: did you mean model.width?"),
        (["model=good", "model.width=wide"], "model.width=wide: expected an integer"),
        (["model=good", "model.hidden_width=3"], "unknown key model.hidden_width"),
        (["model=conv", "model.hidden_width=3"], "unknown key model.hidden_width"),
        (["model=mlp", "model.hidden_widths=[0]"], "model.hidden_widths"),
        (["model=mlp", "model.activation=softmax"], "model.activation=softmax"),
        (["model=conv", "model.filters=[0]"], "model.filters"),
        (["model=conv", "model.kernel_size=0"], "model.kernel_size=0"),
        (["model=without_types"], "the parameter width has no type"),
        (["model=missing"], "model=missing: no such option"),
        (["train.optimizer.momentum=0.9"], "unknown key train.optimizer.momentum"),
        (["train.optimizer=sgd", "train.optimizer.beta_1=0.9"], "unknown key train.optimizer.beta_1"),
        (["train.optimizer=adma"], "train.optimizer=adma: no such option; expected adam"),
        (["train.schedule=cosin"], "train.schedule=cosin: no such option; expected constant"),
        (["train.early_stopping.patience=0"], "train.early_stopping.patience=0"),
        (["train.augment.rotate=-1"], "train.augment.rotate=-1"),
    ],
)
def test_wrong_values_are_refused_without_an_import(package: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose.check(overrides, config_dir="own")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"{package}.my_model" not in sys.modules


def test_the_command_refuses_before_anything_heavy_is_imported(package: str) -> None:
    program = (
        "import sys; from mnist_pipeline.cli import main; code = main(); "
        "print(code, sorted({'tensorflow', 'keras', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    for override in ("model.widht=3", "train.optimizer=adma", "train.augment.shift=2", "model.width=x"):
        words = ["train", "--config-dir", "own", "model=good", "data=digits", override]
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr.count("\n")) == ("2 []\n", 1), done.stderr


def test_a_syntax_error_is_shown_with_its_line(package: str) -> None:
    Path(package, "my_model.py").write_text("import keras\n\ndef good(*, width: int = 3:\n    return 3\n")
    with pytest.raises(ConfigError) as caught:
        composed("good")
    assert "line 3: " in str(caught.value)
    assert "def good(*, width: int = 3:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_syntax_error_in_a_module_that_it_imports_is_shown_with_its_line(package: str) -> None:
    Path(package, "width.py").write_text("WIDTH = 8\nWIDTH ==== 9\n")
    with pytest.raises(ConfigError) as caught:
        build(composed("good"))
    assert "line 2: " in str(caught.value)
    assert "WIDTH ==== 9" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["nowhere.my_model.build", "{package}.my_model.nothing", "just_a_name", "a b.c"])
def test_a_function_that_is_not_there(package: str, target: str) -> None:
    named = target.format(package=package)
    Path("own/model/good.yaml").write_text(f"_target_: {named}\n")
    with pytest.raises(ConfigError, match=rf"model\._target_={named}: "):
        composed("good")


def test_names_say_what_differs_from_the_defaults_of_the_own_function(package: str) -> None:
    Path("own/model/good.yaml").write_text(f"_target_: {package}.my_model.good\nwidth: 16\n")
    (config,) = compose.check(["model=good", "data=digits"], config_dir="own")
    assert name_run(config) == "digits-good-width16-e9-s0"
    (config,) = compose.check(["model=good", "data=digits", "model.kind=odd", "model.width=8"], config_dir="own")
    assert name_run(config) == "digits-good-odd-e9-s0"
    assert describe_training(config).startswith("`good` (width 8, names a, kind odd), adam 0.001")


def test_its_source_and_the_modules_that_it_imports_decide_the_fingerprint(package: str) -> None:
    def computed() -> str:
        # In a process of its own: the code that runs is that of the start.
        program = (
            "from mnist_pipeline.config import compose; from mnist_pipeline.pipeline.fingerprint import fingerprint; "
            "(config,) = compose.check(['model=good', 'data=digits'], config_dir='own'); "
            "print(fingerprint(config, data_digest='0'))"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout

    source = Path(package, "my_model.py")
    first = computed()
    source.write_text(f"# a comment decides nothing\n{source.read_text()}")
    assert computed() == first
    Path(package, "width.py").write_text("WIDTH = 9\n")
    second = computed()
    assert second != first
    source.write_text(source.read_text().replace("inputs * 2", "inputs * 3"))
    assert computed() not in (first, second)


def test_every_kind_of_layer_is_trained_as_keras_does_it(package: str) -> None:
    """Penalties, constraints, batch normalisation and noise: two trainings agree to the bit, and Keras's rules hold."""
    dataset = data_catalogue.load(compose.compose(["data=digits"]).data)
    train = compose.compose(["train.num_epochs=2"]).train
    found = []
    for _ in range(2):
        model = build(composed("everything"), dataset.image_shape)
        history = fit(model, dataset, train)
        assert history[1].train.loss < history[0].train.loss
        found.append(model)
    for mine, other in zip(found[0].get_weights(), found[1].get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    kernel = found[0].layers[2].kernel.numpy()
    assert np.linalg.norm(kernel, axis=0).max() <= 1 + 1e-6
    assert np.abs(found[0].layers[3].moving_mean.numpy()).max() > 0


@pytest.mark.parametrize(
    ("model", "is_small", "num_threads"), [("dense", True, 1), ("mlp", True, 1), ("conv", False, 2)]
)
def test_the_executor_and_the_threads_are_those_that_suit_the_model(
    model: str, is_small: bool, num_threads: int
) -> None:
    config = compose.compose([f"model={model}"])
    assert config.num_threads == num_threads
    assert config.flat()["train.num_threads"] == num_threads
    built = catalogue.build(config.model, image_shape=(28, 28), num_classes=10, seed=0)
    assert has_only_small_layers(built) is is_small
    assert fingerprint(config, data_digest="") != fingerprint(
        compose.compose([f"model={model}", f"train.num_threads={3 - num_threads}"]), data_digest=""
    )


@pytest.mark.slow
def test_a_layer_of_the_users_own_is_trained_promoted_used_and_reported(package: str, home: Path) -> None:
    """Each command is a process of its own that imports the module for its layer."""

    def run(*words: str) -> str:
        done = run_command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train", "data=digits", "model.hidden_width=1", "train.num_epochs=1")
    run("promote", "data=digits", "digits-dense-w1-e1-s0", "promote.min_test_accuracy=0")
    run("train", "--config-dir", "own", "data=digits", "model=scaled", "train.num_epochs=3")
    assert "promoted: version 2 is the champion (before: version 1)" in run(
        "promote", "data=digits", "digits-scaled-e3-s0", "promote.min_test_accuracy=0.2", "promote.max_recall_drop=1"
    )
    Image.fromarray(digits_arrays()["x_test"][0]).save("some.png")
    assert "some.png" in run("predict", "data=digits", "some.png")
    run("report", "data=digits", "champion", "--output", "report.html")
    assert f"{package}.my_model.scaled" in Path("report.html").read_text()
    run("reproduce", "data=digits", "champion")
    Path(package).rename("gone")
    lost = run_command("predict", "data=digits", "some.png")
    assert (lost.returncode, lost.stderr.count("\n")) == (2, 1)
    assert f"there is no module {package}.my_model" in lost.stderr


def test_the_outputs_of_the_layers_are_counted() -> None:
    built = catalogue.build(compose.compose([]).model, image_shape=(8, 8), num_classes=10, seed=0)
    assert output_bytes(built) == 4 * (64 + 64 + 128 + 128 + 10)  # scaled, flat, hidden, dropped out, logits


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (9, 5)])
def test_the_convolutional_network_takes_grey_and_colour(shape: tuple[int, ...]) -> None:
    component = compose.compose(["model=conv", "model.filters=[4,8]"]).model
    built = catalogue.build(component, image_shape=shape, num_classes=7, seed=0)
    assert built.output_shape == (None, 7)
    images = np.zeros((2, *shape), np.uint8)
    assert built(images).shape == (2, 7)


def test_images_too_small_for_the_convolutions_are_refused() -> None:
    component = compose.compose(["model=conv", "model.filters=[4,8,8,8]"]).model
    with pytest.raises(ConfigError, match="model=conv: "):
        catalogue.build(component, image_shape=(5, 5), num_classes=7, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("model", ["mlp", "conv", "everything"])
def test_a_killed_run_ends_with_the_bits_of_one_that_never_was(
    model: str, num_threads: int, package: str, home: Path
) -> None:
    words = [
        "train", "--config-dir", str(Path("own").absolute()), "data=digits", f"model={model}",
        f"train.num_threads={num_threads}", "train.num_epochs=4", "train.augment.shift=0.1", "train.schedule=cosine",
    ]  # fmt: skip
    if model == "conv":
        words.append("model.filters=[8,16]")
    environment = {"PYTHONPATH": str(Path.cwd())}
    killed = subprocess.run(
        [sys.executable, KILL_AT, "call mnist_pipeline.pipeline.checkpoints Checkpoints.save 2 after", *words],
        env={**os.environ, **environment}, capture_output=True, check=False, start_new_session=True,
    )  # fmt: skip
    assert killed.returncode == -9
    digests = []
    for more in ((), ("force=true",)):
        done = subprocess.run(
            command(*words, *more), env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("resume    after epoch 2 of 4" in done.stderr) is (not more)
        digests += re.findall(r"^result digest +(\w+)$", done.stdout, re.MULTILINE)
    assert digests[0] == digests[1]


def test_a_functional_model_is_accepted() -> None:
    image = keras.Input((4,))
    require_loadable(keras.Model(image, keras.layers.Dense(2)(image)))
