"""The launchers of scripts/, with programs in place of gcloud, xpk, srun and ssh that do what they are told, here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"
LAUNCHERS = sorted(SCRIPTS.glob("launch_*.sh"))
ODD = ["runs of/my config.py", "--name", "it's $HOME; rm *", "--task.preview.prompts", ""]
"""What a shell would change that reads it once too often."""

TOLD = """#!{python}
import json, os, subprocess, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["TOLD"], "a") as file:
    file.write(json.dumps([name, *words]) + "\\n")
if name == "srun":
    command = words[next(i for i, word in enumerate(words) if word[0] != "-") :]
    sys.exit(subprocess.run(command).returncode)
if name in ("gcloud", "xpk", "ssh"):
    command = words[words.index("--command") + 1] if "--command" in words else words[-1]
    sys.exit(subprocess.run(["bash", "-c", command]).returncode)
sys.exit(int(words[-1].endswith(os.environ.get("FAILS", "nothing"))))
"""


@pytest.fixture
def launch(tmp_path):
    """(script, words, FAILS) -> (status, standard error, the calls of each program, sorted)."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "jaxdiff").mkdir()
    for name in ("gcloud", "xpk", "srun", "ssh", "jaxdiff"):
        (tmp_path / "bin" / name).write_text(TOLD.format(python=sys.executable))
        (tmp_path / "bin" / name).chmod(0o755)
    told = tmp_path / "told"

    def call(script, *words, fails="nothing"):
        told.write_text("")
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "TOLD": str(told)}
        done = subprocess.run(
            ["bash", SCRIPTS / script, *words],
            env={**environment, "FAILS": fails},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr, sorted(json.loads(line) for line in told.read_text().splitlines())

    return call


@pytest.mark.parametrize("script", LAUNCHERS, ids=lambda path: path.name)
def test_its_syntax_is_sound_and_without_words_it_says_how_to_call_it(script, launch):
    subprocess.run(["bash", "-n", script], check=True)
    status, said, calls = launch(script.name)
    assert (status, calls) == (2, [])
    assert script.name in said


@pytest.mark.parametrize(
    ("script", "words", "program", "given"),
    [
        (
            "launch_tpu_vm.sh",
            ["pod", "us-east1-d"],
            "gcloud",
            ["ssh", "pod", "--zone", "us-east1-d", "--worker", "all"],
        ),
        (
            "launch_xpk.sh",
            ["cluster", "load", "image:1", "v5litepod-256", "2"],
            "xpk",
            ["--cluster", "cluster", "--workload", "load", "--docker-image", "image:1", "--tpu-type", "v5litepod-256"],
        ),
        ("launch_slurm.sh", [], "srun", ["--kill-on-bad-exit=1"]),
    ],
)
def test_the_command_reaches_the_machines_as_it_was_given(script, words, program, given, launch):
    status, said, calls = launch(script, *words, *ODD)
    assert status == 0, said
    (ours,) = [call for call in calls if call[0] == "jaxdiff"]
    assert ours == ["jaxdiff", "train", *ODD, "--distributed", "auto"]
    (theirs,) = [call for call in calls if call[0] == program]
    assert " ".join(given) in " ".join(theirs)
    assert "2" in theirs or script != "launch_xpk.sh", "the number of slices"


def test_ssh_starts_each_host_with_its_number(launch):
    status, said, calls = launch("launch_ssh.sh", "a,b,c", "8476", *ODD)
    assert status == 0, said
    ours = [call for call in calls if call[0] == "jaxdiff"]
    assert ours == [["jaxdiff", "train", *ODD, "--distributed", f"a:8476,3,{i}"] for i in range(3)]
    assert [call[3] for call in calls if call[0] == "ssh"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("script", "words", "fails"),
    [
        ("launch_ssh.sh", ["a,b,c", "8476"], ",1"),
        ("launch_tpu_vm.sh", ["pod", "zone"], "auto"),
        ("launch_xpk.sh", ["cluster", "load", "image", "type", "1"], "auto"),
        ("launch_slurm.sh", [], "auto"),
    ],
)
def test_a_process_that_fails_is_its_status(script, words, fails, launch):
    assert launch(script, *words, "config.py", fails=fails)[0] == 1
