"""Secrets are planted wherever one may stand, and then everything that was written or printed is searched for them."""

import copy
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, command, server
from secret_places import AT, CLOSED, MARK, SLASHED, SMOKE, TOKEN, USER, Place, git, guard, make_place, stored

from mnist_pipeline.config import compose, overrides
from mnist_pipeline.pipeline import patch
from mnist_pipeline.reports import reproducing
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.reports.page import Code, Text
from mnist_pipeline.system import secrets
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import mlflow_reader, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:pa/ss@127.0.0.1/x", "postgresql://***@127.0.0.1/x"),
        ("postgresql://me:p@ss@127.0.0.1/x", "postgresql://***@127.0.0.1/x"),
        ("postgresql://h/x?user=me&password=pass", "postgresql://h/x?user=***&password=***"),
        ("postgresql:/me:pass@h", "postgresql:/***@h"),
        ("me:pass@host", "***@host"),
        ("http://me:pa/ss@127.0.0.1:9", "http://***@127.0.0.1:9"),
        ("http://me:p?w@h:1", "http://***@h:1"),
        ("http://me:p#w@h:1", "http://***@h:1"),
        ("http://me:p@s?s@host/x", "http://***@host/x"),
        ("http://me:12/34@127.0.0.1:9", "http://***@127.0.0.1:9"),
        ("http://me:p@h/x?password=a@b", "http://***@h/x?password=***"),
        ("http://a-token@host:1/x", "http://***@host:1/x"),
        ("https://host/x?sig=ab&se=3#f", "https://host/x?sig=***&se=***"),
        ("https://me:pass@cdn.host/pkg@1.0/x", "https://***@cdn.host/pkg@1.0/x"),
        ("sqlite:////tmp/x.db?password=pass", "sqlite:////tmp/x.db?password=***"),
        *(
            (plain, plain)
            for plain in (
                "https://host:5000/path/pkg@1.0/file.npz", "https://cdn.host.org/npm/pkg@1.0/file.npz",
                "http://localhost:5000", "http://[::1]:5000/x", "sqlite:////tmp/a@b#c/my%20home.db",
                "/data/a@b/x.journal", "studies/a.journal", "https://ossci-datasets.s3.amazonaws.com/mnist",
            )
        ),
    ],
)  # fmt: skip
def test_an_address_shows_no_secret(text: str, masked: str) -> None:
    one = Address(text)
    assert [str(one), f"{one}", f"{one!r}", f"{one!s:>3}", json.loads(json.dumps([one]))[0]] == [
        masked, masked, repr(masked), masked, masked,
    ]  # fmt: skip
    assert str(pickle.loads(pickle.dumps(one))) == masked
    assert secrets.mask(masked) == masked
    assert one.has_secret == (text != masked)
    assert one == text
    assert copy.deepcopy(one) == one
    assert hash(one) == hash(text)


def test_the_connection_gets_the_whole_secret() -> None:
    assert Address("http://me:p%40/s@h:1/x").connection() == ("http://h:1/x", ("me", "p@/s"))
    assert Address("postgresql://me:p@s/s@h/x").reveal() == "postgresql://me:p%40s%2Fs@h/x"
    assert Address("http://h/idx/?token=t").join("a.gz").reveal() == "http://h/idx/a.gz?token=t"
    masked = pickle.loads(pickle.dumps(Address("http://me:pass@h")))
    assert masked.is_masked
    with pytest.raises(ValueError, match="stars"):
        masked.reveal()


def test_texts_are_searched_for_known_secrets_and_for_those_in_urls() -> None:
    Address("http://me:Kn0wn%2Fsecret@h/x")
    shown = secrets.hide("no Kn0wn/secret, Kn0wn%2Fsecret or http://a/b,ftp://you:other@c/d?token=e: unkn0wn")
    assert shown == "no ***, *** or http://a/b,ftp://***@c/d?token=***: unkn0wn"
    plain = "see http://127.0.0.1:5000/#/experiments/1?workflowType=machine_learning (one@other)"
    assert secrets.hide(plain) == plain


@pytest.mark.parametrize(
    ("override", "masked"),
    [
        ('tracking.uri="http://me:pa/ss@h"', 'tracking.uri="http://***@h"'),
        (r"++tracking.uri='http://me:p\'ss@h'", "++tracking.uri='http://***@h'"),
        ("tracking.uri=http://me:pass@h,http://me:word@i", "tracking.uri='http://***@h','http://***@i'"),
        ("tracking.uri=choice(http://me:pass@h,/x)", "tracking.uri='http://***@h',/x"),
        ('tracking.uri=${oc.env:X,"http://me:pass@h"}', "tracking.uri='${oc.env:X,\"http://***@h\"}'"),
        (r"data.npz_url=http://h/x?token\=pass", "data.npz_url='http://h/x?token=***'"),
        ("tracking.uri=http://me:pa&ss@h", "tracking.uri=***"),  # it cannot be parsed
        *((plain, plain) for plain in ("tracking.uri=${oc.env:X}", "train.seed=0,1", "data=mnist", "~sweep.space.x")),
    ],
)
def test_an_override_shows_no_secret_however_it_is_quoted(override: str, masked: str) -> None:
    assert overrides.mask(override) == masked
    assert overrides.mask(masked) == masked


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Place:
    return make_place(tmp_path, empty_store)


def test_nothing_written_or_printed_by_runs_has_a_secret(place: Place) -> None:
    uri = f"sqlite:///{place.written}/home/mlruns/mlflow.db?password={MARK}"
    mirrors = [
        f"data.npz_url='http://{USER}:{AT}@{CLOSED}/x.npz'",
        f'data.idx_url="http://{TOKEN}@{CLOSED}?sig={MARK}"',
    ]
    given = ["data=mnist", "preset=mine", *SMOKE[1:], *mirrors, "data.num_retries=0"]
    trained = place.run("train", "-m", *given, "train.seed=0")
    assert trained.returncode == 0, trained.stderr
    compared = place.run("report", "digits-dense-w8-e1-s0", "tracking.uri=${oc.env:X}", X=uri)
    assert compared.returncode == 0, compared.stderr
    params, tags = stored(place, "params"), stored(place, "tags")
    assert params["tracking.uri"] == uri.replace(MARK, "***")
    assert f"http://***@{CLOSED}/x.npz: " in tags["data.sources"]
    assert "http://***@" in tags["data.dropped_overrides"]
    assert tags["git.patch"] == "masked"
    (kept,) = place.written.rglob("code.patch")
    assert re.findall(r"^\+\+\+ b/(.*)$", kept.read_text(), re.MULTILINE) == [
        "src/mnist_pipeline/system/web.py", "conf/preset/mine.yaml",
    ]  # fmt: skip
    git(place.checkout, "stash", "--quiet", "--include-untracked")
    git(place.checkout, "apply", "--check", str(kept))
    assert not list(place.written.rglob("multirun*"))
    place.require_no_secret()


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_a_shown_configuration_has_no_secret(place: Place, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "presets" / "preset"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_text(
        f'# @package _global_\ntracking:\n  uri: "http://{USER}:{SLASHED}@h/x"\n'
        f"data:\n  npz_url: http://{USER}:{SLASHED}@{CLOSED}/x\n  idx_url: http://{TOKEN}@{CLOSED}/x?a={TOKEN}\n"
    )
    preset = ["--config-dir", str(tmp_path / "presets"), "preset=theirs"]
    for asked in (["--cfg", "all"], ["--info", "config"]):
        shown = place.run(name, *asked, *preset)
        assert "uri: http://***@h/x" in shown.stdout
        assert f"npz_url: http://***@{CLOSED}/x" in shown.stdout
    place.run(name, "--cfg", "all", f"tracking.uri='postgresql://{USER}:{AT}@h/x?password={MARK}'")
    place.run(name, "--cfg", "job", "--resolve", "tracking.uri=${oc.env:X}", X=f"http://{USER}:{SLASHED}@h")
    place.require_no_secret()


@pytest.mark.parametrize(
    "words",
    [
        ["train", f"tracking.uri=http://{USER}:{MARK}&@h"],
        ["train", f"tracking=http://{USER}:{SLASHED}@h"],
        ["train", f"trackng.uri=http://{USER}:{MARK}@h"],
        ["train", f"tracking.uri=postgresql:/{USER}:{MARK}@h"],
        ["train", f"tracking.uri=http://{USER}:{MARK}@h,http://{TOKEN}@h"],
        ["train", f"data.npz_url=ftp://{USER}:{MARK}@h"],
        ["train", "preset=smoke", f"tracking.uri='http://{USER}:{SLASHED}@{CLOSED}'"],
        ["compare", f"tracking.uri=http://{TOKEN}@{CLOSED}"],
        ["promote", f"data.npz_url=http://{USER}:{MARK}@h"],
        ["history", f"http://{USER}:{MARK}@h"],
        ["ui", f"tracking.uri=http://{USER}:{MARK}@h"],
        [f"http://{USER}:{MARK}@h"],
    ],
)
def test_no_error_quotes_a_secret(place: Place, words: list[str]) -> None:
    failed = place.run(*words, MNIST_PIPELINE_TRACEBACK="0")
    assert failed.returncode in (1, 2)
    assert len(failed.stderr.splitlines()) == 1
    place.require_no_secret()


def test_a_database_that_cannot_be_opened_shows_no_secret(place: Place) -> None:
    failed = place.run("history", f"tracking.uri='postgresql://{USER}:{SLASHED}@{CLOSED}/x?password={MARK}'")
    assert failed.returncode == 1
    assert "Connection refused" in failed.stderr.splitlines()[-1]
    place.require_no_secret()


def test_secrets_stored_by_earlier_versions_are_masked_on_reading(home: Path, tmp_path: Path) -> None:
    opened = MlflowStore(compose.compose([]).tracking)
    experiment = opened.require_experiment("digits")
    run_id = opened.client.create_run(
        experiment, tags={"data.sources": f"http://{USER}:{SLASHED}@h/x: found"}
    ).info.run_id
    opened.client.log_param(run_id, "tracking.uri", f"postgresql://h/x?user=me&password={MARK}")
    opened.client.log_param(run_id, "sweep.storage", f"me:{SLASHED}@h")
    words = [f"+data.npz_url='http://{USER}:{AT}@h/x'", f"++tracking.uri=http://{USER}:{MARK}@h", "train.seed=1"]
    opened.client.log_text(run_id, json.dumps(words), "config/overrides.yaml")
    past = runs.read(opened, mlflow_reader.describe(opened.client.get_run(run_id)))
    assert past.params == {"tracking.uri": "postgresql://h/x?user=***&password=***", "sweep.storage": "***@h"}
    assert past.tags["data.sources"] == "http://***@h/x: found"
    assert reproducing.read_overrides(Logged(past)) == ["+data.npz_url='http://***@h/x'", "train.seed=1"]


@pytest.mark.parametrize(("tag", "is_kept"), [("masked", True), ("masked", False)])
def test_a_report_notes_an_incomplete_patch(tag: str, is_kept: bool) -> None:
    def read(path: str) -> bytes:
        if not is_kept:
            raise FileNotFoundError(path)
        return b"diff"

    tags = {"mlflow.source.git.commit": "c0ffee", "git.dirty": "true", "git.patch": tag}
    past = RunRecord("id", "1", "name", "FINISHED", "", 0, {}, {}, tags, read)
    items = reproducing.check_out(Logged(past), "sqlite:///x.db")
    assert [item.is_warning for item in items if isinstance(item, Text)] == [True]
    assert any(isinstance(item, Code) and "git apply" in item.text for item in items) == is_kept


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[tuple[str, Path]]:
    """Host and port of an MLflow server behind a password, and where it writes."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with server(folder / "mlflow.db", folder / "artifacts") as backend, guard(backend) as (host, _):
        yield host, folder


@pytest.mark.slow
def test_a_server_with_a_password_in_its_address_answers(place: Place, guarded: tuple[str, Path]) -> None:
    host, _ = guarded
    own = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": SLASHED}
    for uri, variables in ((f"http://{USER}:{SLASHED}@{host}", {}), (f"http://{host}", own)):
        answered = place.run("history", "data=digits", MLFLOW_TRACKING_URI=uri, **variables)
        assert "digits-classifier has no history yet" in answered.stderr
    place.require_no_secret()


@pytest.mark.slow
def test_a_run_on_such_a_server_keeps_no_secret(place: Place, guarded: tuple[str, Path]) -> None:
    host, folder = guarded
    trained = place.run("train", *SMOKE, f"tracking.uri='http://{USER}:{SLASHED}@{host}'")
    assert trained.returncode == 0, trained.stderr
    (link,) = re.findall(r"^address +(\S+)$", trained.stdout, re.MULTILINE)
    assert link.startswith(f"http://{host}/#/experiments/")
    shutil.copytree(folder, place.written / "server")
    place.require_no_secret()


@pytest.mark.slow
def test_a_wrong_password_is_one_line(place: Place, guarded: tuple[str, Path]) -> None:
    host, _ = guarded
    refused = place.run("train", *SMOKE, f"tracking.uri=http://{USER}:{MARK}@{host}", MNIST_PIPELINE_TRACEBACK="0")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert f"http://***@{host}" in refused.stderr
    assert "401" in refused.stderr
    place.require_no_secret()


@pytest.mark.slow
def test_a_server_that_dies_shows_no_secret(place: Place, guarded: tuple[str, Path]) -> None:
    with guard(guarded[0]) as (host, listening):
        # The inner guard wants the password as well, and this one passes it on.
        uri = f"tracking.uri='http://{USER}:{SLASHED}@{host}'"
        with subprocess.Popen(
            command("train", *SMOKE[:1], "train.num_epochs=10000", uri), cwd=place.written / "current",
            env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            for line in child.stdout:
                place.printed.append(line)
                if "epoch 3/" in line:
                    listening.shutdown()
                    listening.server_close()
                    break
            place.printed.append(child.stdout.read())
        assert child.returncode == 1
    assert f"http://***@{host}" in place.printed[-1]
    place.require_no_secret()


@pytest.mark.slow
def test_nothing_of_a_sweep_and_a_promotion_has_a_secret(place: Place) -> None:
    home = f"{place.written}/home"
    uri = f"tracking.uri='sqlite:///{home}/mlruns/mlflow.db?password={MARK}'"
    storage = f"sweep.storage='sqlite:///{home}/study.db?timeout=20&password={MARK}'"
    swept = place.run(
        "sweep",
        *SMOKE[:1],
        "sweep.num_trials=2",
        "sweep.confirm.num_seeds=2",
        "sweep.confirm.max_seeds=2",
        uri,
        storage,
    )
    assert swept.returncode == 0, swept.stderr
    assert stored(place, "tags")["sweep.storage"] == f"sqlite:///{home}/study.db?timeout=***&password=***"
    name = re.findall(r"^study +(\S+)$", swept.stdout, re.MULTILINE)[0]
    final = re.findall(r"^winner's run +(.*) \(", swept.stdout, re.MULTILINE)[0]
    for words in (["report", f"sweep {name}", uri], ["promote", "data=digits", final, uri]):
        done = place.run(*words)
        assert done.returncode in (0, 3), done.stderr
    failed = place.run("sweep", *SMOKE[:1], uri, f"sweep.storage='postgresql://{USER}:{AT}@{CLOSED}/x'")
    assert failed.returncode == 1
    place.require_no_secret()


@pytest.mark.parametrize(
    ("name", "line", "kept"),
    [
        ("a.yaml", "password: S3cret", "password: ***"),
        ("a.yaml", "db: {user: me, password: S3cret, port: 1}", "db: {user: me, password: ***, port: 1}"),
        ("a.yaml", "api_key: 'S3cret' # why", "api_key: '***' # why"),
        ("a.yaml", "token: |\n  S3cret\nb: 1", "token: |\n  ***\nb: 1"),
        ("a.yaml", "uri: postgresql://h/x?password=S3cret", "uri: postgresql://h/x?password=***"),
        ("a.toml", 'aws_secret_access_key = "S3cret"', 'aws_secret_access_key = "***"'),
        ("a.py", 'PASSWORD: str = "S3cret"', 'PASSWORD: str = "***"'),
        ("a.py", 'connect(password="S3cret", user="me")', 'connect(password="***", user="me")'),
        ("a.py", "# password: S3cret", "# password: ***"),
        *(
            (name, plain, plain)
            for name, plain in (
                ("a.yaml", "password: ${oc.env:X}"), ("a.yaml", "max_tokens: 3"), ("a.yaml", "password: null"),
                ("a.py", "page_token=token,"), ("a.py", "if not token:\n    return"), ("a.py", "token = page.token"),
            )
        ),
    ],
)  # fmt: skip
def test_a_patch_lacks_secrets_and_nothing_else(tmp_path: Path, name: str, line: str, kept: str) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "first")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / name).write_text(f"{line}\n")
    made = patch.make(tmp_path)
    assert made is not None
    assert re.findall(r"^\+(?!\+)(.*)$", made.content.decode(), re.MULTILINE) == kept.split("\n")
    assert made.is_exact == (line == kept)


def test_our_own_code_has_nothing_that_a_patch_would_mask() -> None:
    # In a process of its own: this one knows the secrets of other tests, which are ordinary words.
    code = (
        "import sys; from pathlib import Path; from mnist_pipeline.pipeline import patch\n"
        "for path in [*Path('src').rglob('*.py'), *Path('conf').rglob('*.yaml')]:\n"
        "    lines = ''.join(f'\\n {line}' for line in path.read_text().splitlines())\n"
        "    whole = f'diff --git a/{path} b/{path}{lines}'\n"
        "    if patch.mask(whole) != whole: print(path)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == ""
