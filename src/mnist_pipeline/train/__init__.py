"""The train stage: epochs as compiled calls."""
