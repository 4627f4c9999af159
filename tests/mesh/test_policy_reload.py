"""Policy is changed under load: no request is dropped, a mistake changes nothing, and a refusal holds at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.mesh.test_policy_conditions import ANN, AT_MOST_50, PERMIT, ROLES, Payments, Stand, euros, standing

from seamline.mesh.errors import PolicyError
from seamline.mesh.policy import Policy, arguments_of
from seamline.module import PermissionDenied, compile_contract


def read_from(stand: Stand, folder: Path) -> None:
    spec = compile_contract(Payments)
    for mesh in {stand.caller, stand.callee}:
        mesh.policy = Policy.load(
            folder,
            modules={"desk": {}, "payments": {}},
            contracts={"Payments": ("payments", list(spec.methods))},
            arguments=arguments_of(spec),
            vocabulary=ROLES,
        )
        mesh.refresh()


def reload(stand: Stand) -> None:
    for mesh in {stand.caller, stand.callee}:
        mesh.policy.reload()
        mesh.refresh()


@pytest.mark.parametrize("way", ["local", "frames", "http"])
async def test_no_request_is_dropped_while_policy_changes(tmp_path: Path, way: str):
    """Sixteen callers never stop; policy is replaced a hundred times, by a stricter, a wrong and a laxer one."""
    folder = tmp_path / "policy"
    folder.mkdir()
    file = folder / "shop.cedar"
    file.write_text(PERMIT)
    stopped = False
    answers: list[str] = []

    async with standing(tmp_path, way, PERMIT) as stand:
        read_from(stand, folder)

        async def caller() -> None:
            with stand.acting_for(ANN):
                while not stopped:
                    answers.append(await stand.payments.refund("o", euros("50")))
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(caller())
            for number in range(100):
                file.write_text((PERMIT, PERMIT + AT_MOST_50, PERMIT + "permit (")[number % 3])
                if number % 3 == 2:
                    with pytest.raises(PolicyError):
                        reload(stand)
                else:
                    reload(stand)
                count = len(answers)
                while len(answers) < count + 20:  # noqa: ASYNC110  # the callers are let run
                    await asyncio.sleep(0)
            stopped = True
        assert set(answers) == {"5000 for o"}
        assert len(answers) == len(stand.service.done) >= 2000

        file.write_text(AT_MOST_50)
        reload(stand)
        with stand.acting_for(ANN), pytest.raises(PermissionDenied):
            await stand.payments.refund("o", euros("1"))
