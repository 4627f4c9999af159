"""Who calls whom is read from foreign spans, and nobody is made to call whom they did not."""

from __future__ import annotations

import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from seamline.kernel.signal.metrics import bucket_of
from seamline.observe.otlp import bounds, names
from seamline.observe.otlp.decoding import Decoding
from seamline.observe.otlp.mapping import Mapper
from seamline.observe.otlp.names import Names
from seamline.observe.records import Attribute, Batch, Span

NOW = time.time_ns()
CLIENT, SERVER, CONSUMER, PRODUCER, INTERNAL = 3, 2, 5, 4, 1


class World:
    """Foreign services, whose spans come in one request each."""

    def __init__(self, *own: str) -> None:
        self.decoding = Decoding(Mapper(own, NOW, 14), 2**24)

    def tell(
        self,
        service: str,
        kind: int,
        span_id: int,
        parent: int = 0,
        *,
        name: str = "GET",
        ms: int = 1,
        error: bool = False,
        at_ns: int = NOW,
        **attributes: str | int,
    ) -> Batch:
        request = ExportTraceServiceRequest()
        block = request.resource_spans.add()
        block.resource.attributes.add(key="service.name").value.string_value = service
        span = block.scope_spans.add().spans.add(
            trace_id=b"\1" * 16, span_id=span_id.to_bytes(8, "big"), name=name,
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            start_time_unix_nano=at_ns, end_time_unix_nano=at_ns + ms * 10**6,
        )  # fmt: skip
        span.kind = kind  # pyright: ignore[reportAttributeAccessIssue]
        span.status.code = 2 if error else 0  # pyright: ignore[reportAttributeAccessIssue]
        for key, value in attributes.items():
            told = span.attributes.add(key=key.replace("__", "."))
            if isinstance(value, int):
                told.value.int_value = value
            else:
                told.value.string_value = value
        return self.decoding.take("traces", "protobuf", "", request.SerializeToString(), NOW).batches[0]


def edges(*batches: Batch) -> list[tuple[str, str, str, str]]:
    return [(t.caller, t.callee, t.method, t.side) for batch in batches for t in batch.traffic]


def test_the_caller_is_the_parents_service():
    """A server's span names no caller; the client's span, its parent, does, also from an earlier request."""
    world = World()
    sent = world.tell("web", CLIENT, 1, peer__service="cart")
    served = world.tell("cart", SERVER, 2, 1, name="GET /cart")
    assert edges(sent, served) == [("web", "cart", "GET", "client"), ("web", "cart", "GET /cart", "server")]
    assert (sent.spans[0].peer, served.spans[0].peer) == ("cart", "web")


def test_an_address_gets_the_name_of_who_answers_there():
    """Once the server behind an address has told, the client's next call there is a call of that service."""
    world = World()
    first = world.tell("web", CLIENT, 1, server__address="10.0.0.7", server__port=8080)
    world.tell("cart", SERVER, 2, 1)
    second = world.tell("web", CLIENT, 3, server__address="10.0.0.7", server__port=8080)
    other = world.tell("web", CLIENT, 4, server__address="10.0.0.7", server__port=9090)
    assert [t[1] for t in edges(first, second, other)] == ["10.0.0.7:8080", "cart", "10.0.0.7:9090"]


def test_foreign_and_own_services_find_each_other():
    """Our module's client span is the parent of a foreign server's; and the other way round."""
    world = World("orders")
    ours = [Span(b"\1" * 16, (1).to_bytes(8, "big"), b"", "POST", "client", "orders", "psp.example", NOW, 5)]
    world.decoding.note(ours)
    assert edges(world.tell("psp", SERVER, 2, 1)) == [("orders", "psp", "GET", "server")]
    world.tell("web", CLIENT, 5, server__address="shop.local")
    served = Span(b"\1" * 16, (6).to_bytes(8, "big"), (5).to_bytes(8, "big"), "GET", "server", "orders", "", NOW, 5)
    world.decoding.note([served])
    assert edges(world.tell("web", CLIENT, 7, server__address="shop.local")) == [("web", "orders", "GET", "client")]


def test_nobody_speaks_in_the_name_of_a_module():
    """Neither as service.name nor as the caller that a server claims to have had; being called is another matter."""
    world = World("orders", "payments")
    assert edges(world.tell("orders", CLIENT, 1, peer__service="payments")) == [
        ("otlp:orders", "payments", "GET", "client")
    ]
    assert edges(world.tell("evil", SERVER, 2, peer__service="orders")) == [("otlp:orders", "evil", "GET", "server")]
    assert edges(world.tell("gateway", CLIENT, 5, peer__service="x"))[0][0] == "otlp:gateway"
    assert edges(world.tell("otlp:orders", CLIENT, 3, peer__service="x"))[0][0] == "otlp:orders"
    assert edges(world.tell(" orders\n", CLIENT, 4, peer__service="x"))[0][0] == "otlp:orders"


def test_sides():
    """Databases, models, consumers and the public door are told apart; inner work and producers are no calls."""
    world = World()
    assert edges(
        world.tell("web", CLIENT, 1, db__system__name="postgresql", server__address="db", name="SELECT orders"),
        world.tell("web", CLIENT, 2, gen_ai__request__model="llama", gen_ai__provider__name="vllm", name="chat llama"),
        world.tell("mail", CONSUMER, 3, messaging__destination__name="orders.placed"),
        world.tell("web", SERVER, 4, http__request__method="GET", name="GET /"),
        world.tell("web", SERVER, 5, 99, http__request__method="GET", name="GET /"),
        world.tell("web", CLIENT, 6, peer__service="cart", rpc__service="shop.Cart", rpc__method="Add"),
        world.tell("web", INTERNAL, 7, peer__service="cart"),
        world.tell("web", PRODUCER, 8, peer__service="kafka"),
        world.tell("web", CLIENT, 9),
    ) == [
        ("web", "postgresql", "SELECT orders", "sql"),
        ("web", "llama", "chat llama", "model"),
        ("", "mail", "orders.placed", "event"),
        ("", "web", "GET /", "http"),
        ("", "web", "GET /", "server"),
        ("web", "cart", "shop.Cart/Add", "client"),
    ]


def test_counts_errors_and_durations():
    """Of each edge: calls, errors by code, the sum and the histogram of the durations."""
    world = World()
    (good,) = world.tell("web", CLIENT, 1, peer__service="cart", ms=3).traffic
    (bad,) = world.tell(
        "web", CLIENT, 2, peer__service="cart", ms=40, error=True, http__response__status_code=503
    ).traffic
    assert (good.calls, good.errors, good.sum_ns, good.histogram) == (1, 0, 3_000_000, {bucket_of(3000): 1})
    assert (bad.calls, bad.errors, bad.codes, bad.histogram) == (1, 1, {"unavailable": 1}, {bucket_of(40_000): 1})


def test_what_is_long_over_is_no_traffic_of_now():
    """A span that comes an hour late is kept, and not counted as a call of this second."""
    batch = World().tell("web", CLIENT, 1, peer__service="cart", at_ns=NOW - 3600 * 10**9)
    assert len(batch.spans) == 1
    assert batch.traffic == []


def test_names_are_bounded():
    """Ever new services and peers share one name once there are enough; those that are known keep theirs, and after an
    hour of silence a place is free again."""
    found = Names(["orders"])
    for number in range(bounds.SERVICES_MAX * 3):
        found.service(f"s{number}", NOW)
        found.peer(f"p{number}", NOW)
    assert found.service("late", NOW) == found.peer("late", NOW) == names.OTHER
    assert found.service("s1", NOW) == "s1"
    assert found.peer("orders", NOW) == "orders"
    assert found.service("late", NOW + 2 * 3600 * 10**9) == "late"


def test_names_are_one_line_and_short():
    """Line breaks and controls are blanks; a service that says no name is called what OpenTelemetry calls it."""
    found = Names([])
    assert found.service("a\nb\x00\x1b[31m", NOW) == "a b  [31m"
    assert len(found.service("x" * 1000, NOW)) == 80
    assert found.service("", NOW) == found.service("\n", NOW) == "unknown_service"


def test_methods_are_bounded():
    """A service that puts ids into the names of its spans gets a line for the rest, and not a million edges."""
    world = World()
    methods: set[str] = set()
    for number in range(2100):
        told: dict[str, Attribute] = {}
        batch = world.tell("web", CLIENT, number + 1, peer__service="cart", name=f"GET /user/{number}", **told)  # pyright: ignore[reportArgumentType]
        methods |= {t.method for t in batch.traffic}
    assert len(methods) == 2049
    assert "other" in methods
