"""Ways for apps of other frameworks to take part in events, message by message. Transports are in ``brokers``."""
