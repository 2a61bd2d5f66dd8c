"""A model of a few thousand parameters, which has learned nothing."""

from pipelines import own

from jaxdiff.diffusion import schedule as schedules
from jaxdiff.pipelines.diffusion import DiffusionPipeline


def pipeline(scale=1.0, schedule="cosine"):
    """With weights drawn at random, times `scale`; at 0, it says that every picture is grey."""
    process = own.process(of=getattr(schedules, schedule))
    return DiffusionPipeline(
        own.bundle("nothing", own.weights("nothing", scale=0.5 * scale), process=process), spec="pmap"
    )
