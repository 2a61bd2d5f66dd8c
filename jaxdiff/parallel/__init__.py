"""One program on many devices: meshes, sharding rules, and the compilation of a train step with them."""
