"""Building blocks of networks: convolution, normalisation, attention, residual blocks, embeddings."""
