"""A bare ASGI app on uvicorn, without framework: the body read, decoded, encoded and sent."""
