"""A supervisor and its workers as real processes: what starts, dies, is restarted, stops and is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from supervised import Starter, alive, until

from seamline.kernel.errors import SeamlineError
from seamline.run.errors import Exit


def test_each_topology_places_the_modules_it_names(start: Starter):
    """One process for all, one each, and groups; the public side is answered by the workload of the front."""
    running = start(topology="duo").until_ready()
    assert running.status()["topology"] == "duo"
    assert {each["name"]: each["modules"] for each in running.status()["workloads"]} == {
        "edge": ["front", "cart"],
        "orders": ["orders"],
    }
    answer = running.get()
    assert answer["workload"] == "edge"
    assert sorted(answer["known"]) == ["cart", "front", "orders"]
    assert answer["routes"] == ["front"]
    assert answer["pid"] == running.pids()["edge"]


def test_replicas_are_endpoints(start: Starter):
    """`--replicas orders=3` gives three processes, and callers know all three."""
    running = start(topology="services", replicas={"orders": 3}).until_ready()
    assert sorted(running.pids()) == ["cart", "front", "orders", "orders#1", "orders#2"]
    assert len(until(lambda: len(running.get()["known"]["orders"]) == 3 and running.get()["known"]["orders"])) == 3


def test_what_a_replica_announces_wakes_those_that_host_the_same(start: Starter):
    """One of three replicas of orders announces; the other two are woken, the process of another module is not."""
    running = start(topology="services", replicas={"orders": 3}).until_ready()
    until(lambda: len(running.get()["known"]["orders"]) == 3)
    for topic in ("events/orders", "events/orders", "sagas/orders"):
        running.ask("events", module="orders", operation="announce", arguments={"topic": topic})

    def woken() -> list[str]:
        lines = [line for line in running.lines() if "woken for" in str(line.get("message"))]
        return [f"{line['workload']}#{line.get('replica', 0)}" for line in lines if "sagas" in line["message"]]

    until(lambda: len(woken()) == 2, "both to be woken")
    assert sorted(woken()) == ["orders#1", "orders#2"]


def test_the_rooms_of_a_module_answer_over_the_admin_socket(start: Starter):
    """One of the replicas that host a module answers; without a module one of each workload; errors keep their code."""
    running = start(topology="services", replicas={"orders": 2}).until_ready()
    found = running.ask("sagas", module="orders", operation="list", arguments={"limit": 3})["answers"]
    assert [each["result"] for each in found] == [
        {"room": "sagas", "operation": "list", "arguments": {"module": "orders", "limit": 3}, "workload": "orders"}
    ]
    everyone = running.ask("events", operation="topics")["answers"]
    assert sorted(each["workload"] for each in everyone) == ["cart", "front", "orders"]
    with pytest.raises(SeamlineError) as refused:
        running.ask("events", module="orders", operation="fail")
    assert refused.value.code == "SL2999"
    with pytest.raises(SeamlineError, match="there is no module 'ordres'"):
        running.ask("events", module="ordres", operation="topics")


def test_a_killed_worker_is_replaced_and_callers_are_told(start: Starter):
    """SIGKILL to a worker: its endpoint goes, a new process comes, the others are as they were."""
    running = start(topology="services").until_ready()
    before, port = running.pids(), running.get()["known"]["orders"]
    os.kill(before["orders"], signal.SIGKILL)
    until(lambda: running.get()["known"].get("orders", port) != port, "a new endpoint")
    after = until(lambda: running.replicas()["orders"]["state"] == "ready" and running.pids())
    assert after["orders"] != before["orders"]
    assert (after["front"], after["cart"]) == (before["front"], before["cart"])
    assert running.replicas()["orders"]["restarts"] == 1
    assert "orders ended with signal SIGKILL" in running.messages()


def test_a_killed_gateway_comes_back_on_the_same_address(start: Starter):
    """Connections made while nobody accepts wait in the queue that the supervisor holds open."""
    running = start(topology="services").until_ready()
    os.kill(running.pids()["front"], signal.SIGKILL)
    assert running.get()["workload"] == "front"


def test_sigterm_finishes_what_is_in_flight(start: Starter):
    """The slow request is answered, the status is that of a stop, and nothing is left."""
    running = start(topology="services").until_ready()
    pids = running.pids()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(running.get("/slow")))
    asking.start()
    until((running.data / "slow").exists)
    running.signal(signal.SIGTERM)
    until(lambda: "stopping: finishing" in running.messages())
    (running.data / "go").touch()
    assert running.wait() == Exit.STOPPED
    asking.join()
    assert answers[0]["workload"] == "front"
    assert "stopped: everything in flight was finished" in running.messages()
    assert not any(map(alive, pids.values()))
    assert not (running.data / "run" / "control.sock").exists()


def test_the_deadline_ends_a_drain_and_says_so(start: Starter):
    """A request that never ends is cut off at the deadline, which has an exit status of its own."""
    start.write(run="", more="")
    text = (start.folder / "seamline.toml").read_text().replace("drain_timeout_s = 5", "drain_timeout_s = 0.3")
    (start.folder / "seamline.toml").write_text(text)
    running = start().until_ready()
    asking = threading.Thread(target=running.get_cut_off, args=("/slow",))
    asking.start()
    until((running.data / "slow").exists)
    running.signal(signal.SIGINT)
    assert running.wait() == Exit.FORCED
    asking.join()
    assert "stopped by force" in running.messages()


def test_a_second_signal_stops_at_once(start: Starter):
    """Without waiting for the request that would hold it for the whole deadline."""
    text = (start.folder / "seamline.toml").read_text().replace("drain_timeout_s = 5", "drain_timeout_s = 3600")
    (start.folder / "seamline.toml").write_text(text)
    running = start().until_ready()
    asking = threading.Thread(target=running.get_cut_off, args=("/slow",))
    asking.start()
    until((running.data / "slow").exists)
    running.signal(signal.SIGINT)
    until(lambda: "stopping: finishing" in running.messages())
    running.signal(signal.SIGINT)
    assert running.wait() == Exit.FAST
    asking.join()


def test_nothing_outlives_a_killed_supervisor(start: Starter):
    """SIGKILL gives the supervisor no chance to tidy up; the kernel ends its workers."""
    running = start(topology="services").until_ready()
    pids = running.pids()
    running.signal(signal.SIGKILL)
    running.wait()
    until(lambda: not any(map(alive, pids.values())), "the workers' end")
    again = start(topology="services").until_ready()
    assert again.get()["workload"] == "front"


def test_a_supervisor_killed_while_it_starts_leaves_nothing(start: Starter):
    """Also workers that have not yet come as far as asking the kernel."""
    running = start(topology="services")
    pids = until(lambda: len(running.pids()) == 3 and running.pids())
    running.signal(signal.SIGKILL)
    running.wait()
    until(lambda: not any(map(alive, pids.values())), "the workers' end")


def test_a_data_directory_has_one_supervisor(start: Starter):
    """The second says who holds it, and does the first no harm."""
    running = start().until_ready()
    second = start()
    assert second.wait() == Exit.ALREADY_RUNNING
    assert f"supervised by pid {running.process.pid}" in second.log.read_text()
    assert running.get()["workload"] == "all"


def test_a_taken_port_is_named_with_its_holder(start: Starter):
    """Port, and the process that has it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        start.write(port=port)
        running = start()
        assert running.wait() == Exit.PORT_TAKEN
    failed = running.lines()[-1]["failed"]
    assert failed["code"] == "SL5002"
    assert f"port {port} is in use by pid {os.getpid()} (" in failed["fact"]


def test_an_unusable_data_directory_stops_before_anything_starts(start: Starter):
    """A file where the directory should be."""
    (start.folder / "taken").write_text("")
    start.write(app='data = "taken"')
    running = start()
    assert running.wait() == Exit.SETTINGS
    assert running.lines()[-1]["failed"]["code"] == "SL1007"


@pytest.mark.parametrize(
    ("order", "code", "says"),
    [
        ("raise", "SL2999", "the module is broken"),
        ("error", "SL5003", "'orders' cannot start: ValueError: no such thing"),
        ("exit", "SL5003", "exit status 13"),
    ],
)
def test_a_workload_that_cannot_start_ends_it_all(start: Starter, order: str, code: str, says: str):
    """With the error that the worker reported, or its exit status and last words; the others are stopped."""
    start.order(orders=order)
    running = start(topology="services")
    assert running.wait() in {Exit.START_FAILED, Exit.SETTINGS}
    failed = running.lines()[-1]["failed"]
    assert failed["code"] == code
    assert says in failed["fact"]
    if order == "exit":
        assert "the disk is on fire" in failed["fact"]


def test_a_workload_that_is_never_ready_is_given_up(start: Starter):
    start.order(orders="hang")
    start.write(run="ready_timeout_s = 1.5")
    running = start(topology="services")
    assert running.wait() == Exit.START_FAILED
    assert "not ready within 1.5 s" in running.lines()[-1]["failed"]["fact"]


def test_a_crash_loop_is_reported_and_tried_on(start: Starter):
    """How often, what ended it, its last lines, when the next try is; the rest runs on."""
    start.write(run="crash_loop_crashes = 3")
    running = start(topology="services").until_ready()
    start.order(orders="exit")
    os.kill(running.pids()["orders"], signal.SIGKILL)
    loop = until(lambda: running.replicas()["orders"]["crash_loop"], "a crash loop")
    assert loop["crashes"] >= 3
    assert loop["ended"] == "exit status 13"
    assert any("the disk is on fire" in line for line in loop["log"])
    assert "orders crashes in a loop" in running.messages()
    assert running.get()["workload"] == "front"
    start.order()
    until(lambda: running.replicas()["orders"]["state"] == "ready", "the next try")


def test_a_blocked_event_loop_is_noticed(start: Starter):
    """A worker whose loop stands still is ended and started anew."""
    start.order(orders="block")
    start.write(run="hung_after_s = 0.5")
    running = start(topology="services").until_ready()
    pid = running.pids()["orders"]
    until(lambda: "has not answered" in running.messages())
    start.order()
    until(lambda: running.pids()["orders"] not in {0, pid} and running.replicas()["orders"]["state"] == "ready")


def test_a_worker_that_will_not_stop_is_ended(start: Starter):
    """A shutdown hook that hangs does not keep the supervisor."""
    start.order(orders="no end")
    running = start(topology="services").until_ready()
    pids = running.pids()
    running.signal(signal.SIGTERM)
    assert running.wait() == Exit.STOPPED
    assert not any(map(alive, pids.values()))


def test_logs_of_all_workers_are_one_stream(start: Starter):
    """As JSON with the workload, also what code merely prints; `logs` gives the last lines of one."""
    start.order(orders="exit")
    running = start(topology="services")
    running.wait()
    line = next(line for line in running.lines() if "on fire" in str(line.get("message")))
    assert (line["workload"], line["level"], line["logger"]) == ("orders", "error", "stand_in")


def test_output_that_nobody_reads_holds_nothing_up(start: Starter):
    """Two megabytes into a pipe that is full: it serves, answers, and stops."""
    start.order(front="chatter")
    reader, writer = os.pipe()
    running = start(_output=writer)
    os.close(writer)
    until(lambda: running.status()["ready"], "ready")
    assert running.replicas()["all"]["state"] == "ready"
    running.signal(signal.SIGTERM)
    assert running.wait() == Exit.STOPPED
    os.close(reader)


def test_a_deep_data_directory_works(start: Starter, tmp_path: Path):
    """Unix sockets take 107 bytes of path; folders may be deeper."""
    deep = "/".join(["a" * 50] * 4)
    start.write(app=f'data = "{deep}"')
    running = start()
    running.data = start.folder / deep
    running.until_ready()
    assert running.get()["workload"] == "all"
    assert running.status()["app"] == "shop"


def test_certificates_are_renewed_before_they_end(start: Starter):
    """A short lifetime: each module's certificate is replaced while it serves."""
    start.write(more="[identity]\ncertificate_lifetime_s = 3")
    running = start().until_ready()
    first = running.get()["until"]
    until(lambda: all(running.get()["until"][name] > ends for name, ends in first.items()), "renewed certificates")
    assert "was not renewed" not in running.messages()


def test_what_only_tests_may_ask_is_refused(start: Starter):
    """`issue`, `external` and `clock` exist under test alone; unknown and malformed requests are answered."""
    running = start().until_ready()
    for op in ("issue", "external", "clock"):
        with pytest.raises(SeamlineError) as caught:
            running.ask(op)
        assert caught.value.code == "SL5010"
    for op, arguments, code in (
        ("stat", {}, "SL5006"),
        ("switch", {}, "SL5008"),
        ("switch", {"topology": "x"}, "SL5006"),
    ):
        with pytest.raises(SeamlineError) as caught:
            running.ask(op, **arguments)
        assert caught.value.code == code
    assert running.status()["topology"] == "monolith"


def test_a_test_can_move_the_clock_and_inject_faults(start: Starter):
    """Both reach the workers, and those that start later."""
    running = start(testing=True, topology="services").until_ready()
    running.ask("clock", offset_s=300)
    running.ask("inject", rules={"Cart.add": {"inject_error": "unavailable"}})
    assert running.get()["offset_s"] == 300
    assert running.get()["rules"] == {"Cart.add": {"inject_error": "unavailable"}}
    os.kill(running.pids()["front"], signal.SIGKILL)
    again = running.get()
    assert again["offset_s"] == 300
    until(lambda: running.get()["rules"] != {})


@pytest.mark.parametrize("claim", ["a stranger", "a grandchild"])
def test_a_foreign_process_gets_no_identity(start: Starter, claim: str):
    """Same user, right words, wrong process: refused, and written to the audit."""
    running = start(topology="services").until_ready()
    code = f"""
import asyncio
from pathlib import Path
from seamline.run.control import *
from seamline.run.sockets import unix_address
async def main():
    with unix_address(Path({str(running.data / "run" / "control.sock")!r})) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    channel = ControlChannel(reader, writer, worker_decoder())
    channel.send(Hello(workload="orders", replica=0, generation=1))
    print(await channel.receive())
    channel.send(Sign(requests={{"orders": "-----BEGIN CERTIFICATE REQUEST-----"}}))
    print(await channel.receive())
asyncio.run(main())
"""
    command = [sys.executable, "-c", code]
    if claim == "a grandchild":
        command = ["sh", "-c", '"$0" "$@"; true', *command]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "was not started by this supervisor" in answer
    assert "Signed" not in answer
    assert answer.strip().endswith("None")
    audit = (running.data / "audit" / "supervisor.jsonl").read_text()
    assert "was not started by this supervisor" in audit
    assert running.get()["workload"] == "front"


def test_garbage_on_the_control_socket_harms_nobody(start: Starter):
    """A length beyond the limit, a cut message, no JSON: the connection is closed, the rest goes on."""
    running = start().until_ready()
    for words in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x10{", b"\x00\x00\x00\x03abc", b""):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(running.data / "run" / "control.sock"))
            client.sendall(words)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert running.get()["workload"] == "all"
