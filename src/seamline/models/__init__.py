"""Models as services: loaded, batched, versioned, called through contracts like anything else."""
