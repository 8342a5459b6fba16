"""What a worker does with a gradient: optimisers and schedules, as SPECs."""
