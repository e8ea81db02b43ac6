"""The backend "triton": kernels for the scan and the convolution on a GPU, and their launch."""
