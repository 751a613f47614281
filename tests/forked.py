"""Commands in processes that are forked from one which has imported the libraries: as real, without seconds of imports.

Each process that runs tests has one such server. A test that looks at imports, at what libraries print when they are
imported, or at signals, starts the command itself.
"""

import atexit
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

_LIBRARIES = (
    *("tensorflow", "keras", "mlflow", "mlflow.pyfunc", "mlflow.tensorflow", "optuna", "optuna.visualization"),
    *("optuna.visualization.matplotlib", "pandas", "pyarrow.parquet", "scipy.stats", "sklearn.datasets", "PIL.Image"),
    *("sklearn.model_selection", "matplotlib.pyplot", "hydra", "omegaconf", "rich.console", "alembic", "sqlalchemy"),
)
_MAX_REQUEST = 1 << 20
_TIMEOUT = 120
_HUNG_UP = 124


def run_command(
    *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, within: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `mnist-pipeline` with these words to its end, as `subprocess.run` does with captured output.

    Args:
        words: Its arguments.
        cwd: Its current folder.
        env: Its environment.
        within: A command that runs another one, such as in a network namespace.
    """
    request = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(_start_server(within))
            socket.send_fds(connection, [json.dumps(request).encode()], [output.fileno(), errors.fileno()])
            connection.shutdown(socket.SHUT_WR)
            code = int(connection.recv(16) or _HUNG_UP)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(["mnist-pipeline", *words], code, output.read(), errors.read())


@functools.cache
def _start_server(within: tuple[str, ...] = ()) -> str:
    """Return the address of this process's server."""
    folder = tempfile.TemporaryDirectory(prefix="forked-")
    address = f"{folder.name}/socket"
    server = subprocess.Popen([*within, sys.executable, __file__, address], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()  # it listens

    def stop() -> None:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]
        folder.cleanup()

    atexit.register(stop)
    return address


def _serve(address: str) -> None:
    from mnist_pipeline.system.environment import prepare_libraries

    prepare_libraries()
    for name in _LIBRARIES:
        __import__(name)
    gc.freeze()  # else the collector of each process would copy all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that have answered
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                if os.fork() != 0:
                    _, status = os.wait()
                    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                    os._exit(0)
                return _become(connection)
            connection.close()


def _become(connection: socket.socket) -> None:
    """Turn this process into the command."""
    content, (output, errors), _, _ = socket.recv_fds(connection, _MAX_REQUEST, 2)
    while part := connection.recv(_MAX_REQUEST):
        content += part
    connection.close()
    request = json.loads(content)
    for source, target in ((output, 1), (errors, 2)):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    tempfile.tempdir = None
    sys.argv = [str(Path(sys.executable).with_name("mnist-pipeline")), *request["words"]]

    from mnist_pipeline.cli import main

    code = main()
    # What the end of an interpreter does, except to destroy every object of the libraries, which takes seconds.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
