"""The scoring server: a real one, in a child process."""

import http.client
import json
import random
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command, digits_arrays

from mnist_pipeline.serving import scoring_server
from mnist_pipeline.serving.requests import MAX_BODY_BYTES, RefusedRequestError

JSON = "application/json"
IMAGE = [[0] * 28 for _ in range(28)]


@dataclass
class Server:
    port: int
    ready: str
    example: str

    def ask(
        self,
        body: bytes | str,
        *,
        kind: str | None = JSON,
        method: str = "POST",
        path: str = "/invocations",
        **headers: str,
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers | ({} if kind is None else {"Content-Type": kind}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(champion_home: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(champion_home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        arguments = command("serve", "data=digits", "--port", str(port))
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            yield Server(port, child.stdout.readline(), child.stdout.readline())
        finally:
            half = socket.create_connection(("127.0.0.1", port))  # who has sent half a request is not waited for
            head = (
                "POST /invocations HTTP/1.1",
                "Host: localhost",
                f"Content-Type: {JSON}",
                "Content-Length: 9",
                "",
                "{",
            )
            half.sendall("\r\n".join(head).encode())
            child.send_signal(signal.SIGINT)
        assert child.stderr.read().splitlines()[-1] == "interrupted"
        half.close()
    assert child.returncode == 130


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_it_prints_that_it_is_ready_and_an_example(server: Server) -> None:
    assert f"ready: version 1 of digits-classifier at http://127.0.0.1:{server.port}/invocations" in server.ready
    assert shlex.split(server.example)[0] == "curl"
    found = subprocess.run(["sh", "-c", server.example], capture_output=True, text=True, check=True, timeout=30)
    (probabilities,) = json.loads(found.stdout)["predictions"]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_images_get_their_probabilities(server: Server) -> None:
    arrays = digits_arrays()
    images = arrays["x_test"][:50].tolist()
    for key in ("inputs", "instances"):
        status, answer = server.ask(json.dumps({key: images}))
        assert status == 200
        found = np.array(json.loads(answer)["predictions"])
        assert (found.argmax(axis=1) == arrays["y_test"][:50]).mean() > 0.8
    assert server.ask(json.dumps({"inputs": images}), kind="application/json; charset=UTF-8")[0] == 200


def with_pixel(pixel: str) -> str:
    """A request in which one pixel is the JSON text `pixel`."""
    return json.dumps({"inputs": [IMAGE]}).replace("0", pixel, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (with_pixel("7.6"), "the number 7.6 has a fraction"),
        (with_pixel("0.0"), "the number 0.0 has a fraction"),
        (with_pixel("1e2"), "the number 1e2 has a fraction"),
        (with_pixel("256"), "image 0 has the pixel 256"),
        (with_pixel("-1"), "image 0 has the pixel -1"),
        (with_pixel("true"), "image 0 has a pixel that is true or false"),
        (with_pixel("null"), "image 0 has a pixel that is null"),
        (with_pixel('"7"'), "image 0 has a pixel that is text"),
        (with_pixel("NaN"), "NaN is not a number"),
        (with_pixel("[0]"), "image 0 has a pixel that is a list of 1"),
        (with_pixel("9" * 5000), "the body is not JSON"),
        ("", "the body is not JSON"),
        ("[" * 100_000, "the body is not JSON"),
        ("[]", "found a list of 0"),
        ("{}", "found the keys []"),
        ('{"inputs": []}', "no images"),
        ('{"inputs": {"image": []}}', "no images"),
        (json.dumps({"inputs": IMAGE}), "image 0 is a list of 28; expected|a row that is a number"),
        (json.dumps({"inputs": [IMAGE[:27]]}), "image 0 is a list of 27"),
        (json.dumps({"inputs": [IMAGE, [*IMAGE[:27], [0] * 29]]}), "image 1 has a row that is a list of 29"),
        (json.dumps({"inputs": [IMAGE], "params": {}}), "found the keys ['inputs', 'params']"),
        (json.dumps({"dataframe_split": {"columns": [], "data": []}}), "found the keys ['dataframe_split']"),
        ('{"\\ud800": 1}', "found the keys"),
    ],
)
def test_anything_but_raw_images_is_refused_with_the_reason(body: str, reason: str) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        scoring_server.require_images(body.encode(), (28, 28))
    assert refused.value.status == 400
    assert any(one in str(refused.value) for one in reason.split("|"))


def test_whole_pixels_pass() -> None:
    scoring_server.require_images(json.dumps({"inputs": [[[255] * 28] * 28]}).encode(), (28, 28))


def malformed(chance: random.Random) -> tuple[bytes, str | None]:
    """A request that is wrong in one of many ways."""
    good = json.dumps({"inputs": [IMAGE]})
    pixel = chance.choice(["0.5", "7.6", "-1", "256", "1e400", "true", "null", '"x"', "NaN", "{}", "[]", "-0.0", "9e9"])
    wrong_pixel = good.replace("0", pixel, chance.randint(1, 784)).encode()
    height, width = chance.choice([(28, 27), (27, 28), (1, 1), (28, 56), (784, 1), (0, 0), (28, 0)])
    shape = [[[0] * width] * height] * chance.randint(1, 3)
    nested: Any = 0
    for _ in range(chance.randint(0, 6)):
        nested = [nested] * chance.randint(1, 3)
    position = chance.randrange(len(good))
    garbled = good[:position] + chance.choice(['"', "}", "x", "\\", "\x00"]) + good[position:]
    key = chance.choice(["input", "data", "dataframe_records", "dataframe_split", "messages", "prompt", "", "\ud83d"])
    return chance.choice(
        [
            (wrong_pixel, JSON),
            (json.dumps({"inputs": shape}).encode(), JSON),
            (json.dumps({"instances": nested}).encode(), JSON),
            (garbled.encode(), JSON),
            (good[:position].encode(), JSON),
            (json.dumps({key: [IMAGE]}).encode(), JSON),
            (json.dumps({"inputs": [IMAGE], key: 1}).encode(), JSON),
            (json.dumps({"instances": [{"image": IMAGE}]}).encode(), JSON),
            (chance.randbytes(chance.randint(0, 3000)), JSON),
            (good.encode("utf-16"), JSON),
            (good.encode(), chance.choice([None, "text/csv", "text/plain", "application/x-parquet", "json", "\xff"])),
            (good.encode(), chance.choice(["application/json; charset=latin-1", "application/json; format=pandas"])),
            (json.dumps([IMAGE]).encode(), JSON),
            (json.dumps({"inputs": None}).encode(), JSON),
        ]
    )


def test_a_thousand_malformed_requests_get_a_4xx_and_a_reason(server: Server) -> None:
    chance = random.Random(0)
    for number in range(1000):
        body, kind = malformed(chance)
        status, answer = server.ask(body, kind=kind)
        assert 400 <= status < 500, (number, status, kind, body[:200])
        assert json.loads(answer)["message"], (number, kind, body[:200])
    assert server.ask(json.dumps({"inputs": [IMAGE]}))[0] == 200


@pytest.mark.parametrize("path", ["/invocations%0a", "/invocations/", "//invocations", "/invocations?x=1"])
def test_no_spelling_of_the_path_bypasses_the_check(path: str, server: Server) -> None:
    for body in ('{"inputs": [[5]]}', with_pixel("0.7"), "[" * 100_000):
        status, _ = server.ask(body, path=path)
        assert 400 <= status < 500
    assert server.ask(json.dumps({"inputs": [IMAGE]}))[0] == 200


def test_no_other_site_gets_an_answer(server: Server) -> None:
    body = json.dumps({"inputs": [IMAGE]})
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        for kind in (JSON, "text/plain"):
            status, answer = server.ask(body, kind=kind, **headers)
            assert status == 403
            assert "predictions" not in answer
        assert server.ask("", method="GET", path="/ping", **headers)[0] == 403
    assert server.ask(body, Host="localhost", Origin="http://localhost")[0] == 200


def test_a_type_is_known_however_it_is_written(server: Server) -> None:
    for kind in ("APPLICATION/JSON", "application/json;", 'application/json; charset="utf-8"'):
        assert server.ask(json.dumps({"inputs": [IMAGE]}), kind=kind)[0] == 200


@pytest.mark.slow
def test_many_large_requests_at_once_are_all_answered(server: Server) -> None:
    body = json.dumps({"inputs": [IMAGE] * 3000})
    assert len(body) < MAX_BODY_BYTES
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: server.ask(body)[0], range(4)))
    assert found == [200] * 4


def test_other_methods_and_too_much_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.ask("", method="GET")[0] == 405
    assert server.ask("", method="DELETE")[0] == 405
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/invocations")
    connection.putheader("Content-Type", JSON)
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
