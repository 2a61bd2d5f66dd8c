"""Models by name, from a server on loopback that speaks the hub's protocol."""

import hashlib
import http.server
import json
import threading
from urllib.parse import unquote, urlsplit

import pytest
from pipelines import directory

from jaxdiff.pretrained import hub
from jaxdiff.pretrained.read import read_directory

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMITS = {"main": "a" * 40, "old": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories of folders: `resolve` gives files, `api/models` what there is."""

    protocol_version = "HTTP/1.1"
    folder, asked = None, []

    def do_GET(self):
        Hub.asked.append(path := unquote(urlsplit(self.path).path).strip("/"))
        words = path.split("/")
        api = words[:2] == ["api", "models"]
        name, rest = "/".join(words[2:4] if api else words[:2]), words[4:] if api else words[2:]
        if name == "org/gated":
            return self.answer(403, {"X-Error-Code": "GatedRepo"})
        if name != "org/tiny":
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        revision = rest[1] if len(rest) > 1 else "main"
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        root = Hub.folder if commit == COMMITS["main"] else Hub.folder.with_name("old")
        if api and rest[:1] == ["tree"]:
            listed = [self.entry(root, file) for file in sorted(root.rglob("*")) if file.is_file()]
            return self.answer(200, {}, json.dumps(listed).encode())
        if api:
            names = [{"rfilename": str(file.relative_to(root))} for file in root.rglob("*") if file.is_file()]
            return self.answer(200, {}, json.dumps({"id": name, "sha": commit, "siblings": names}).encode())
        file = root.joinpath(*rest[2:])
        if not file.is_file():
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        tag = self.entry(root, file)["oid"]
        return self.answer(200, {"X-Repo-Commit": commit, "ETag": f'"{tag}"'}, file.read_bytes())

    do_HEAD = do_GET  # noqa: N815

    def entry(self, root, file):
        body = file.read_bytes()
        return {"type": "file", "oid": hashlib.sha1(body).hexdigest(), "size": len(body),
                "path": str(file.relative_to(root))}  # fmt: skip

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    Hub.folder = directory.save(root / "tiny")
    for part in ("unet", "vae"):
        stem = Hub.folder / part / "diffusion_pytorch_model"
        stem.with_suffix(".bin").write_bytes(b"no")
        stem.with_suffix(".fp16.safetensors").write_bytes(stem.with_suffix(".safetensors").read_bytes())
    (Hub.folder / "tiny.safetensors").write_bytes(b"a model in one file")
    (Hub.folder / "README.md").write_text("words")
    old = root / "old"
    old.mkdir()
    (old / "README.md").write_text("words")
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


@pytest.fixture(autouse=True)
def here(server, tmp_path, monkeypatch):
    """A cache of its own, and no network but the server; what it was asked is forgotten."""
    from huggingface_hub import constants

    at(monkeypatch, server)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    Hub.asked.clear()


def at(monkeypatch, address):
    """What HF_ENDPOINT says when the package is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def offline(monkeypatch):
    """What HF_HUB_OFFLINE says."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def unreachable(monkeypatch):
    at(monkeypatch, "http://127.0.0.1:9")


def files(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_is_read_is_there_and_nothing_else(variant):
    folder = hub.local("org/tiny", variant=variant)
    dot = f".{variant}" if variant else ""
    weights = {f"{part}/diffusion_pytorch_model{dot}.safetensors" for part in ("unet", "vae")}
    weights |= {"text_encoder/model.safetensors"}
    assert {name for name in files(folder) if name.endswith((".safetensors", ".bin"))} == weights
    assert "README.md" not in files(folder)
    bundle = read_directory(folder, variant=variant)
    assert bundle.components.keys() == {"unet", "vae", "text_encoder"}
    assert hub.commit_of(folder) == COMMITS["main"]


def test_configs_alone_are_enough_to_know_what_it_is():
    folder = hub.local("org/tiny", weights=False)
    assert not [name for name in files(folder) if name.endswith(".safetensors")]
    assert read_directory(folder, weights=False).kind == "StableDiffusionPipeline"


@pytest.mark.parametrize("cut", [offline, unreachable])
def test_what_was_read_once_needs_no_hub(cut, monkeypatch):
    first = hub.local("org/tiny")
    cut(monkeypatch)
    Hub.asked.clear()
    assert hub.local("org/tiny") == first == hub.local("org/tiny", COMMITS["main"])
    assert not Hub.asked
    with pytest.raises(FileNotFoundError, match="other is not whole in the hub's cache, and the hub is not to be"):
        hub.local("org/other")


def test_half_of_a_model_is_no_model(monkeypatch):
    hub.local("org/tiny", weights=False)
    offline(monkeypatch)
    with pytest.raises(FileNotFoundError, match="is not whole in the hub's cache"):
        hub.local("org/tiny")


@pytest.mark.parametrize(
    ("name", "revision", "error", "message"),
    [
        (
            "org/nothing",
            None,
            FileNotFoundError,
            "there is no org/nothing, neither here nor on the hub: check the name",
        ),
        ("org/gated", None, PermissionError, r"org/gated is gated: accept its terms at http.*/org/gated, then log in"),
        ("org/tiny", "new", FileNotFoundError, "org/tiny has no revision 'new': give a branch, a tag or a commit"),
        ("org/tiny", "old", FileNotFoundError, r"org/tiny at old has no model_index.json: expected a pipeline"),
        ("org/x--y..z", None, ValueError, "'org/x--y..z' is no name on the hub: expected ORG/NAME"),
        ("./org/tiny", "main", ValueError, "revision is 'main', and ./org/tiny is a path"),
    ],
)
def test_what_the_hub_does_not_give_is_said_in_one_line(name, revision, error, message):
    with pytest.raises(error, match=message) as told:
        hub.local(name, revision)
    assert "\n" not in str(told.value)


def test_a_model_of_pickles_is_refused(monkeypatch):
    monkeypatch.setattr(Hub, "folder", Hub.folder.with_name("pickled"))
    directory.save(Hub.folder)
    (Hub.folder / "unet" / "diffusion_pytorch_model.safetensors").rename(Hub.folder / "unet" / "x.bin")
    with pytest.raises(ValueError, match="org/tiny has no safetensors of unet on the hub: other files could run code"):
        hub.local("org/tiny")


def test_what_is_here_is_no_name(tmp_path):
    (tmp_path / "runs").mkdir()
    for path in ("runs/none", "x", "./a/b", "/a/b", "a/b.safetensors", "a/b/c", ".."):
        assert hub.name_of(path) is None
    assert hub.name_of("a/b") == hub.name_of("hub:a/b") == "a/b"
    assert hub.name_of("hub:runs/none") == "runs/none"


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(
        ValueError, match=r"there is no org/tiny here, .* needs a package: pip install 'jaxdiff\[hub\]'"
    ):
        hub.local("org/tiny")
