"""What a process tells about itself: logs, spans, counts. Keeping and showing them belongs elsewhere."""
