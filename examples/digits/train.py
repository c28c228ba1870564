"""Trains a small network by PyTorch, and logs by MLflow: it knows nothing of effai."""

import argparse

import mlflow
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

import digits

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--hidden", type=int)
parser.add_argument("--rate", type=float)
parser.add_argument("--seed", type=int)
args = parser.parse_args()

# The same sums in the same order: the same bytes.
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
torch.manual_seed(args.seed)


def tensors(split):
    pictures, labels = digits.read(split)
    return torch.tensor(pictures), torch.tensor(labels)


pictures, labels = tensors("train")
model = torch.nn.Sequential(
    torch.nn.Linear(digits.SIDE**2, args.hidden), torch.nn.ReLU(), torch.nn.Linear(args.hidden, 10)
)
optimizer = torch.optim.Adam(model.parameters(), lr=args.rate)
with mlflow.start_run():
    mlflow.log_params(vars(args))
    for epoch in range(args.epochs):
        losses = []
        for batch in torch.randperm(len(labels)).split(32):
            loss = cross_entropy(model(pictures[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        mlflow.log_metric("train.loss", sum(losses) / len(losses), step=epoch)
    with torch.no_grad():
        pictures, labels = tensors("test")
        told = model(pictures)
        accuracy = (told.argmax(1) == labels).float().mean().item()
    mlflow.log_metric("accuracy", accuracy)
print(f"{accuracy:.3f} of {len(labels)} digits are told")
digits.write(labels.tolist(), told.softmax(1).tolist())
save_file(model.state_dict(), "model.safetensors")
