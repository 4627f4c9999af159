"""The supervisor's end of secrets: it has the master key, knows who asks, and asks the policy.

Nothing of it is loaded before the first question: an application without secrets pays nothing for them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from seamline.kernel.audit import AuditLog
from seamline.kernel.clock import SystemClock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log
from seamline.run.control import AskRoom, AskSecrets, SecretsTold, Wake
from seamline.run.errors import AttestationError, ControlError
from seamline.run.replica import Replica, State

if TYPE_CHECKING:
    from seamline.mesh.policy import SecretRules
    from seamline.secrets.keeper import Keeper

_log = log.get("seamline.run")
_LOOK_S: Final = 30.0
_ROTATE_S: Final = 60.0
_UNDER_WAY_MAX: Final = 64
AUDIT_FILE: Final = Path("audit", "secrets.jsonl")


def secrets_audit(data: Path) -> AuditLog:
    """One line for each: which secrets left the store must be known whole, so nothing is left out in a flood."""
    return AuditLog(data / AUDIT_FILE, files_max=1000, per_window=1 << 30, total_per_window=1 << 30)


class Keeping:
    """Opens the keeper when it is first needed, and speaks with the workers.

    Args:
        settings: the application's, as they are now.
        data: the data directory.
        replicas: everyone with a process.
        clock: the supervisor's.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        data: Path,
        replicas: Callable[[], Iterable[Replica]],
        clock: SystemClock,
    ) -> None:
        self._settings = settings
        self._data = data
        self._replicas = replicas
        self._clock = clock
        self.audit = secrets_audit(data)
        self._rules: SecretRules | None = None
        self._keeper: Keeper | None = None
        self._opening = asyncio.Lock()
        self._places = asyncio.Semaphore(_UNDER_WAY_MAX)

    async def _open(self) -> Keeper:
        async with self._opening:
            if self._keeper is None:
                keeper = await asyncio.to_thread(self._open_now)
                keeper.on_change.append(self._tell)
                self._keeper = keeper
            return self._keeper

    def _open_now(self) -> Keeper:
        from seamline.mesh.policy import SecretRules  # heavy, as are the next
        from seamline.mesh.policy.sources import policy_source
        from seamline.secrets.opening import open_keeper
        from seamline.secrets.process import protect_memory

        settings = self._settings()
        protect_memory()
        self._rules = rules = SecretRules(policy_source(settings), settings.modules)
        return open_keeper(settings, self._data, rules.denial, partial(self.audit.write, "secret"), self._clock)

    async def close(self) -> None:
        if self._keeper is not None:
            await self._keeper.close()
        self.audit.close()

    def hide(self, text: str) -> str:
        """``text`` without the values that were given out."""
        return self._keeper.hide(text) if self._keeper is not None else text

    async def reload_policy(self) -> None:
        """Read the rules again; what workers remember is asked for anew. Raises PolicyError: the old rules stay."""
        if self._rules is not None and self._keeper is not None:
            await asyncio.to_thread(self._rules.reload)
            self._keeper.forget()

    # Workers.

    async def answer(self, message: AskSecrets, replica: Replica) -> SecretsTold:
        """What a worker that is attested asks for one of its own modules."""
        try:
            self._attest(message, replica)
            keeper = await self._open()
            async with self._places:
                result = await keeper.answer(message.module, message.operation, message.arguments)
            return SecretsTold(number=message.number, result=result)
        except SeamlineError as error:
            return SecretsTold(number=message.number, error=error.to_json())
        except Exception as error:  # whatever it is, who asked must not wait for ever
            _log.exception("a question about secrets failed")
            fact = ControlError(f"the keeper of secrets failed: {type(error).__name__}", "See the supervisor's log.")
            return SecretsTold(number=message.number, error=fact.to_json())

    def _attest(self, message: AskSecrets, replica: Replica) -> None:
        if message.module in replica.workload.modules:
            return
        error = AttestationError(f"{replica.label!r} asked for a secret as {message.module!r}, which it does not host")
        self.audit.write(
            "secret", "refuse", principal=replica.label, action=message.operation, reason=error.fact, pid=replica.pid
        )
        raise error

    def _tell(self, name: str) -> None:
        for replica in self._replicas():
            if replica.reachable:
                replica.tell(Wake(topics=[f"secrets/{name}"]))

    # People.

    async def ask(self, operation: str, who: str, arguments: Mapping[str, Any]) -> Any:
        """What the command line asks; see :mod:`seamline.cli.secrets`. Raises SecretsError."""
        keeper = await self._open()
        if operation == "rotate":
            return {"version": await self._rotate(keeper, str(arguments["name"]))}
        return await ask_keeper(keeper, self._rules, operation, who, arguments)

    # Rotation.

    async def maintain(self) -> None:
        """Rotate what is due, now and then. Until cancelled."""
        for turn in itertools.count():
            await self._clock.sleep(_LOOK_S)
            if self._keeper is None:
                continue
            try:
                for plan in await self._keeper.due():
                    await self._rotate(self._keeper, plan.name)
                if turn % 20 == 0:
                    await self._keeper.sweep()
            except Exception as error:  # tried again
                _log.error("%s", error if isinstance(error, SeamlineError) else repr(error))  # a fact, no traceback

    async def _rotate(self, keeper: Keeper, name: str) -> str:
        """Have one process of the module that knows how make the next value; its version."""
        from seamline.secrets.errors import RotationError

        plan = keeper.plan_of(name)
        if plan is None:
            raise RotationError(
                f"no module that runs knows the next value of {name!r}",
                f"Write it with `@module.rotates({name!r})`, or set a value yourself.",
            )
        able = [
            each
            for each in self._replicas()
            if each.reachable and each.state is State.READY and plan.module in each.workload.modules
        ]
        if not able:
            raise RotationError(f"nobody hosts {plan.module!r} now", "See `seamline status`.")
        answer = await able[0].ask(
            AskRoom, _ROTATE_S, room="secrets", operation="rotate", arguments={"name": name, "module": plan.module}
        )
        if "error" in answer:
            told = cast("dict[str, Any]", answer["error"])
            raise RotationError(f"{told.get('code')}: {told.get('fact')}", str(told.get("remedy") or ""))
        return str(answer["result"])


async def ask_keeper(
    keeper: Keeper, rules: SecretRules | None, operation: str, who: str, arguments: Mapping[str, Any]
) -> Any:
    """What people may ask of a keeper, in JSON: ``set``, ``get``, ``list``, ``delete`` and ``rotate-master``."""

    async def put() -> Any:
        try:
            value = base64.b64decode(arguments["value"], validate=True)
        except binascii.Error:
            raise ControlError("the value of a secret is not base64") from None
        return {"version": await keeper.set(who, str(arguments["name"]), value, arguments.get("overlap_s"))}

    async def get() -> Any:
        found = await keeper.reveal(who, str(arguments["name"]), str(arguments.get("version", "")))
        return {
            "name": found.name,
            "version": found.version,
            "made_ms": found.made_ms,
            "until_ms": found.until_ms,
            "value": base64.b64encode(found.reveal_bytes()).decode(),
        }

    async def every() -> Any:
        facts = await keeper.facts()
        readers: Mapping[str, tuple[str, ...]] = {}
        if rules is not None:
            readers = rules.readers([each["name"] for each in facts])
        return {
            "backend": keeper.backend.label,
            "secrets": [{**each, "readers": list(readers.get(each["name"], ()))} for each in facts],
        }

    async def delete() -> Any:
        return await keeper.delete(who, str(arguments["name"]))

    async def rotate_master() -> Any:
        return {"rewrapped": await keeper.rotate_master(who)}

    operations: dict[str, Callable[[], Awaitable[Any]]] = {
        "set": put,
        "get": get,
        "list": every,
        "delete": delete,
        "rotate-master": rotate_master,
    }
    if operation not in operations:
        raise ControlError(f"there is no operation {operation!r} on secrets", f"Known: {', '.join(operations)}.")
    return await operations[operation]()
