# %% [markdown]
# # Chapter 4.5 of *Deep Learning from Scratch*, on real digits
#
# The chapter trains a net by numerical differentiation. Here it runs to the end, on the 1,797 digits that come
# along, in seconds: `backend` may be "numpy", "torch" or "jax", and all of them give the same numbers.

# %%
import matplotlib.pyplot as plt
import numpy as np

from ports import TwoLayerNet
from reference.datasets import load_mnist

backend = "numpy"
(x_train, t_train), (x_test, t_test) = load_mnist(source="digits", one_hot_label=True)

figure, axes = plt.subplots(1, 8, figsize=(8, 1.2))
for image, axis in zip(x_train, axes, strict=False):
    axis.imshow(image.reshape(8, 8), cmap="gray_r")
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## 4.5.1 The class of a two-layer net
#
# The constructor takes the sizes of the layers. `params` holds the weights and biases, `predict` gives the
# probabilities of the ten digits, `loss` the mean cross entropy, `numerical_gradient` the central differences of
# the loss by each parameter.

# %%
network = TwoLayerNet(input_size=64, hidden_size=50, output_size=10, seed=0, backend=backend)
for name, parameter in network.params.items():
    print(name, parameter.shape)

y = network.predict(x_train[:100])
print(f"probabilities {y.shape}, each row of sum {y[0].sum():.4f}")
print(f"loss {network.loss(x_train[:100], t_train[:100]):.4f}, where ln(10) is {np.log(10):.4f}")

# %% [markdown]
# The chapter's own loop over all parameters gives the same gradient, only later. `strategy` chooses how the
# differences are computed:

# %%
chapter = TwoLayerNet(64, 50, 10, seed=0, strategy="loop")
gradient, slow = (net.numerical_gradient(x_train[:10], t_train[:10]) for net in (network, chapter))
for name in gradient:
    print(f"{name} differs by at most {abs(gradient[name] - slow[name]).max():.0e}")

# %% [markdown]
# ## 4.5.2 Training on mini-batches
#
# A hundred samples are drawn at random, the gradient of their loss is taken, and each parameter moves a little
# against it.

# %%
iters_num, batch_size, learning_rate = 2000, 100, 0.5
train_size = len(x_train)
iter_per_epoch = max(train_size // batch_size, 1)

rng = np.random.default_rng(0)
train_loss_list, train_acc_list, test_acc_list = [], [], []
for i in range(iters_num):
    batch_mask = rng.choice(train_size, batch_size)
    x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]

    gradient = network.numerical_gradient(x_batch, t_batch)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= learning_rate * gradient[key]

    train_loss_list.append(network.loss(x_batch, t_batch))
    if i % iter_per_epoch == 0:  # for 4.5.3
        train_acc_list.append(network.accuracy(x_train, t_train))
        test_acc_list.append(network.accuracy(x_test, t_test))

figure, axis = plt.subplots(figsize=(6, 3))
axis.plot(train_loss_list)
axis.set(xlabel="iteration", ylabel="loss")
plt.show()

# %% [markdown]
# ## 4.5.3 Evaluation on test data
#
# Once an epoch the accuracies were taken, on the digits that the net learns from and on those it has never seen.
# Where the two curves part, the net begins to overfit.

# %%
print(f"training set {train_acc_list[-1]:.3f}, test set {test_acc_list[-1]:.3f}")

figure, axis = plt.subplots(figsize=(6, 3))
axis.plot(train_acc_list, label="train acc")
axis.plot(test_acc_list, "--", label="test acc")
axis.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
axis.legend(loc="lower right")
plt.show()
