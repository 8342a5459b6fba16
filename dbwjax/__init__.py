"""dbwjax: training with many workers when some of them are slow."""
