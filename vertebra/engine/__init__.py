"""The training engine: one loop for every job, and what a run needs around it. Batches are a protocol.

`loop` holds the loop; beside it the optimisers (`optim`), schedules (`schedule`), precision, devices and
processes (`device`, `distributed`), the run directory (`rundir`, `checkpoint`, `logs`), weights for others to use
(`weights`) and the record of where a figure came from (`provenance`).
"""
