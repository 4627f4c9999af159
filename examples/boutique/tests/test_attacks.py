"""The running boutique is attacked, in one process and in many: all is refused, written down, and hurts nobody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from examples.boutique.tests.attacks import inside, mesh, public, tokens
from examples.boutique.tests.attacks.target import Attack, Target

from seamline.kernel.audit.verify import verify

ATTACKS = [
    each for room in (mesh, tokens, public, inside) for each in Attack.ALL if each.run.__module__ == room.__name__
]


@pytest.fixture(scope="module", params=["monolith", "services"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Target(tmp_path_factory.mktemp("attacked"), request.param) as target:
        yield target


@pytest.mark.parametrize("attack", ATTACKS, ids=[each.name for each in ATTACKS])
async def test_it_is_refused_and_written_down(target: Target, attack: Attack):
    """The attacker gets nothing, the audit says who tried what, and the same processes go on serving."""
    target.news()
    await attack.run(target)
    await target.audited(attack.audit)
    await target.unhurt()


async def test_the_audit_of_all_this_is_whole(target: Target):
    """Every line stands as it was written, signed up to a moment ago; one that an attacker takes out is missed."""
    folder = target.data / "audit"
    reports = verify(folder)
    assert reports
    assert not [str(found) for report in reports for found in report.findings]
    copy = target.folder / "audit-in-other-hands"
    shutil.copytree(folder, copy)
    log = max(copy.glob("*.jsonl"), key=lambda file: file.stat().st_size)
    lines = log.read_bytes().splitlines(keepends=True)
    del lines[len(lines) // 2]
    log.write_bytes(b"".join(lines))
    assert any(report.damaged for report in verify(copy))
