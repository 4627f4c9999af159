"""FastStream on NATS JetStream, as its documentation publishes to a stream."""
