"""Names on the hub, as the commands take them; what is fetched is the matter of tests/pretrained/test_hub.py."""

import pathlib

from jaxdiff.cli import convert_run, sample
from jaxdiff.cli.convert import Args as Convert
from jaxdiff.cli.sample_args import Args
from jaxdiff.pretrained import hub

CACHED = pathlib.Path("cache/snapshots") / ("d" * 40)


def test_commands_read_the_folder_in_the_cache(monkeypatch):
    asked = []
    monkeypatch.setattr(
        hub, "local", lambda path, revision, **options: asked.append((path, revision, options)) or CACHED
    )
    args = sample.located(Args(model="org/name", revision="v1", variant="fp16", safety=True), weights=True)
    assert (args.model, args.revision) == (str(CACHED), None)
    assert asked.pop() == ("org/name", "v1", {"variant": "fp16", "without": (), "weights": True})
    monkeypatch.setattr(convert_run, "check", lambda args: asked.append(args.model) or exit(0))
    try:
        convert_run.run(Convert(model=pathlib.Path("org/name"), out=pathlib.Path("out")))
    except SystemExit:
        assert asked.pop() == CACHED


def test_a_path_stays_as_it_was_given():
    args = Args(model="./a/b")
    assert sample.located(args) is args
