"""A hundred random vectors, two classes: the smallest program that trains, predicts, saves and goes on.

The note trains the whole batch at once, predicts five rows, pickles the model, and goes on with a new optimiser. Here the
test is on rows that were not trained on (near 50%, for there is nothing to learn), the file holds no code, and training goes
on with the optimiser as it was.
"""

import torch
from torch import nn

import goodfit

X, y = torch.randn(100, 50), torch.randint(0, 2, (100,))
model = nn.Sequential(nn.Linear(50, 100), nn.ReLU(), nn.Linear(100, 2))

run = goodfit.train((X, y), model=model, optimizer="sgd", lr=0.01, schedule="constant", epochs=100, batch_size="full")
for prediction in run.predictor()(X[:5]):
    print(prediction.label, f"{prediction.probability:.1%}")

run.save("vectors.safetensors")
goodfit.resume(run.path, data=(X, y), epochs=150)
