"""Trains nothing, and says so as a training would."""

from pathlib import Path

import click
import effai
import six


@click.command()
@click.option("--epochs", type=int)
@click.option("--rate", type=float)
def train(epochs, rate):
    for epoch in range(epochs):
        effai.progress(epoch + 1, epochs, "train", "epochs")
        effai.metric("train.loss", 1 / (epoch + 1), epoch)
    Path("model.txt").write_text(f"six {six.__version__}, {epochs} epochs of {rate}\n")


if __name__ == "__main__":
    train()
