"""Small models on disk, as users have them."""

from pipelines import small

from jaxdiff.pretrained.write import write_component, write_directory


def save(path, names=small.TINY, scheduler="ddim", **index):
    """A model directory of diffusers."""
    write_directory(small.bundle(names, scheduler, **index), path)
    return path


def save_part(path, name):
    write_component(small.part(name), path)
    return path
