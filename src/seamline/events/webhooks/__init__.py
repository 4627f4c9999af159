"""Events from and to others over HTTP, signed as Standard Webhooks says: https://www.standardwebhooks.com.

``egress`` sends chosen events, as a consumer group of the module that publishes them; ``ingress`` takes in what others
send, and publishes it as an event of the module that mounts it. How events look in between is ``cloudevents``' work.
"""

from seamline.events.webhooks.ingress import Endpoint, webhook_ingress

__all__ = ["Endpoint", "webhook_ingress"]
