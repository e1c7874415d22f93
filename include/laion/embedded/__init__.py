"""The embedded ClickHouse: a stand-in for a ClickHouse server on one machine.

One small process owns the chDB engine (ClickHouse in-process, which locks its data directory
to one process) and speaks the ClickHouse HTTP interface on loopback, as far as
``clickhouse-connect`` and Airflow's ClickHouse hook use it. It is for trying the product and for
testing it; production uses a ClickHouse server.

Known differences from a server:

* There is one user, ``default``, and one trust domain: ``file()`` and ``url()`` reach whatever
  the process may reach.
* The engine names its queries itself. A client's ``query_id`` is echoed in
  ``X-ClickHouse-Query-Id`` and, unless the request sets its own ``log_comment``, is found in the
  ``log_comment`` column of ``system.query_log`` and in ``Settings['log_comment']`` of
  ``system.processes``. A read-only query with its own ``log_comment`` is not cancelled when its
  client goes away, except between two streamed blocks.
* Results are streamed for Native, TabSeparated, CSV, RowBinary and JSONEachRow. Any other format
  is built in memory before the first byte is sent.
* Statements run in 64 threads. An INSERT holds one from its first byte to its last.
* Not there, and answered with ``NOT_IMPLEMENTED``: external data, native block compression
  (``compress=1``, ``decompress=1``), ``role``, Brotli, ``INSERT … FROM input()``,
  ``INTO OUTFILE``, ``FROM INFILE``, and query parameters in an INSERT with more than 1 MiB of
  data.

Start it with ``python -m laion.embedded --path DIR --port N``.
"""
