import os
import subprocess
import sys

from mnist_pipeline.system import environment

NAMES = [*environment._SETTINGS, "CUDA_VISIBLE_DEVICES"]


def run(code: str, **settings: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    child = subprocess.run([sys.executable, "-c", code], env={**clean, **settings}, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def test_importing_the_package_changes_nothing() -> None:
    code = (
        "import os; before = dict(os.environ); import mnist_pipeline.cli;"
        "import mnist_pipeline.config.compose;"
        "import mnist_pipeline.pipeline.stages, mnist_pipeline.tracking.mlflow_tracker, mnist_pipeline.sweep.sweep;"
        f"print([name for name in {NAMES} if os.environ.get(name) != before.get(name)])"
    )
    assert run(code) == "[]"


def test_a_command_turns_telemetry_off_and_leaves_gpus_to_other_libraries() -> None:
    code = (
        "import os, sys; from mnist_pipeline import cli; sys.argv[1:] = ['--version']; cli.main();"
        "print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ.get('CUDA_VISIBLE_DEVICES'))"
    )
    assert run(code).splitlines()[-1] == "true None"


def test_settings_of_the_user_are_kept() -> None:
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    code = f"import os; from mnist_pipeline.system import environment; print(os.environ[{name!r}])"
    assert run(code.replace("; print", "; environment.prepare_libraries(); print"), **{name: "77"}) == "77"
