"""Show that the strategies compute differences and not derivatives: at h = 1 the two are far apart."""

from reference.datasets import load
from reference.numerical_gradient import loop, structured
from reference.two_layer_net import gradient, init

digits = load("digits")
x, t = digits.x_train[:100], digits.t_train[:100]
params = init(64, 50, 10, weight_init_std=1, seed=0)

for h in (1e-4, 1):
    print(f"h = {h:g}")
    print(f"  loop        {loop(params, x, t, h=h).W1[20, 0]:.10f}")
    print(f"  structured  {structured(params, x, t, h=h).W1[20, 0]:.10f}")
    print(f"  derivative  {gradient(params, x, t).W1[20, 0]:.10f}")
