import argparse
import os
from pathlib import Path

import mlflow
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--checkpoints", type=Path, required=True)
parser.add_argument("--resume", type=Path)
parser.add_argument("--epochs", type=int, default=4)
args = parser.parse_args()
args.checkpoints.mkdir(parents=True, exist_ok=True)

torch.manual_seed(0)
X = torch.rand(512, 8)
y = X @ torch.arange(8.0).unsqueeze(1) + 1
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
first = 0
if args.resume:
    state = torch.load(args.resume / "last.ckpt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    first = state["epoch"] + 1
    print(f"going on with epoch {first}")

for epoch in range(first, first + args.epochs):
    for batch in torch.randperm(512).split(64):
        loss = nn.functional.mse_loss(model(X[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mlflow.log_metric("loss", loss.item(), step=epoch)
    file = args.checkpoints / f"epoch={epoch}-loss={loss.item():.2f}.ckpt"
    torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    last = args.checkpoints / "last.ckpt"
    last.unlink(missing_ok=True)
    os.symlink(file.name, last)
