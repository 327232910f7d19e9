"""Labels of pixels, uint8, for all rooms that import no network: 0..C-1 the classes, in the data set's order."""

IGNORED = 255  # what nothing is learnt from or measured on: the segmenters' own
