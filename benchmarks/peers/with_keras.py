"""Keras 3 on the torch backend: the same layers in Keras's own words."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it when it is imported

import keras
from torch import nn

from benchmarks.peers.works import Work

__all__ = ["train"]


def train(work: Work) -> None:
    """Fit to arrays in memory."""
    model = translate(work.build(), work.inputs.shape[1:])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(work.lr), loss=loss)
    after_update = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: work.updated())  # noqa: ARG005
    model.fit(
        work.inputs.numpy(),
        work.targets.numpy(),
        batch_size=work.batch_size,
        epochs=work.epochs,
        shuffle=True,
        verbose=0,
        callbacks=[after_update],
    )


def translate(model: nn.Sequential, shape: tuple[int, ...]) -> keras.Sequential:
    """Build the same network of Keras's layers, with the same weights."""
    keras.config.set_image_data_format("channels_first")  # as torch has it
    layers = [_layer(layer) for layer in model]
    network = keras.Sequential([keras.Input(shape), *layers])
    for layer, given in zip(layers, model, strict=True):
        if isinstance(given, nn.Linear):
            layer.set_weights([given.weight.detach().T.numpy(), given.bias.detach().numpy()])
        elif isinstance(given, nn.Conv2d):
            layer.set_weights([given.weight.detach().permute(2, 3, 1, 0).numpy(), given.bias.detach().numpy()])
    return network


def _layer(layer: nn.Module) -> keras.Layer:
    if isinstance(layer, nn.Linear):
        return keras.layers.Dense(layer.out_features)
    if isinstance(layer, nn.Conv2d):
        return keras.layers.Conv2D(layer.out_channels, layer.kernel_size, padding="same")
    if isinstance(layer, nn.MaxPool2d):
        return keras.layers.MaxPooling2D(layer.kernel_size)
    if isinstance(layer, nn.Flatten):
        return keras.layers.Flatten("channels_last")  # in the order of memory, as torch does; "channels_first" would transpose
    return {nn.ReLU: keras.layers.ReLU}[type(layer)]()
