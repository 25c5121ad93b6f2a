"""Image queues on Kafka: `worker` is the process, `sources.kafka` and `sinks.kafka` are its two ends."""
