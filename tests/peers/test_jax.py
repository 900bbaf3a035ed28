"""Conformance with optax on JAX's CPU backend: values, gradients, and JAX arrays as input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fastxent as fx
import reference as ref

N, C = 12, 130
RNG = np.random.default_rng(40)
TARGET = RNG.integers(C, size=N)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def logits(dtype: str) -> np.ndarray:
    return ref.rows_of("language model", N, C, dtype)


def close(dtype: str) -> dict[str, float]:
    eps = float(np.finfo(dtype).eps)
    return {"rtol": 32 * eps, "atol": 32 * eps}


each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@each_dtype
def test_softmax_cross_entropy_with_integer_labels(dtype):
    x = logits(dtype)
    loss, grad = fx.cross_entropy_with_grad(x, TARGET, reduction="none")
    np.testing.assert_allclose(loss, optax.softmax_cross_entropy_with_integer_labels(x, TARGET), **close(dtype))
    mean, slope = fx.cross_entropy_with_grad(x, TARGET)
    peer, peer_slope = jax.value_and_grad(lambda v: optax.softmax_cross_entropy_with_integer_labels(v, TARGET).mean())(
        jnp.asarray(x)
    )
    np.testing.assert_allclose(mean, peer, **close(dtype))
    np.testing.assert_allclose(slope, peer_slope, **close(dtype))
    np.testing.assert_allclose(grad, np.asarray(peer_slope) * N, **close(dtype))


@each_dtype
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_softmax_cross_entropy_with_soft_and_smoothed_labels(dtype, eps):
    x = logits(dtype)
    soft = RNG.dirichlet(np.ones(C), size=N).astype(dtype)
    peer, slope = jax.value_and_grad(
        lambda v: optax.softmax_cross_entropy(v, optax.smooth_labels(jnp.asarray(soft), eps)).mean()
    )(jnp.asarray(x))
    loss, grad = fx.cross_entropy_with_grad(x, soft, label_smoothing=eps)
    np.testing.assert_allclose(loss, peer, **close(dtype))
    np.testing.assert_allclose(grad, slope, **close(dtype))


@each_dtype
def test_z_loss(dtype):
    x = logits(dtype)
    peer, slope = jax.value_and_grad(
        lambda v: (
            optax.softmax_cross_entropy_with_integer_labels(v, TARGET) + 1e-2 * jax.nn.logsumexp(v, axis=-1) ** 2
        ).mean()
    )(jnp.asarray(x))
    loss, grad = fx.cross_entropy_with_grad(x, TARGET, z_loss=1e-2)
    np.testing.assert_allclose(loss, peer, **close(dtype))
    np.testing.assert_allclose(grad, slope, **close(dtype))


@each_dtype
def test_softcap_temperature_and_mask(dtype):
    x, mask = logits(dtype), np.arange(C) % 3 != 1
    target = np.where(mask[TARGET], TARGET, 0)

    def loss_of(v):
        z = 10 * jnp.tanh(v / 10) / 0.7
        return optax.softmax_cross_entropy_with_integer_labels(jnp.where(mask, z, -jnp.inf), target).mean()

    peer, slope = jax.value_and_grad(loss_of)(jnp.asarray(x))
    loss, grad = fx.cross_entropy_with_grad(x, target, softcap=10.0, temperature=0.7, class_mask=mask)
    np.testing.assert_allclose(loss, peer, **close(dtype))
    np.testing.assert_allclose(grad, slope, **close(dtype))


@each_dtype
def test_sigmoid_binary_cross_entropy(dtype):
    x, target = logits(dtype), RNG.integers(2, size=(N, C)).astype(dtype)
    peer = optax.sigmoid_binary_cross_entropy(jnp.asarray(x), target)
    np.testing.assert_allclose(fx.binary_cross_entropy_with_logits(x, target, reduction="none"), peer, **close(dtype))


@each_dtype
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_sigmoid_focal_loss_is_focal_loss_of_two_classes(dtype, alpha, gamma):
    x, target = logits(dtype)[:, 0], RNG.integers(2, size=N)
    peer = optax.losses.sigmoid_focal_loss(jnp.asarray(x), target.astype(dtype), alpha=alpha, gamma=gamma)
    pairs = np.stack([np.zeros_like(x), x], axis=-1)
    shares = None if alpha is None else [1 - alpha, alpha]
    ours = fx.focal_loss(pairs, target, gamma=gamma, alpha=shares, reduction="none")
    np.testing.assert_allclose(ours, peer, **close(dtype))


@each_dtype
def test_kl_divergence(dtype):
    p, q = fx.softmax(logits(dtype)), fx.log_softmax(logits(dtype)[::-1])
    peer = optax.losses.kl_divergence(jnp.asarray(q), jnp.asarray(p))
    ours = fx.kl_divergence(logits(dtype), logits(dtype)[::-1], reduction="none")
    np.testing.assert_allclose(ours, peer, rtol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_jax_arrays_are_taken_as_they_are(dtype):
    x = ref.rows_of("normal", 5, 40, ref.DTYPES[dtype])
    target = np.array([0, 39, -100, 2, 7])
    given = jnp.asarray(x)
    assert given.dtype == x.dtype
    loss, grad = fx.cross_entropy_with_grad(given, jnp.asarray(target), reduction="none")
    expected = fx.cross_entropy_with_grad(x, target, reduction="none")
    np.testing.assert_array_equal(loss, expected.loss)
    np.testing.assert_array_equal(ref.bits_of(grad), ref.bits_of(expected.grad))
