"""data/tutorial.md as it stands: every block of commands and of Python, in order, in a folder with small
photographs; what they say they leave must be there, and the arrays mean what the page says.

    check_tutorial.py VAE LIBVAE

The last line is `N passed, N failed, N skipped`."""

import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "../../data")
VAE, LIBRARY = (os.path.abspath(name) for name in sys.argv[1:3])

# What is done behind a block that has these words: it looks at what the block left.
BEHIND = {
    'model.save("digits.safetensors")': "assert between.shape == (1, 8, 8) and 0 <= strangest < 1797",
    "vae export": "vae encode runs/cells --best --data cells.csv --out cells.npz\n"
                  "vae decode runs/digits --latents z.npy --out point.npy",
    "seen_as = ": "assert np.abs(mu - np.load('cells.npz')['mu']).max() < 1e-4\n"
                  "assert seen_as.shape == rows.shape and np.corrcoef(seen_as[:, 0], rows[:, 0])[0, 1] > 0.9",
    "picture = ": "assert np.abs(picture.ravel() - np.load('point.npy').ravel()).max() < 1e-5",
}


def photographs(folder, n):
    """Blobs of a few colours, of several sizes and shapes."""
    rng = np.random.default_rng(len(folder))
    for i in range(n):
        os.makedirs(os.path.join(folder, "ab"[i % 2]), exist_ok=True)
        height, width = rng.integers(64, 100, 2)
        y, x = np.mgrid[:height, :width]
        blob = np.exp(-((y - rng.uniform(20, 50))**2 + (x - rng.uniform(20, 50))**2) / rng.uniform(100, 600))
        pixels = rng.uniform(0, 255, 3) * blob[..., None] + rng.uniform(0, 255, 3) * (1 - blob[..., None])
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(os.path.join(folder, "ab"[i % 2], f"{i}.jpg"))
        if i < 2:
            picture.save(f"{'ab'[i]}.jpg")


def blocks(page):
    return re.findall(r"^```(sh|python)\n(.*?)^```$", page, re.M | re.S)


def run(language, text):
    text += "\n".join(more for mark, more in BEHIND.items() if mark in text)
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-e", "-u", "-o", "pipefail", "-c", text]
    env = {**os.environ, "PATH": os.path.dirname(VAE) + os.pathsep + os.environ["PATH"], "LIBVAE": LIBRARY,
           "PYTHONPATH": os.path.join(HERE, "../../host/lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode} of\n{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def main():
    with open(os.path.join(DATA, "tutorial.md")) as file:
        page = file.read()
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert shown and all(os.path.exists(os.path.join(DATA, name)) for name in shown), shown
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        photographs("photos", 40)
        photographs("others", 10)
        np.save("z.npy", np.array([[0.5, -1]], np.float32))
        said = [run(*block) for block in blocks(page)]
        named = set(re.findall(r"--(?:out|heatmap|histogram|scatter) (\S+)", page))
        missing = [name for name in named if not os.path.exists(name) and not name.endswith(".onnx")]
        assert len(named) > 12 and not missing, (named, missing)
        auroc = json.loads(run("sh", "vae score runs/cells --best --data cells.csv --anomaly-class malignant --json"))
        assert 0.93 < auroc["metrics"]["neg_elbo"]["auroc"] < 0.99, auroc
    return len(said)


try:
    print(f"{main()} passed, 0 failed, 0 skipped")
except AssertionError as wrong:
    print(f"FAILED: data/tutorial.md: {wrong}\n0 passed, 1 failed, 0 skipped")
