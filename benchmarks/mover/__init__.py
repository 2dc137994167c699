"""The mover against best-tuned rclone, at equal concurrency, interleaved, in medians."""
