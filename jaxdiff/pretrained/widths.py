"""The widths of published models' tensors, for errors that say which model a file is for."""

_CONTEXTS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL", 1280: "SDXL's refiner"}
_TEXTS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's second text encoder"}
_VECTORS = {768: "CLIP ViT-L", 1024: "OpenCLIP ViT-H", 1280: "OpenCLIP ViT-bigG"}
_STATES = {1024: "CLIP ViT-L", 1280: "OpenCLIP ViT-H", 1664: "OpenCLIP ViT-bigG"}


def of_context(width: int | None) -> str:
    """Returns the model whose cross-attention takes tokens of this width."""
    if not isinstance(width, int):
        return "another model"
    return f"{_CONTEXTS.get(width, 'a U-Net')} (cross-attention to {width} numbers)"


def of_text(width: int) -> str:
    """Returns the width, and the model whose text encoder has it."""
    return f"{width} ({_TEXTS[width]})" if width in _TEXTS else f"{width}"


def of_vector(width: int) -> str:
    """Returns the width of a picture's vector, and the image encoder that gives such."""
    return f"{width} ({_VECTORS[width]})" if width in _VECTORS else f"{width}"


def of_states(width: int) -> str:
    """Returns the width of a picture's states, and the image encoder that gives such."""
    return f"{width} ({_STATES[width]})" if width in _STATES else f"{width}"
