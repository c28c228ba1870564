"""Checks that a training says what it did."""

import pytest
import train


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_model_says_how_it_was_trained(epochs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train.train.callback(epochs=epochs, rate=0.5)
    assert (tmp_path / "model.txt").read_text().endswith(f"{epochs} epochs of 0.5\n")


@pytest.mark.skip(reason="there is nothing to train")
def test_a_model_is_good():
    raise AssertionError
