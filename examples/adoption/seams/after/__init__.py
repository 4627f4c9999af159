"""The reviews app, whose moderation is a module of its own."""
