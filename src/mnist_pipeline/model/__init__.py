"""The model stage: build a network, and inspect it before it is trained."""
