"""Train the network of `model=conv` in PyTorch and print the seconds of an epoch after the first."""

import statistics
import time

import torch

from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue

NUM_EPOCHS = 3
BATCH_SIZE = 32


def main() -> None:
    """Train and print. The images stay in memory as floats; a batch is an index into them."""
    dataset = catalogue.load(compose.compose(["preset=tutorial"]).data)
    images = torch.from_numpy(dataset.train.images / 255.0).float()[:, None]
    labels = torch.from_numpy(dataset.train.labels).long()
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 32, 3, padding="same"), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(32, 64, 3, padding="same"), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64 * 7 * 7, dataset.num_classes)),
    )
    optimizer = torch.optim.Adam(network.parameters())
    objective = torch.nn.CrossEntropyLoss()
    seconds = []
    for _ in range(NUM_EPOCHS):
        start = time.perf_counter()
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            optimizer.zero_grad()
            objective(network(images[batch]), labels[batch]).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(statistics.mean(seconds[1:]))


if __name__ == "__main__":
    main()
