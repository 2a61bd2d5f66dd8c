"""What a run will take on devices that are not here, before it starts: memory, work, traffic, a bound on its speed."""
