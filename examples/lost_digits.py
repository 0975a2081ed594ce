"""Show how the chapter's difference loses its digits in float32, and `collocated` does not, for one weight."""

import numpy as np

from reference.datasets import load
from reference.numerical_gradient import collocated
from reference.two_layer_net import init, loss

H = 1e-4
MEMBER, ENTRY = "W1", (2, 5)

digits = load("digits")
for dtype in ("float64", "float32"):
    params = init(64, 50, 10, seed=0, dtype=dtype)
    x, t = digits.x_train[:100].astype(dtype), digits.t_train[:100]

    losses = []
    for by in (H, -H):
        moved = getattr(params, MEMBER).copy()
        moved[ENTRY] += by
        losses.append(loss(params._replace(**{MEMBER: moved}), x, t))
    above, below = losses
    exact = collocated(params, x, t, h=H)

    print(dtype)
    print(f"  loss(w + h)         {above!s}")
    print(f"  loss(w - h)         {below!s}")
    print(f"  their difference    {above - below:.6g}")
    print(f"  divided by 2 h      {(above - below) / np.asarray(2 * H, dtype):.6g}")
    print(f"  collocated          {getattr(exact, MEMBER)[ENTRY]:.6g}")
