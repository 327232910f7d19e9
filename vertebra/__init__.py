"""Train a backbone, plug it into a detector, and measure what it is worth in mAP."""

__version__ = "0.6.2"
