"""An autoencoder whose codes a run draws: read from another run or a directory, and kept in the run's own folder."""

import json
from pathlib import Path

from jaxdiff.data.text import write_text
from jaxdiff.models.autoencoder_dvae import DVAEConfig
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.pipelines import first_stage
from jaxdiff.pretrained.read import Component, read_component, read_json
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks import saved

FOLDER, NOTE = "autoencoder", "autoencoder.json"


def read(path: Path) -> Component:
    """Reads an autoencoder with codes: of a run of `dvae` or `first_stage`, or a directory of one.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it has no codes, reads no pictures, or its files are damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no autoencoder at {path}: give a run of `jaxdiff train`, or a directory")
    if folder := next((at for at in (path, path / "dvae") if _is_network(at)), first_stage.find_autoencoder(path)):
        part: Component | None = read_component(folder)
    else:
        run = saved.open_saved(path)
        parts = run.config.bundle(run.assets, run.weights).components
        part = parts.get("dvae") or parts.get("vae")
    if part is None or not isinstance(part.config, DVAEConfig | VQConfig):
        raise ValueError(f"{path} has no codes: expected a run of dvae (configs/openmoji_dvae.py), or a VQ autoencoder")
    return first_stage.check_pictures(part, path)


def _is_network(folder: Path) -> bool:
    return (folder / "config.json").is_file() and "_class_name" in read_json(folder / "config.json")


def keep(path: str, folder: Path) -> None:
    """Copies the autoencoder at `path` into a new run's folder, and notes the hash of its weights.

    Raises:
      FileNotFoundError, ValueError: as `read`, and if `path` is empty.
    """
    if not path:
        raise ValueError(
            "task.autoencoder is empty: give the run of an autoencoder with codes (configs/openmoji_dvae.py)"
        )
    part = read(Path(path))
    first_stage.write_once(folder / FOLDER, lambda at: write_component(part, at))
    write_text(folder / NOTE, json.dumps({"sha256": first_stage.fingerprint(part)}))


def kept(folder: Path) -> Component:
    """Reads a run's copy.

    Raises:
      FileNotFoundError: if it is missing.
      ValueError: if it is of another autoencoder than the run began with.
    """
    if not (folder / NOTE).is_file() or not (folder / FOLDER / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} lacks {FOLDER} or {NOTE}: put them back, or train in another workdir with --task.autoencoder"
        )
    part, noted = read(folder / FOLDER), read_json(folder / NOTE).get("sha256")
    if (found := first_stage.fingerprint(part)) != noted:
        raise ValueError(
            f"{folder / FOLDER} has codes of another autoencoder (sha256 {found[:12]}, and the run began with "
            f"{str(noted)[:12]}): put its own back"
        )
    return part
