"""Vectors of a base table, block by block as the server sends them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from laion.clickhouse.client import Client
from laion.clickhouse.search_table.kinds.kind import indexable
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.statements import statement
from laion.errors import ClickHouseError

Block = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def read_vectors(
    client: Client, table: str, vector: str, plan: BuildPlan, shards: tuple[int, int]
) -> Iterator[Block]:
    """Yield ids, and vectors of shape (rows, dimension), of the rows of some shards.

    `shards` are the first and the last. Rows that an index cannot hold are left out.
    Raises ClickHouseError where the server breaks off, and the driver's errors.
    """
    literals = {"indexable": indexable(plan.vectors), "ranges": "true"}
    text = statement("vectors_of_shards", table=table, column=vector, literals=literals)
    return read_blocks(client, text, plan.vectors[vector], first=shards[0], last=shards[1])


def read_blocks(client: Client, text: str, dimension: int, **parameters: int) -> Iterator[Block]:
    """Yield the columns `id` and `vector` of what a statement finds. Raises as `read_vectors`."""
    try:
        with client.query_arrow_stream(text, parameters=parameters) as blocks:
            for batch in blocks:
                rows = batch["vector"].flatten().to_numpy().reshape(-1, dimension)
                yield batch["id"].to_numpy(), rows
    except pa.ArrowException as error:
        # The server's message, in the middle of the data.
        raise ClickHouseError(f"ClickHouse broke off while it sent vectors: {error}") from error
