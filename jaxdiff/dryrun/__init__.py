"""Dry runs tell what a run will take on devices that are not here: memory, work, traffic, a bound on its speed."""
