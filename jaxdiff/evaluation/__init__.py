"""The work of `jaxdiff evaluate`: makes pictures, reads others, compares their features, and reports."""
