"""What `jaxdiff benchmark` measures: named programs of a model, beside the same architecture in PyTorch."""
