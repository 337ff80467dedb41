"""Convert PyTorch's own encoders and their layers to parameters of a core."""
