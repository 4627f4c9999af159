"""One version of a model in one process: its queue, its batches, its threads."""
