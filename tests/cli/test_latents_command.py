"""`jaxdiff latents` from a terminal: what it refuses, and a kill with a resumption."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from pipelines import directory

from jaxdiff.cli.main import main

CONFIG = str(pathlib.Path(__file__).parents[2] / "configs" / "quickstart.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(directory.save(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--autoencoder is missing"),
        (["--autoencoder", "nowhere"], "there is no autoencoder at nowhere: give a run of `jaxdiff train`, or a dir"),
        (["--autoencoder", "FOLDER"], "holds no autoencoder: expected a run of `jaxdiff train`, or config.json"),
        (["--autoencoder", "MODEL", "--text-encoder", "FOLDER"], "has no text_encoder: give a model's directory"),
        (["--autoencoder", "MODEL", "--buckets", "0"], "buckets is 0: expected 1 or more"),
        (["--autoencoder", "MODEL", "--process", "2", "--processes", "2"], "process is 2: expected 0 to 1, for 2"),
        (["--autoencoder", "MODEL", "--data.size", "17"], "data.size is 17: expected a multiple of 2"),
        (["--autoencoder", "MODEL", "--buckets", "3"], "data.subset is 'quickstart', whose pictures are all squares"),
        (["--autoencoder", "MODEL", "--out", "FOLDER"], "holds other things than latents: give another --out"),
    ],
)
def test_what_cannot_be_encoded_is_said_in_a_line(model, tmp_path, capsys, options, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("")
    names = {"MODEL": model, "FOLDER": str(tmp_path / "folder")}
    words = [names.get(word, word) for word in options]
    words += [] if "--out" in words else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(["latents", CONFIG, "--small", *words])
    assert end.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


@pytest.mark.heavy
def test_after_a_kill_the_same_command_completes_the_same_bytes(model, tmp_path):
    def start(out, *more):
        words = [CONFIG, "--small", "--autoencoder", model, "--text-encoder", model, "--out", str(tmp_path / out)]
        command = [sys.executable, "-m", "jaxdiff", "latents", *words, "--shard-rows", "16", "--batch", "8", *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "XLA_FLAGS": ""})

    killed = start("killed")
    while not (tmp_path / "killed" / "all" / "00002.array_record").exists() and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "all" / "manifest.json").exists()
    assert (
        "shards of other processes are missing" in start("two", "--process", "0", "--processes", "2").communicate()[0]
    )
    assert "complete: 181 rows" in start("two", "--process", "1", "--processes", "2").communicate()[0]
    assert "complete: 181 rows" in start("killed").communicate()[0]
    assert "complete: 181 rows" in start("whole").communicate()[0]
    assert files(tmp_path / "killed") == files(tmp_path / "whole") == files(tmp_path / "two")
    again = start("whole").communicate()[0]
    assert "0 to make" in again
