"""Records travel as CloudEvents: what the official SDK writes we read, what we write it reads, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline.events.cloudevents import (
    BATCH,
    STRUCTURED,
    attributes,
    check_headers,
    check_text,
    from_batch,
    from_headers,
    from_http,
    from_kafka,
    from_structured,
    time_of,
    time_text,
    to_batch,
    to_headers,
    to_kafka,
    to_structured,
)
from seamline.events.errors import CloudEventError
from seamline.events.record import Record

PLACED = Record(
    id="01JQ",
    source="orders",
    type="OrderPlaced",
    data=b'{"order_id":"7","total":"12.50"}',
    time_ms=1_772_366_400_123,
    key="7",
    version=2,
    trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    due_ms=1_772_366_460_000,
    expires_ms=1_772_370_000_000,
    headers={"tenant": "Zürich 100%", "subject": 'the "first"'},
)
SDK = JSONFormat()

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=30)
modules = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
types = st.from_regex(r"[A-Z][A-Za-z0-9_]{0,20}", fullmatch=True)
times = st.integers(0, 253_402_300_799_999)
names = st.from_regex(r"x[a-z0-9]{1,15}", fullmatch=True)
datas = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none()).map(msgspec.json.encode)
own_records = st.builds(
    Record,
    id=texts,
    source=modules,
    type=types,
    data=datas,
    time_ms=times,
    key=st.just("") | texts,
    version=st.integers(1, 99),
    trace=st.just("") | st.just(PLACED.trace),
    due_ms=times,
    expires_ms=times,
    headers=st.dictionaries(names, texts, max_size=3),
)
foreign_records = st.builds(
    Record,
    id=texts,
    source=st.sampled_from(["https://github.com/cloudevents/spec/pull", "urn:uuid:6e8bc430", "/sensors/tn-1", "./a"]),
    type=texts,
    data=st.binary(max_size=40),
    time_ms=times,
    headers=st.dictionaries(names, texts, max_size=3).map(lambda found: found | {"datacontenttype": "image/png"}),
)
records = own_records | foreign_records


def test_an_event_of_ours_has_the_attributes_that_the_documentation_says():
    assert attributes(PLACED, "shop") == {
        "specversion": "1.0",
        "id": "01JQ",
        "source": "/shop/orders",
        "type": "shop.orders.OrderPlaced",
        "time": "2026-03-01T12:00:00.123Z",
        "dataschema": "urn:seamline:shop:orders:OrderPlaced:2",
        "partitionkey": "7",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "expirytime": "2026-03-01T13:00:00.000Z",
        "duetime": "2026-03-01T12:01:00.000Z",
        "tenant": "Zürich 100%",
        "subject": 'the "first"',
        "datacontenttype": "application/json",
    }


def test_headers_are_printable_ascii_with_the_rest_percent_encoded():
    headers = to_headers(PLACED, "shop")
    assert headers["ce-tenant"] == "Z%C3%BCrich%20100%25"
    assert headers["ce-subject"] == "the%20%22first%22"
    assert headers["content-type"] == "application/json"
    assert "ce-datacontenttype" not in headers


@given(records)
def test_a_record_comes_back_as_it_was_in_every_form(record: Record):
    assert from_headers(to_headers(record, "shop"), record.data) == record
    assert from_kafka(to_kafka(record, "shop"), record.data) == record
    assert from_structured(to_structured(record, "shop")) == record
    assert from_batch(to_batch([record, record], "shop")) == [record, record]


@given(records)
def test_headers_are_safe_for_http(record: Record):
    for name, value in to_headers(record, "shop").items():
        assert all("!" <= character <= "~" for character in name + value.replace(" ", ""))


def said_by_sdk(event: Any) -> dict[str, str]:
    """The attributes as the SDK understood them, in our words: it has datetimes."""
    found = dict(event.get_attributes())
    found["time"] = time_text(round(found["time"].timestamp() * 1000))
    return found


@given(own_records.filter(lambda record: record.time_ms > 0))
@settings(max_examples=50)
def test_the_official_sdk_reads_what_we_write(record: Record):
    wanted, data = attributes(record, "shop"), json.loads(record.data)
    binary = http.from_binary_event(http.HTTPMessage(to_headers(record, "shop"), record.data))
    assert said_by_sdk(binary) == wanted
    assert (binary.get_data() or {}) == data
    structured = http.from_structured_event(
        http.HTTPMessage({"content-type": STRUCTURED}, to_structured(record, "shop"))
    )
    assert said_by_sdk(structured) == wanted
    assert structured.get_data() == data


@given(st.dictionaries(names, texts, max_size=3), texts, texts, datas)
@settings(max_examples=50)
def test_we_read_what_the_official_sdk_writes(extensions: dict[str, str], id_: str, subject: str, data: bytes):
    event = CloudEvent(
        {
            "id": id_,
            "source": "https://example.com/sensors",
            "type": "com.example.read",
            "time": datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC),
            "datacontenttype": "application/json",
            "subject": subject,
            **extensions,
        },
        json.loads(data),
    )
    expected = Record(
        id=id_,
        source="https://example.com/sensors",
        type="com.example.read",
        data=b"",
        time_ms=1_772_366_400_123,
        headers={"subject": subject, **extensions},
    )
    for message in (http.to_binary_event(event), http.to_structured_event(event)):
        (record,) = from_http(message.headers, message.body)
        assert json.loads(record.data or b"{}") == json.loads(data)
        assert msgspec.structs.replace(record, data=b"") == expected
    message = kafka.to_structured_event(event)
    headers = list(message.headers.items())
    assert msgspec.structs.replace(from_kafka(headers, message.value), data=b"") == expected


def test_kafka_messages_are_understood_both_ways():
    headers = dict(to_kafka(msgspec.structs.replace(PLACED, headers={"tenant": "north"}), "shop"))
    event = kafka.from_binary_event(kafka.KafkaMessage(cast("Any", headers), b"7", PLACED.data))
    assert event.get_type() == "shop.orders.OrderPlaced"
    assert event.get_data() == {"order_id": "7", "total": "12.50"}
    message = kafka.to_binary_event(CloudEvent({"id": "1", "source": "/a", "type": "b", "partitionkey": "k"}, {"x": 1}))
    record = from_kafka(list(message.headers.items()), b'{"x": 1}')
    assert (record.id, record.source, record.type, record.key) == ("1", "/a", "b", "k")


def test_foreign_data_keeps_its_bytes_and_its_media_type():
    text = from_structured(b'{"specversion":"1.0","id":"1","source":"/a","type":"b","datacontenttype":"text/plain",'
                           b'"data":"gr\\u00fc\\u00dfe"}')  # fmt: skip
    assert text.data.decode() == "grüße"
    assert text.headers == {"datacontenttype": "text/plain"}
    binary = from_structured(b'{"specversion":"1.0","id":"1","source":"/a","type":"b","data_base64":"AP8="}')
    assert binary.data == b"\x00\xff"
    quoted = from_structured(b'{"specversion":"1.0","id":"1","source":"/a","type":"b","data":"7"}')
    assert quoted.data == b'"7"'
    assert from_structured(to_structured(quoted, "shop")) == quoted


def test_json_that_is_none_travels_as_bytes():
    record = msgspec.structs.replace(PLACED, data=b'{"torn":')
    assert from_structured(to_structured(record, "shop")) == record


def test_a_stranger_cannot_be_taken_for_a_module():
    record = from_structured(b'{"specversion":"1.0","id":"1","source":"orders","type":"OrderPlaced"}')
    assert (record.source, record.type) == ("./orders", "OrderPlaced")
    assert attributes(record, "shop")["source"] == "./orders"


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-03-01t12:00:00.1239999z", 1_772_366_400_123),
        ("2026-03-01T14:30:00.5+02:30", 1_772_366_400_500),
        ("2026-03-01T02:00:00-10:00", 1_772_366_400_000),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("1969-12-31T23:59:59.500Z", -500),
    ],
)
def test_times_are_read_as_rfc_3339_has_them(text: str, time_ms: int):
    assert time_of(text) == time_ms


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-03-01", "2026-03-01T12:00:00", "2026-02-30T12:00:00Z", "20260301T120000Z",
        "2026-03-01T12:00:00+24:00", "2026-03-01T12:00Z", "٢٠٢٦-03-01T12:00:00Z", "0001-01-01T00:00:00+01:00",
        "0000-01-01T00:00:00Z", "2026-03-01T25:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(CloudEventError, match="not a time"):
        time_of(text)


def test_a_time_beyond_all_years_is_refused():
    with pytest.raises(CloudEventError, match="years 1 to 9999"):
        time_text(10**18)


GOOD = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "b"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "no specversion"),
        (GOOD | {"ce-specversion": "0.3"}, "specversion is '0.3'"),
        (GOOD | {"ce-id": ""}, "no id"),
        ({name: value for name, value in GOOD.items() if name != "ce-type"}, "no type"),
        (GOOD | {"ce-some_name": "x"}, "'some_name' cannot be"),
        (GOOD | {"ce-data": "x"}, "'data' cannot be"),
        (GOOD | {"ce-": "x"}, "'' cannot be"),
        (GOOD | {"ce-time": "noon"}, "not a time"),
        (GOOD | {"ce-subject": "%FF"}, "not UTF-8"),
        (GOOD | {"content-type": "application/cloudevents+avro"}, "content type is"),
        (GOOD | {"content-type": STRUCTURED}, "not a JSON object"),
        (GOOD | {"content-type": BATCH + "; charset=utf-8"}, "not a JSON array"),
    ],
)
def test_what_is_no_cloudevent_is_refused_with_the_reason(headers: dict[str, str], said: str):
    with pytest.raises(CloudEventError, match=said):
        from_http(headers, b"{")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "not a JSON object"),
        (b'{"specversion":1.0}', "'specversion' is b'1.0'"),
        (b'{"specversion":"1.0","id":{},"source":"a","type":"b"}', "'id' is"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"b","data":1,"data_base64":"AA=="}', "both data"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"b","data_base64":"!"}', "not base64"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"b","Name":"x"}', "'Name' cannot be"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"b","n":99999999999}', "'n' is"),
        (b"\xff", "not a JSON object"),
    ],
)
def test_json_that_is_no_cloudevent_is_refused_with_the_reason(body: bytes, said: str):
    with pytest.raises(CloudEventError, match=said):
        from_structured(body)


def test_a_batch_names_the_place_of_what_is_wrong():
    good = to_structured(PLACED, "shop")
    with pytest.raises(CloudEventError, match="event 1 of the batch: it has no specversion"):
        from_batch(b"[" + good + b",{}]")


def test_quoted_values_and_numbers_are_read():
    record = from_headers({"CE-SpecVersion": "1.0", "ce-id": '"a \\"b\\""', "ce-source": "/a", "ce-type": "b"}, b"")
    assert record.id == 'a "b"'
    assert from_structured(
        b'{"specversion":"1.0","id":"1","source":"/a","type":"b","n":5,"t":true,"z":null}'
    ).headers == {
        "n": "5",
        "t": "true",
    }


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["specversion", "id", "source", "type", "time", "data", "data_base64", "x"]), inner),
    max_leaves=10).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_input_raises_anything_else(body: bytes):
    headers = {name: body.decode("latin-1") for name in ("ce-id", "ce-time", "content-type", "ce-source", "ce-type")}
    for content_type in (STRUCTURED, BATCH, headers["content-type"]):
        with contextlib.suppress(CloudEventError):
            from_http(headers | {"ce-specversion": "1.0", "content-type": content_type}, body)


@pytest.mark.parametrize(
    "headers",
    [{"ID": "x"}, {"id": "x"}, {"time": "x"}, {"data": "x"}, {"a-b": "x"}, {"": "x"}, {"a": ""}, {"a": "x\n"}],
)
def test_headers_that_cannot_travel_are_refused(headers: dict[str, str]):
    with pytest.raises(CloudEventError):
        check_headers(headers)


@pytest.mark.parametrize(
    "change", [{"id": "a\x00"}, {"key": "a\n"}, {"type": "\x85"}, {"headers": {"a": "\x7f"}}, {"source": "\ufffe"}]
)
def test_control_characters_from_outside_are_found(change: dict[str, Any]):
    check_text(PLACED)
    with pytest.raises(CloudEventError, match="control characters"):
        check_text(msgspec.structs.replace(PLACED, **change))
