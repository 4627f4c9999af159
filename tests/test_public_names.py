"""The names that users import, and how they are called, change only together with this file."""

from __future__ import annotations

import inspect

import seamline

FROZEN = """
Approval(approved, by='', comment='')
    by
    comment
ApprovalExpired(fact, remedy='', *, place=None)
    code
    to_json()
Artefacts(folder, digest='')
    digest
    path(name)
Attribute(*paths)
    paths
Batch(*, max=32, wait_ms=5.0)
    max
    wait_ms
Cache(*, entries=10000, size_max_mb=64.0, ttl_s=300.0, shared=False, semantic=None)
    entries
    semantic
    shared
    size_max_mb
    ttl_s
CallContext(module, caller, method='', deadline=inf, trace=None, priority=1, idempotency_key=None, key_for_calls=None, subject=None, span=None)
    caller
    deadline
    idempotency_key
    key_for_calls
    method
    module
    origin
    priority
    span
    span_id()
    subject
    trace
    under(span_id)
CallError(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
Capture(*, dataset, subject=None, mask=None, share=1.0)
    mask
    share
    subject
Clock
    monotonic()
    now()
    sleep(seconds)
Contract
    action
Database(url, module, tables=None, *, wait_s=30.0, login=None)
    after_commit(connection, callback, refused=None)
    close()
    current()
    ensure(tables)
    is_free()
    path
    raw(work)
    raw_read(work)
    read()
    ready()
    renew_login(url)
    run_sync(work)
    session()
    start()
    transaction()
    unit()
    url
DeadlineExceeded(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
Event
    event_compacted
    event_key
    event_upcasters
    event_version
    upcast(version)
EventContext(*, id, source, key, time, attempt, headers, idempotency_key, replayed=False)
    attempt
    headers
    id
    idempotency_key
    key
    replayed
    source
    time
Events(module, database, log, clock, owners, proofs=None, tracer=None)
    publish(event, *, key=None, delay_s=0.0, ttl_s=0.0, headers=None)
    publish_all(events)
Fault
    codec()
    decode(data)
    encode()
    message
InternalError(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
InvalidArgument(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
Module(name, *, provides=(), tables=None, owner='', version='')
    folder
    model(contract, *, version, batch=None, runs_in='thread', concurrency=0, waiting_max=1000, warm=(), workers=1, cache=None, loads='', idle_s=0.0, watch=None)
    mount(app, *, at='/', host=None, wsgi=False)
    on(event, *, group='', concurrency=16, batch=0, batch_wait_s=0.05, where=None, start='earliest', attempts=8, backoff_s=0.1, timeout_s=30.0, outside=False)
    provide(factory)
    replays(contract)
    rotates(secret, *, every_s=0, overlap_s=3600)
    saga(function=None, *, name='', version=1, timeout_s=0.0, compensate='reverse', cron='')
    service(cls)
    shutdown(function)
    startup(function)
Overloaded(fact, remedy='', *, place=None)
    code
    connect
    retry_after_s
    started
    to_json()
PermissionDenied(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
Place(app='', topology='', workload='', replica=0)
    app
    replica
    topology
    workload
Principal
    agent
    chain
    has_role(name)
    module
    require_user()
    user
Saga(course)
    approval(name, timeout_s=None, **shown)
    child(function, *arguments, key='')
    continue_as_new(*arguments)
    gather(*steps)
    id
    key
    note(**values)
    now()
    patched(name)
    pivot()
    publish(event)
    random()
    sleep(seconds)
    step(call, *arguments, undo=None, name='', attempts=None, backoff_s=None, timeout_s=None)
    uuid()
    wait_event(event, key, timeout_s=None)
    wait_signal(name, type_, timeout_s=None)
SagaHandle(engine, saga, kind=None)
    approve(name, *, by='', comment='', approved=True)
    cancel(reason='')
    query()
    result(timeout_s=None)
    signal(name, value=None)
    status()
Sagas(engine)
    handle(saga_id)
    run(saga, *arguments, key='', **keywords)
    start(saga, *arguments, key='', **keywords)
SeamlineError(fact, remedy='', *, place=None)
    code
    to_json()
Secret(name, version, value, *, made_ms=0, until_ms=0)
    made_ms
    name
    reveal()
    reveal_bytes()
    until_ms
    version
Secrets(module, source, clock, cache_s)
    changed(name)
    get(name, *, version='')
    get_or_make(name, make)
    give_back(lease)
    lease(name, *, seconds=0)
    now_ms()
    plan(name, every_s)
    renew(lease, seconds)
    replace(after, value, overlap_s)
    take(name, seconds)
    valid(name)
    watch(name)
SemanticCache(*, embed, similarity=0.95, same=None, entries=1000)
    entries
    same
    similarity
StepFailed(fact, remedy='', *, place=None)
    code
    to_json()
Unauthenticated(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
Unavailable(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
Unimplemented(fact, remedy='', *, place=None)
    code
    connect
    started
    to_json()
User(id, issuer='', roles=frozenset(), tenant='', name='', email='', session='', authenticated_at=0, level='', client='', scopes=None, attributes=<factory>)
    attributes
    authenticated_at
    client
    email
    id
    issuer
    level
    name
    roles
    scopes
    session
    tenant
WaitExpired(fact, remedy='', *, place=None)
    code
    to_json()
Watch(*, reference='', methods=(), row=None, window_s=300.0, rows_min=200, rows_max=2000, share=1.0, evaluators=None, cost=None, judge=None, capture=None)
    capture
    cost
    evaluators
    judge
    methods
    reference
    row
    rows_max
    rows_min
    share
    window_s
Workers(*, count=1, rss_max_mb=0, requests_max=0, grace_s=1.0)
    count
    grace_s
    requests_max
    rss_max_mb
batched(method)
current()
idempotent(method)
place()
readonly(method)
timeout(seconds)
use(contract)
"""


def described() -> list[str]:
    """One line for each public name: its parameters, and a class's public members."""
    lines: list[str] = []
    for name in sorted(seamline.__all__):
        thing = getattr(seamline, name)
        lines.append(name + _parameters(thing))
        if inspect.isclass(thing):
            members = sorted(m for m in dir(thing) if not m.startswith("_") and m not in dir(Exception))
            lines.extend(f"    {member}{_parameters(getattr(thing, member))}" for member in members)
    return lines


def _has_own_constructor(cls: type) -> bool:
    own = [c for c in cls.__mro__ if c.__module__.startswith("seamline") and not getattr(c, "_is_protocol", False)]
    return any("__init__" in vars(c) for c in own)


def _parameters(thing: object) -> str:
    if not callable(thing):
        return ""
    if inspect.isclass(thing) and not _has_own_constructor(thing):
        return ""
    signature = inspect.signature(thing)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def test_public_names_are_as_they_were():
    """A name, a parameter or a member that came, went or changed its place shows here."""
    assert described() == FROZEN.strip().splitlines()
