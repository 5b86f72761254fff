"""A plain PyTorch module that loads what `vae export --format safetensors` writes of a model with
convolutions, unchanged; `make test` compares its numbers where PyTorch is installed.

    from conv_vae import ConvVAE
    model = ConvVAE.load("photos.safetensors")
    mu, logvar = model.encode(x)      # x: (n,channels,height,width) in [0,1]
    pictures = model.decode(mu)       # means of p(x|z), the same shape
"""

import json
import math

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "softplus": F.softplus, "gelu": F.gelu,
               "leaky_relu": F.leaky_relu}


class ConvVAE(nn.Module):
    def __init__(self, conv=(32, 64, 128, 256), hidden=(), latent=128, shape=(64, 64, 3),
                 activation="relu", sigmoid=True):
        super().__init__()
        self.activation, self.sigmoid = ACTIVATIONS[activation], sigmoid
        height, width, channels = shape
        self.small = (conv[-1], height >> len(conv), width >> len(conv))  # of the last convolution
        pairs = list(zip((channels, *conv), conv))
        sizes = [math.prod(self.small), *hidden]
        dense = list(zip(sizes, hidden))
        self.encoder = nn.ModuleList([*(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairs),
                                      *(nn.Linear(a, b) for a, b in dense)])
        self.mu, self.logvar = nn.Linear(sizes[-1], latent), nn.Linear(sizes[-1], latent)
        up = [nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in reversed(pairs)]
        self.decoder = nn.ModuleList([nn.Linear(latent, sizes[-1]),
                                      *(nn.Linear(b, a) for a, b in reversed(dense)), *up[:-1]])
        self.output = up[-1]

    @classmethod
    def load(cls, path):
        """A model by what the file says of itself: mirrored, without classes, of one output a value."""
        from safetensors import safe_open
        with safe_open(path, "pt") as file:
            about = file.metadata()
            weights = {name: file.get_tensor(name) for name in file.keys()}
        config, shape = json.loads(about["config"]), json.loads(about["data_shape"])
        sigmoid = config["likelihood"] == "bernoulli" or config["mean"] == "sigmoid"
        model = cls(config["conv"], config["hidden"], config["latent"], shape, config["activation"],
                    sigmoid)
        model.load_state_dict(weights)  # strict: these names, these shapes
        return model.eval()

    def encode(self, x):
        for layer in self.encoder:
            if isinstance(layer, nn.Linear):
                x = x.flatten(1)
            x = self.activation(layer(x))
        return self.mu(x.flatten(1)), self.logvar(x.flatten(1))

    def decode(self, z):
        for layer in self.decoder:
            if isinstance(layer, nn.ConvTranspose2d) and z.dim() == 2:
                z = z.unflatten(1, self.small)
            z = self.activation(layer(z))
        z = self.output(z.unflatten(1, self.small) if z.dim() == 2 else z)
        return torch.sigmoid(z) if self.sigmoid else z
