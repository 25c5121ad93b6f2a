"""What a run tells about itself: metrics, health, logs, profiler ranges."""
