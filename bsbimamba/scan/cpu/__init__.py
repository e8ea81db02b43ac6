"""The backend "cpu": numba kernels for the scan and the convolution, and their launch."""
