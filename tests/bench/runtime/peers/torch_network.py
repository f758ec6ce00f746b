"""Weights of the heavy model as TorchScript; runs in the interpreter that has torch."""

import sys

import numpy as np
import torch

weights = np.load(sys.argv[1])
layers = []
for index in range(len(weights.files) // 2):
    w = weights[f"w{index}"]
    layer = torch.nn.Linear(*w.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(w.T.copy()))
        layer.bias.copy_(torch.from_numpy(weights[f"b{index}"]))
    layers += [layer, torch.nn.ReLU()]
layers[-1] = torch.nn.Softmax(dim=1)
network = torch.jit.freeze(torch.jit.script(torch.nn.Sequential(*layers).eval()))
network.save(sys.argv[2])
