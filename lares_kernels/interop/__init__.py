"""Other people's modules: PyTorch's own encoders and their layers as parameters of a core."""
