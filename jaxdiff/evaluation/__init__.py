"""What `jaxdiff evaluate` does: makes pictures, reads others, compares their features, and reports."""
