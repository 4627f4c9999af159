"""A process of one age: hosts the callee and the caller of every case, and does what it is told, a JSON line each."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import sys
from pathlib import Path
from typing import Any, cast

import msgspec
import skewed  # pyright: ignore[reportMissingImports]  # written by the test, in this process's age
from tests.run.skew_cases import CASES, named

from seamline.events.codec import decode_event, encode_event
from seamline.events.record import Record
from seamline.kernel.settings import MeshRules, MeshSettings
from seamline.mesh.balance import Endpoint
from seamline.mesh.identity import WorkloadIdentity
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module import Contract, Event, compile_contract
from seamline.module.contract import UNARY
from seamline.module.description import describe
from seamline.module.values import Fault

AGE = int(sys.argv[1])
NAMES: dict[str, Any] = dict(vars(skewed))  # pyright: ignore[reportUnknownArgumentType]


def value(number: int, expression: str) -> Any:
    return eval(named(expression, number), NAMES)


class Callee:
    """Answers one case's calls, and remembers what it was asked."""

    def __init__(self, number: int, contract: type[Contract]) -> None:
        self.spec = compile_contract(contract).methods.get("take")
        self.number = number
        self.runs = 0
        self.got: Any = None
        self.wrote: Any = None

    def answer(self, *arguments: Any) -> Any:
        assert self.spec is not None
        self.runs += 1
        self.got = json.loads(self.spec.encode_request(arguments))
        made = value(self.number, CASES[self.number].answer[AGE])
        if isinstance(made, Exception):
            self.wrote = json.loads(made.encode()) if isinstance(made, Fault) else None
            raise made
        self.wrote = json.loads(self.spec.result.encode(made))
        return made

    def service(self, contract: type[Contract]) -> Any:
        async def take(_: Any, *arguments: Any) -> Any:
            return self.answer(*arguments)

        async def takes(_: Any, *arguments: Any) -> Any:
            yield self.answer(*arguments)

        async def other(_: Any) -> None: ...

        streams = self.spec is not None and self.spec.kind != UNARY
        return type("Service", (contract,), {"take": takes if streams else take, "other": other})()


class Child:
    """What the test asks of this process."""

    def __init__(self, serving: Mesh, calling: Mesh) -> None:
        self.calling = calling

        def lose_the_answer() -> None:
            for connection in list(serving.port.connections):
                connection.abort()

        NAMES["lose_the_answer"] = lose_the_answer
        self.contracts = {int(name[1:]): cls for name, cls in NAMES.items() if _is(cls, Contract)}
        self.events = {int(name[1:]): cls for name, cls in NAMES.items() if _is(cls, Event)}
        self.callees = {number: Callee(number, contract) for number, contract in self.contracts.items()}
        for number, contract in self.contracts.items():
            calling.know(contract, "stock")
            serving.provide("stock", contract, self.callees[number].service(contract))

    async def describe(self) -> Any:
        return describe(dict.fromkeys(self.contracts.values(), "stock"), dict.fromkeys(self.events.values(), "stock"))

    async def call(self, number: int, port: int) -> Any:
        """Call the other process as the module ``orders``, with this process's own contract."""
        contract = self.contracts[number]
        self.calling.set_endpoints({"stock": [Endpoint("127.0.0.1", port)]})
        spec = compile_contract(contract).methods["take"]
        arguments: tuple[Any, ...] = value(number, CASES[number].sent[AGE])
        answer: dict[str, Any] = {"sent": json.loads(spec.encode_request(arguments))}
        stub: Any = self.calling.stub(contract, "orders")
        try:
            async with asyncio.timeout(3):
                if spec.kind == UNARY:
                    result = await stub.take(*arguments)
                else:
                    (result,) = [item async for item in stub.take(*arguments)]
            return {**answer, "read": seen(result)}
        except Fault as fault:
            return {**answer, "read": seen(fault)}
        except Exception as error:
            return {**answer, "error": f"{type(error).__name__}: {error}"}

    async def received(self, number: int) -> Any:
        callee = self.callees[number]
        found = {"got": callee.got, "wrote": callee.wrote, "runs": callee.runs}
        callee.got, callee.wrote, callee.runs = None, None, 0
        spec = callee.spec
        return {**found, "idempotent": spec is not None and spec.idempotent}

    async def request(self, number: int, data: str) -> Any:
        """What becomes of arguments that another client wrote."""
        spec = self.callees[number].spec
        assert spec is not None
        spec.decode_request(data.encode())

    async def publish(self, number: int) -> Any:
        event: Event = value(number, CASES[number].event[AGE])
        key = str(getattr(event, event.event_key)) if event.event_key else ""
        return {"data": encode_event(event).decode(), "version": event.event_version, "key": key}

    async def handle(self, number: int, data: str, version: int) -> Any:
        cls = cast("type[Event]", self.events[number])
        record = Record(id="1", source="stock", type="E", data=data.encode(), time_ms=1, version=version)
        event = decode_event(cls, record)
        key = str(getattr(event, cls.event_key)) if cls.event_key else ""
        return {"read": seen(event), "key": key}


def seen(value: Any) -> Any:
    """What code that holds the value sees of it, defaults too."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else None
    return value if fields is None else {field.name: getattr(value, field.name) for field in fields}


def _is(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base


def make_mesh(certificates: Any) -> Mesh:
    identity = WorkloadIdentity(certificates["trust_domain"], "skew")
    identity.set_bundle(certificates["bundle"].encode())
    for module, (key, chain) in certificates["modules"].items():
        identity.install(module, key.encode(), chain.encode())
    policy = Policy.from_text(
        "permit (principal, action, resource);",
        modules={"stock": {}, "orders": {}},
        contracts={n: ("stock", list(compile_contract(c).methods)) for n, c in NAMES.items() if _is(c, Contract)},
    )
    return Mesh("skew", policy, MeshSettings(default=MeshRules(timeout_s=5)), identity=identity)


def say(answer: Any) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


async def main() -> None:
    certificates = json.loads(await asyncio.to_thread(Path(sys.argv[2]).read_text))
    serving, calling = make_mesh(certificates), make_mesh(certificates)
    child = Child(serving, calling)
    listener = socket.create_server(("127.0.0.1", 0))
    await serving.port.listen(listener)
    say(listener.getsockname()[1])
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = json.loads(line)
        try:
            answer = await getattr(child, name)(*arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        say(answer)
    await calling.stop()
    await serving.stop()


asyncio.run(main())
