"""The programs that `jaxdiff benchmark` measures, beside the same architecture in PyTorch."""
