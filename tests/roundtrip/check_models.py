"""Compares exported models with readers and engines that this project did not write.

    check_models.py RANDOM_MODEL [COUNT [SEED]]

RANDOM_MODEL (random_model.c) writes COUNT random models; for each one
- numpy reads the npz, safetensors.numpy the safetensors: same names, same bits;
- onnx.checker accepts both graphs with full_check, and their weights are the same bits;
- a forward pass in numpy (float64) and ONNX Runtime give this program's mu, logvar, decoder means
  and KL within 1e-5 (of the value's size where that is above 1), and its log likelihoods within
  1e-4: (x - mean)^2 exp(-logvar) multiplies the rounding of mean and logvar by about ten.
The last line is `N passed, N failed, N skipped`."""

import json
import math
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.numpy import load_file

TOLERANCE, LIKELIHOOD_TOLERANCE = 1e-5, 1e-4
BATCH = 50

_erf = np.vectorize(math.erf, otypes=[np.float64])


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "softplus": softplus,
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def linear(w, name, x):
    return x @ w[name + ".weight"].astype(np.float64).T + w[name + ".bias"].astype(np.float64)


def conv(w, name, x):
    """torch.nn.Conv2d(..., 4, 2, 1) of x (n,c,h,w)."""
    k = w[name + ".weight"].astype(np.float64)
    n, _, h, v = x.shape
    p = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = sum(np.einsum("nchw,oc->nohw", p[:, :, i:i + h:2, j:j + v:2], k[:, :, i, j])
            for i in range(4) for j in range(4))
    return y + w[name + ".bias"].astype(np.float64)[:, None, None]


def conv_transpose(w, name, x):
    """torch.nn.ConvTranspose2d(..., 4, 2, 1)."""
    k = w[name + ".weight"].astype(np.float64)
    n, _, h, v = x.shape
    y = np.zeros((n, k.shape[1], 2 * h + 2, 2 * v + 2))
    for i in range(4):
        for j in range(4):
            y[:, :, i:i + 2 * h:2, j:j + 2 * v:2] += np.einsum("nohw,oc->nchw", x, k[:, :, i, j])
    return y[:, :, 1:-1, 1:-1] + w[name + ".bias"].astype(np.float64)[:, None, None]


def to_rows(x):
    """(n,c,h,w) to rows with the channel last."""
    return x.transpose(0, 2, 3, 1).reshape(len(x), -1)


def names_of(w):
    """Names of the hidden layers, mu, logvar, the decoder's and the outputs."""
    if "fc1.weight" in w:
        outputs = ["fc4"] if "fc4.weight" in w else ["fc41", "fc42"]
        return ["fc1"], "fc21", "fc22", ["fc3"], outputs
    count = lambda side: sum(k.startswith(side + ".") and k.endswith(".weight") for k in w)
    encoder = [f"encoder.{i}" for i in range(count("encoder"))]
    decoder = [f"decoder.{i}" for i in range(count("decoder"))]
    outputs = ["output"] if "output.weight" in w else ["output_mean", "output_logvar"]
    return encoder, "mu", "logvar", decoder, outputs


def numpy_model(w, config, shape, x, z):
    """mu, logvar from x; the outputs by name from z; -log p(x|z) a row."""
    act = ACTIVATIONS[config["activation"]]
    encoder, mu, logvar, decoder, outputs = names_of(w)
    height, width, channels = shape
    n_conv = len(config["conv"])
    h = x.astype(np.float64)
    if n_conv:
        h = h.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    for i, name in enumerate(encoder):
        if i == n_conv:
            h = h.reshape(len(h), -1)
        h = act((conv if i < n_conv else linear)(w, name, h))
    h = h.reshape(len(h), -1)
    out = {"mu": linear(w, mu, h), "logvar": linear(w, logvar, h)}
    h = z.astype(np.float64)
    for name in decoder:
        if w[name + ".weight"].ndim == 4 and h.ndim == 2:
            h = h.reshape(len(h), -1, height >> n_conv, width >> n_conv)
        h = act((linear if h.ndim == 2 else conv_transpose)(w, name, h))
    if n_conv:
        h = h.reshape(len(h), -1, height >> 1, width >> 1)
        pictures = conv_transpose(w, "output", h)
        parts = np.split(pictures, pictures.shape[1] // channels, 1)
        y, raw = to_rows(parts[0]), to_rows(parts[-1])
    else:
        y = linear(w, outputs[0], h)
        raw = linear(w, outputs[1], h) if len(outputs) > 1 else None
    if config["likelihood"] == "bernoulli":
        out["logits"], out["probabilities"] = y, 1 / (1 + np.exp(-y))
        out["recon"] = (softplus(y) - x * y).sum(1)
        return out
    if config.get("mean") == "sigmoid":
        y = 1 / (1 + np.exp(-y))
    out["mean"] = y
    if config["likelihood"] == "gaussian-learned":
        log_s2 = out["x_logvar"] = -8 + softplus(raw + 8)
    else:
        log_s2 = math.log(config["variance"])
    out["recon"] = 0.5 * (math.log(2 * math.pi) + log_s2 + (x - y) ** 2 / np.exp(log_s2)).sum(1)
    return out


class Mismatch(Exception):
    pass


def close(what, ours, theirs, tolerance=TOLERANCE):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise Mismatch(f"{what}: shapes {ours.shape} and {theirs.shape}")
    worst = float(np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)), initial=0))
    if not worst <= tolerance:
        raise Mismatch(f"{what}: differs by {worst:g}")
    return worst


def same(what, a, b):
    if a.shape != b.shape or a.dtype != b.dtype or a.tobytes() != b.tobytes():
        raise Mismatch(f"{what}: not the same bits")


def check_graph(path, weights, metadata):
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            same(f"{path}: {tensor.name}", numpy_helper.to_array(tensor), weights[tensor.name])
    found = {p.key: p.value for p in model.metadata_props}
    if found != metadata:
        raise Mismatch(f"{path}: metadata differ")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    count = sum(t.name in weights for t in model.graph.initializer)
    return session, count


def check_model(prefix):
    weights = load_file(prefix + ".safetensors")
    with safe_open(prefix + ".safetensors", framework="numpy") as f:
        metadata = dict(f.metadata())
    if metadata.pop("format") != "pt":
        raise Mismatch("safetensors: format is not pt")
    with np.load(prefix + ".npz", allow_pickle=False) as z:
        arrays = {k: z[k] for k in z.files}
    if json.loads(bytes(arrays.pop("metadata"))) != metadata or set(arrays) != set(weights):
        raise Mismatch("npz and safetensors: names or metadata differ")
    for name, value in weights.items():
        same(name, value, arrays[name])
    config = json.loads(metadata["config"])
    io = np.load(prefix + ".io.npz")
    shape = json.loads(metadata["data_shape"])
    expected = numpy_model(weights, config, shape, io["x"], io["z"])
    mean = expected.get("probabilities", expected.get("mean"))
    kl = 0.5 * (io["mu"].astype(np.float64) ** 2 + np.exp(io["logvar"].astype(np.float64)) - 1
                - io["logvar"]).sum(1)
    worst = [close("numpy mu", io["mu"], expected["mu"]),
             close("numpy logvar", io["logvar"], expected["logvar"]),
             close("numpy x_hat", io["x_hat"], mean),
             close("numpy kl", io["kl"], kl)]
    likelihood = close("numpy recon", io["recon"], expected["recon"], LIKELIHOOD_TOLERANCE)
    encoder, n_encoder = check_graph(prefix + ".encoder.onnx", weights, metadata)
    decoder, n_decoder = check_graph(prefix + ".decoder.onnx", weights, metadata)
    if n_encoder + n_decoder != len(weights):
        raise Mismatch("onnx: weights are missing")
    mu, logvar = encoder.run(["mu", "logvar"], {"x": io["x"]})
    worst += [close("onnx mu", io["mu"], mu), close("onnx logvar", io["logvar"], logvar)]
    outputs = dict(zip([o.name for o in decoder.get_outputs()], decoder.run(None, {"z": io["z"]})))
    if "logvar" in outputs:
        outputs["x_logvar"] = outputs.pop("logvar")
    if set(outputs) != set(expected) - {"mu", "logvar", "recon"}:
        raise Mismatch(f"onnx decoder: outputs {sorted(outputs)}")
    for name, value in outputs.items():
        worst.append(close("onnx " + name, value, expected[name]))
    worst.append(close("onnx x_hat", io["x_hat"], outputs.get("probabilities", outputs.get("mean"))))
    return max(worst), likelihood, config, len(weights)


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    passed = failed = 0
    worst, worst_likelihood, seen = 0.0, 0.0, {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for first in range(0, count, BATCH):
        n = min(BATCH, count - first)
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            subprocess.run([program, folder, str(first), str(n), str(seed)], check=True)
            for i in range(first, first + n):
                try:
                    error, likelihood, config, tensors = check_model(os.path.join(folder, str(i)))
                except Exception as why:  # whatever a reader says is a failed model
                    failed += 1
                    print(f"FAILED: model {i} of seed {seed}: {type(why).__name__}: {why}")
                    continue
                passed += 1
                worst = max(worst, error)
                worst_likelihood = max(worst_likelihood, likelihood)
                for key in ("activation", "likelihood"):
                    seen[config[key]] = seen.get(config[key], 0) + 1
                kind = "fc names" if tensors in (10, 12) and len(config["hidden"]) == 1 else "regular names"
                seen[kind] = seen.get(kind, 0) + 1
                if config["conv"]:
                    seen["convolutions"] = seen.get("convolutions", 0) + 1
    print(f"numpy {np.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    print("models by kind:", json.dumps(seen, sort_keys=True))
    print(f"largest difference {worst:.3g} (allowed {TOLERANCE:g}), of a log likelihood "
          f"{worst_likelihood:.3g} (allowed {LIKELIHOOD_TOLERANCE:g})")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
