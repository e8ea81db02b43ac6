"""Coefficients of softplus and its derivative for CPU and GPU, lowest order first."""

# log(1 + e) = e (1 + e Q(e)) on [0, 1], minimax in the relative error (3.4e-8).
LOG1P = (
    -0.4999964790249543,
    0.33321321160262174,
    -0.24857151571095426,
    0.19153606740106216,
    -0.13753698876442938,
    0.0792033094300065,
    -0.03006503691160201,
    0.0053646354369529005,
)
# 1 - exp(-y) = y (1 - y/2! + y²/3! ...), to a relative error of 4e-7 below the limit.
SERIES = tuple(1 / factorial for factorial in (2, 6, 24, 120, 720))
SERIES_LIMIT = 0.35
