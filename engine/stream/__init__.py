"""Image queues on Kafka: `worker` is the process, `source` and `sink` are its two ends."""
