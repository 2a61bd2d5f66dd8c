"""Models by their name on the Hugging Face hub, 'stabilityai/sd-turbo': the files that are read, and no others.

They lie in the cache of `huggingface_hub` (the extra `hub`), which knows its own settings: HF_HOME, HF_TOKEN,
HF_ENDPOINT, HF_HUB_OFFLINE. Weights are safetensors alone. The configs come first, so that a model that is not
supported is refused before its weights are there.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jaxdiff.pretrained import index
from jaxdiff.pretrained.components import FAMILIES
from jaxdiff.pretrained.files import STEMS, read_json

_NAME = re.compile(r"(hub:)?(\w[\w.-]*/\w[\w.-]*)")
_SMALL = ("*.json", "*.txt", "*.model")
_INDEX = "model_index.json"


def name_of(path: Path | str) -> str | None:
    """Returns the name on the hub that a path is, or None: what is here, or whose folder is, is a path.

    'hub:ORG/NAME' is a name whatever is here.
    """
    found, path = _NAME.fullmatch(str(path)), Path(path)
    if found and (found[1] or not (path.parent.is_dir() or path.suffix in (".safetensors", ".ckpt"))):
        return found[2]
    return None


def local(
    path: Path | str,
    revision: str | None = None,
    *,
    variant: str | None = None,
    without: Collection[str] = ("safety_checker",),
    weights: bool = True,
) -> Path:
    """Returns where a model is on this machine; of a name on the hub that is its folder in the cache.

    Args:
      path: a path, which is returned as it is; or a name.
      revision: a branch, a tag or a commit of the name; None: main, as it is now. The folder's own name is the commit.
      variant: variant of the weights, `fp16`, where there is one.
      without: components that are not wanted.
      weights: whether to have them too, not only what describes the model.

    Raises:
      FileNotFoundError: if there is no such model, or it is not in the cache and the hub cannot be reached.
      PermissionError: if its authors give it only to those who asked.
      ValueError: for a revision of a path, a model of a kind that is not supported, one without safetensors, or where
        the extra is not installed.
    """
    name = name_of(path)
    if name is None:
        if revision is not None:
            raise ValueError(
                f"revision is {revision!r}, and {path} is a path: only a name on the hub, ORG/NAME, has some"
            )
        return Path(path)
    folder = _fetch(name, revision, [_INDEX], one=True)
    commit = folder.name
    known = read_json(folder / _INDEX)
    named = index.entries(known, {*without})
    _fetch(name, commit, [f"{at}{form}" for at in ("", *(f"{one}/" for one in named)) for form in _SMALL])
    index.read(folder, without)
    if weights:
        wanted = [one for one, kind in named.items() if kind in FAMILIES]
        for forms in (*([_forms(variant)] if variant else []), _forms(None), ["*.safetensors"]):
            wanted = [one for one in wanted if not _weights(folder, one)]
            if wanted:
                # the oldest models keep their one network beside model_index.json
                places = [f"{one}/" for one in wanted] + ([""] if not (folder / wanted[0]).is_dir() else [])
                _fetch(name, commit, [place + form for place in places for form in forms])
        if bare := [one for one in wanted if not _weights(folder, one)]:
            raise ValueError(
                f"{name} has no safetensors of {', '.join(bare)} on the hub: other files could run code when they are "
                "read, so ask its authors, or give a copy's path"
            )
    return folder


def commit_of(folder: Path) -> str | None:
    """Returns the commit of a folder in the hub's cache, and None of another."""
    return folder.name if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name) else None


def _forms(variant: str | None) -> list[str]:
    """Returns the names that files of one variant of a network have, plain for None, in one part or in several."""
    part, dot = "-?????-of-?????", f".{variant}" if variant else ""
    forms = {f"{stem}{dot}{one}.safetensors" for stem in STEMS for one in ("", part)}
    forms |= {f"{stem}{part}{dot}.safetensors" for stem in STEMS}
    return sorted(forms)


def _weights(folder: Path, component: str) -> bool:
    at = folder / component if (folder / component).is_dir() else folder
    return any(at.glob("*.safetensors"))


def _fetch(name: str, revision: str | None, patterns: Sequence[str], one: bool = False) -> Path:
    """Returns the folder of a revision, with the files that the patterns name, from the cache or the hub."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise ValueError(
            f"there is no {name} here, and to read it from the hub needs a package: pip install 'jaxdiff[hub]'"
        ) from error
    known: Any = errors  # of several versions, whose HTTPError is of requests or httpx
    at = name if revision is None else f"{name} at {revision}"
    try:
        if one:
            return Path(huggingface_hub.hf_hub_download(name, patterns[0], revision=revision)).parent
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=[*patterns]))
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{name} is gated: accept its terms at {_page(name)}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no {name}, neither here nor on the hub: check the name; of a private one, log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{name} has no revision {revision!r}: give a branch, a tag or a commit of it"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{at} is not whole in the hub's cache, and the hub is not to be reached (HF_HUB_OFFLINE, or no network): "
            "connect once, or give the path of a copy"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{at} has no {_INDEX}: expected a pipeline of diffusers; download its one file from {_page(name)} and "
            "give that"
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(f"{name!r} is no name on the hub: expected ORG/NAME") from error
    except (known.HTTPError, OSError) as error:
        raise OSError(f"{at} could not be read from the hub: {' '.join(str(error).split())[:300]}") from error


def _page(name: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{name}"
