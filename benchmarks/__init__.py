"""Speed as ratios, measured side by side in one process, each with its limit beside it: `python -m benchmarks.step`."""
