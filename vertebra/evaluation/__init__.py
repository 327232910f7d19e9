"""What a trained network is worth: predictions over a loader, top-k, VOC and COCO average precision,
intervals.

Nothing is imported here, so that a tool pays only for the part it uses.
"""
