"""What is kept of a run: its configuration, records, checkpoints and figures."""
