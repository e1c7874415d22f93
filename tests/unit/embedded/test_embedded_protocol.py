"""The HTTP interface, request by request."""

from __future__ import annotations

import json
import socket
import uuid
from urllib.parse import urlencode

import pytest
import requests

from tests.embedded_server import poll


def code_of(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.headers["X-ClickHouse-Exception-Code"]


@pytest.mark.parametrize("path", ["/ping", "/replicas_status", "/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_needs_no_password_but_the_root_does(embedded, http, path, method):
    auth = http.auth if path == "/" else None

    response = requests.request(method, embedded.url + path, auth=auth)

    assert response.status_code == 200
    assert response.text == ("Ok.\n" if method == "GET" else "")


def test_get_answers_tab_separated(embedded, http):
    response = http.get(embedded.url, params={"query": "SELECT 1, 'a\tb'"})

    assert response.text == "1\ta\\tb\n"
    assert response.headers["X-ClickHouse-Format"] == "TabSeparated"
    assert response.headers["Content-Type"].startswith("text/tab-separated-values")


def test_the_headers_of_a_server_are_there(embedded, http):
    name = str(uuid.uuid4())
    params = {"query_id": name, "wait_end_of_query": 1, "session_timezone": "Asia/Tokyo"}

    response = http.post(embedded.url, "SELECT number FROM numbers(1000)", params=params)

    assert response.headers["X-ClickHouse-Query-Id"] == name
    assert response.headers["X-ClickHouse-Timezone"] == "Asia/Tokyo"
    assert response.headers["X-ClickHouse-Server-Display-Name"]
    summary = json.loads(response.headers["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"]) == ("1000", "1000")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 FORMAT JSONEachRow SETTINGS max_threads = 1; -- FORMAT CSV", "JSONEachRow"),
        ("SELECT 1 /* FORMAT CSV */", "JSON"),
        ("SELECT 1 /* a /* b */ FORMAT CSV */", "JSON"),
        ("SELECT 1 AS $a$, $b$ FORMAT TSV $b$ FORMAT CSV", "CSV"),
        ("CREATE DATABASE IF NOT EXISTS default", None),
        ("KILL QUERY WHERE 0", None),
        ("SET max_threads = 1", None),
    ],
)
def test_the_format_header_is_there_with_a_result_set(embedded, http, sql, expected):
    response = http.post(embedded.url, sql, params={"default_format": "JSON"})

    assert response.status_code == 200
    assert response.headers.get("X-ClickHouse-Format") == expected


def test_the_format_may_be_asked_for_in_a_header(embedded, http):
    response = http.post(embedded.url, "SELECT 1", headers={"X-ClickHouse-Format": "CSVWithNames"})

    assert response.text == '"1"\n1\n'


@pytest.mark.parametrize("how", ["headers", "url"])
def test_credentials_may_come_in_headers_or_in_the_url(embedded, how):
    headers, params = {}, {"query": "SELECT 1"}
    if how == "headers":
        headers = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": embedded.password}
    else:
        params |= {"user": "default", "password": embedded.password}

    assert requests.get(embedded.url, headers=headers, params=params).text == "1\n"


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic !"}, {"X-ClickHouse-User": "default"}]
)
def test_bad_credentials_are_refused_in_the_words_of_a_server(embedded, headers):
    response = requests.post(embedded.url, "SELECT 1", headers=headers)

    assert code_of(response) == (403, "516")
    assert response.text.endswith("(AUTHENTICATION_FAILED) (version 26.9.2.1 (embedded))\n")


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT * FROM missing", 404, "60"),
        ("SELEC", 400, "62"),
        ("", 400, "62"),
        ("SELECT throwIf(1)", 500, "395"),
    ],
)
def test_errors_have_the_status_of_a_server(embedded, http, sql, status, code):
    assert code_of(http.get(embedded.url, params={"query": sql})) == (status, code)


def test_get_only_reads(embedded, http):
    for sql in ("CREATE TABLE t (a UInt8) ORDER BY a", "INSERT INTO t VALUES (1)", "DROP TABLE t"):
        assert code_of(http.get(embedded.url, params={"query": sql})) == (500, "164")


@pytest.mark.parametrize(
    "params",
    [
        {"compress": "1"},
        {"decompress": "1"},
        {"role": "r"},
    ],
)
def test_what_is_not_supported_says_so(embedded, http, params):
    response = http.post(embedded.url, "SELECT 1", params=params)

    assert code_of(response) == (501, "48")
    assert "a ClickHouse server does it" in response.text


@pytest.mark.parametrize(
    ("sql", "headers"),
    [
        ("INSERT INTO t SELECT * FROM input('a UInt8') FORMAT TSV\n1", {}),
        ("INSERT INTO t FROM INFILE '/etc/passwd' FORMAT TSV", {}),
        ("SELECT 1", {"Content-Encoding": "br"}),
    ],
)
def test_statements_that_are_not_supported_say_so(embedded, http, sql, headers):
    assert code_of(http.post(embedded.url, sql, headers=headers)) == (501, "48")


def test_parameters_without_effect_are_accepted(embedded, http):
    params = dict.fromkeys(
        ("compress", "decompress", "buffer_size", "stacktrace", "client_protocol_version"), "0"
    )

    assert http.post(embedded.url, "SELECT 1", params=params | {"quota_key": "x"}).text == "1\n"


def test_an_unknown_setting_is_refused(embedded, http):
    for name in ("nope", "max_threads = 1, max_block_size"):
        assert code_of(http.post(embedded.url, "SELECT 1", params={name: "1"})) == (404, "115")


def test_a_statement_may_be_split_between_url_and_body(embedded, http, client):
    client.command("CREATE TABLE t (a UInt64, b String) ORDER BY a")
    url, params = embedded.url, {"database": client.database}

    def post(query, body, **more):
        response = http.post(url, body, params=params | {"query": query} | more)
        assert response.text == ""
        return json.loads(response.headers["X-ClickHouse-Summary"])["written_rows"]

    assert post("INSERT INTO t FORMAT TSV", b"1\ta\n2\tb\n") == "2"
    assert post("INSERT INTO t VALUES", b"(3, concat('a', 'b'))") == "1"
    assert post("INSERT INTO t (a)", b"VALUES (4)") == "1"
    assert post("", b'INSERT INTO t FORMAT JSONEachRow\n{"a": 5}') == "1"
    assert post("INSERT INTO t SELECT 6,", b"'x'") == "1"
    assert post("INSERT INTO {n:Identifier} FORMAT TSV", b"7\ta\n", param_n="t") == "1"
    assert post("INSERT INTO t VALUES", b"(8, {s:String})", param_s="p") == "1"
    assert post("INSERT INTO t FORMAT TSV", b"") == "0"
    assert client.query("SELECT a FROM t ORDER BY a").result_columns[0] == list(range(1, 9))


def test_long_inline_values_are_streamed(embedded, http, client):
    client.command("CREATE TABLE t (a UInt64) ORDER BY a")
    rows = ",".join(f"({n})" for n in range(300_000)).encode()

    http.post(
        embedded.url, b"INSERT INTO t VALUES " + rows, params={"database": client.database}
    ).raise_for_status()

    assert client.command("SELECT count() FROM t") == 300_000


def test_forms_carry_query_and_parameters(embedded, http):
    fields = {"query": (None, "SELECT {x:String}"), "param_x": (None, "a\\tb")}

    assert http.post(embedded.url, files=fields).text == "a\\tb\n"
    urlencoded = {"query": "SELECT {x:UInt8}", "param_x": "7"}
    assert http.post(embedded.url, data=urlencoded).text == "7\n"


def test_sql_declared_to_be_a_form_is_sql(embedded, http):
    kind = {"Content-Type": "application/x-www-form-urlencoded"}

    assert http.post(embedded.url, "SELECT 1", headers=kind).text == "1\n"


def test_a_session_must_exist_when_checked(embedded, http):
    params = {"session_id": str(uuid.uuid4()), "session_check": "1"}
    assert code_of(http.post(embedded.url, "SELECT 1", params=params)) == (400, "372")

    http.post(embedded.url, "SELECT 1", params=params | {"session_check": "0"})

    assert http.post(embedded.url, "SELECT 1", params=params).text == "1\n"


def test_a_session_ends_after_its_timeout(embedded, http):
    params = {"session_id": str(uuid.uuid4()), "session_timeout": "0"}

    assert http.post(embedded.url, "SELECT 1", params=params).text == "1\n"

    checked = params | {"session_check": "1"}
    poll(lambda: http.post(embedded.url, "SELECT 1", params=checked).status_code == 400)


def test_a_session_timeout_is_checked(embedded, http):
    params = {"session_id": "s", "session_timeout": "99999"}

    assert code_of(http.post(embedded.url, "SELECT 1", params=params)) == (400, "374")


def test_a_session_keeps_its_database(embedded, http, database):
    params = {"session_id": str(uuid.uuid4())}

    def ask(sql, **more):
        return http.post(embedded.url, sql, params=params | more).text.strip()

    ask(f"USE {database}")
    assert ask("SELECT currentDatabase()") == database
    assert ask("SELECT currentDatabase()", database="system") == "system"
    assert ask("SELECT currentDatabase()") == database


class OpenRequest:
    """A POST request of which the body ends when it is told to, or never."""

    def __init__(self, server, **params: str) -> None:
        self._socket = socket.create_connection((server.host, server.port))
        self._socket.sendall(
            f"POST /?{urlencode(params)} HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: default\r\n"
            f"X-ClickHouse-Key: {server.password}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    def send_chunk(self, data: bytes) -> None:
        self._socket.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end_body(self) -> None:
        self._socket.sendall(b"0\r\n\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_error) -> None:
        self._socket.close()


@pytest.fixture
def table(client) -> str:
    client.command("CREATE TABLE t (a UInt64) ORDER BY a")
    return f"{client.database}.t"


@pytest.fixture
def runs(embedded):
    def count(query_id: str) -> bool:
        sql = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {x:String}"
        with embedded.client() as observer:
            return observer.command(sql, parameters={"x": query_id}) == 1

    return count


def test_a_session_is_locked_while_in_use(embedded, http, table, runs):
    params = {"session_id": str(uuid.uuid4()), "session_check": "1"}
    insert = {"query": f"INSERT INTO {table} FORMAT TSV", "session_id": params["session_id"]}

    with OpenRequest(embedded, query_id="locking", **insert) as request:
        request.send_chunk(b"1\n" * 1_000_000)
        poll(lambda: runs("locking"))
        assert code_of(http.post(embedded.url, "SELECT 1", params=params)) == (400, "373")

    poll(lambda: http.post(embedded.url, "SELECT 1", params=params).text == "1\n")


def test_a_query_id_cannot_run_twice(embedded, http, table, runs):
    with OpenRequest(
        embedded, query_id="twice", query=f"INSERT INTO {table} FORMAT TSV"
    ) as request:
        request.send_chunk(b"1\n" * 1_000_000)
        poll(lambda: runs("twice"))

        response = http.post(embedded.url, "SELECT 1", params={"query_id": "twice"})

    assert code_of(response) == (500, "216")


def test_an_insert_is_cancelled_when_its_client_disconnects(embedded, client, table, runs):
    with OpenRequest(embedded, query_id="left", query=f"INSERT INTO {table} FORMAT TSV") as request:
        request.send_chunk(b"1\n" * 1_000_000)
        poll(lambda: runs("left"))

    poll(lambda: not runs("left"))
    assert client.command(f"SELECT count() FROM {table}") < 1_000_000


def test_a_spooled_insert_leaves_no_file_when_its_client_disconnects(embedded, client, table):
    spool = embedded.path / "spool"
    with OpenRequest(embedded, query=f"INSERT INTO {table} FORMAT Parquet") as request:
        request.send_chunk(b"x" * 2_000_000)
        poll(lambda: list(spool.iterdir()))

    poll(lambda: not list(spool.iterdir()))
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_a_reading_query_is_cancelled_when_its_client_disconnects(embedded, runs):
    with OpenRequest(
        embedded,
        query="SELECT sum(sleepEachRow(0.1)) FROM numbers(100000) SETTINGS max_block_size = 1",
        query_id="reading",
        function_sleep_max_microseconds_per_block="0",
        cancel_http_readonly_queries_on_client_close="1",
    ) as request:
        request.end_body()
        poll(lambda: runs("reading"))

    poll(lambda: not runs("reading"))


def test_a_query_id_of_any_characters_does_not_break_the_answer(embedded, http):
    params = {"query": "SELECT 1", "query_id": "\0\u20ac\n"}

    response = http.get(embedded.url, params=params)

    assert (response.text, response.headers["X-ClickHouse-Query-Id"]) == ("1\n", "???")


def test_an_error_that_quotes_no_utf8_is_told(embedded, http):
    response = http.post(embedded.url, data=b"INSERT INTO \xbbgKALUES (1)")

    assert code_of(response) == (400, "62")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_multipart_form_that_is_none_is_refused(embedded, http, kind):
    response = http.post(embedded.url, data=b"SELECT 1", headers={"Content-Type": kind})

    assert code_of(response)[1] == "36"


def test_a_quote_that_is_never_closed_is_refused_at_once(embedded, http):
    response = http.post(embedded.url, data="SELECT 'it" + "s" * 100, timeout=10)

    assert code_of(response) == (400, "62")


@pytest.mark.parametrize("settings", [{"readonly": "2"}, {"allow_ddl": "0"}])
def test_what_a_request_may_not_do_does_not_hold_for_the_next(embedded, http, settings):
    assert http.post(embedded.url, "SELECT 1", params=settings).text == "1\n"
    assert http.post(embedded.url, "SELECT 2").text == "2\n"
