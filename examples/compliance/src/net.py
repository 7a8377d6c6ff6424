"""A small PyTorch network over TF-IDF features, with scikit-learn's fit and predict."""

import numpy
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline
from torch import nn


class TextNetwork(ClassifierMixin, BaseEstimator):
    def __init__(self, epochs: int = 8, width: int = 64, seed: int = 0, log=None):
        self.epochs = epochs
        self.width = width
        self.seed = seed
        self.log = log

    def fit(self, frame, labels):
        from train import first_column, words

        torch.manual_seed(self.seed)
        self.reduce_ = make_pipeline(words(), TruncatedSVD(256, random_state=self.seed))
        features = torch.tensor(self.reduce_.fit_transform(first_column(frame)), dtype=torch.float32)
        self.classes_, encoded = numpy.unique(labels, return_inverse=True)
        target = torch.tensor(encoded)
        self.network_ = nn.Sequential(nn.Linear(256, self.width), nn.ReLU(), nn.Linear(self.width, len(self.classes_)))
        optimizer = torch.optim.Adam(self.network_.parameters(), lr=3e-3)
        for epoch in range(self.epochs):
            total = 0.0
            for rows in torch.randperm(len(target)).split(64):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.network_(features[rows]), target[rows])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            if self.log:
                self.log(epoch, total / len(target))
        return self

    def predict(self, frame):
        from train import first_column

        features = torch.tensor(self.reduce_.transform(first_column(frame)), dtype=torch.float32)
        with torch.no_grad():
            return self.classes_[self.network_(features).argmax(1).numpy()]
