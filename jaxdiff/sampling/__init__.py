"""From noise to data: time grids, samplers as tables of coefficients, and the one scan that runs them."""
