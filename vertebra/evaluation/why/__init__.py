"""Why one detector is better than another: errors by kind, confusion, calibration, AP by size and crowding, proposals.

Everything starts from `overlaps.measure`, which pairs detections and truths once; each file asks it one question.
"""
