"""Whole programs from prompt to picture, each one jitted function."""
