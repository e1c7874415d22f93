"""A source, a ClickHouse, proxies before both, and runs whose tasks are processes of their own.

run = world.start_run("0")
world.clickhouse.on(b"REPLACE PARTITION", world.kill_worker)
run.load_shards()
world.expect(published=[0])
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil

from laion.backfill import BackfillRequest, ShardRepair, plan_backfill
from laion.orchestration.params import ingest_params
from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.web.board import STATES, TableChoice, read_board
from tests.embedded_server import EmbeddedServer
from tests.receivers import WebHook
from tests.system.faults import checker
from tests.system.faults.checker import ClickHouse, Reader, Seen
from tests.system.faults.proxy import Action, FaultProxy, Passage, Rule
from tests.system.faults.tasks import Order, Outcome, run_task

TABLE = "faulty"
DIMENSION = 64
ROWS = 3000
RETRIES = 3
FIRST_DELAY_S = 0.3
GRACE_S = 1.0
"""Between SIGTERM and SIGKILL; Airflow's supervisor gives five seconds."""
TASK_TIMEOUT_S = 90
PATIENCE_S = 5
"""How long a task waits for an answer of ClickHouse; the driver's default is 300."""
STAGES = ("download_shard", "convert_shard", "load_shard", "validate_shard")

PARAMS: dict[str, Any] = {
    **{name: param.value for name, param in ingest_params().items()},
    "dataset": "clip_retrieval",
    "table": TABLE,
    "build_index": False,
    "index_kind": "hnsw",
    "index_quantization": "f32",
    "recall_target": 0.5,
    "deploy_udfs": False,
}

fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["tests.system.faults.tasks"])


@dataclass
class Worker:
    """A task process, for faults that end it."""

    process: Any
    task: str

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        """End it as Airflow's supervisor does: SIGTERM, and SIGKILL after a while."""
        self.process.terminate()
        self.process.join(GRACE_S)
        self.process.kill()


@dataclass
class World:
    """Everything that a scenario needs. `told` collects what happened, for the matrix."""

    directory: Path
    source: Path
    server: EmbeddedServer
    database: str
    clickhouse: FaultProxy
    mirror: FaultProxy
    env: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    run_states: dict[str, str] = field(default_factory=dict)
    source_url: str = ""
    clock_ahead_s: float = 0
    file_limit_bytes: int = 0
    told: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    whole: set[tuple[int, Seen]] = field(default_factory=set)
    readers: list[Reader] = field(default_factory=list)
    hook: WebHook | None = None

    @property
    def staging(self) -> Path:
        return self.directory / "staging"

    @property
    def direct(self) -> ClickHouse:
        """The database, by the back door."""
        return ClickHouse(self.server.url, self.server.password, self.database)

    def tell(self, what: str) -> None:
        self.told.append(what)

    # What a scenario sets up

    def write_shards(self, *rows: int, seed: int = 1, dimension: int = DIMENSION) -> None:
        for shard, count in enumerate(rows):
            write_shard(self.source, shard, count, made_up_embeddings(dimension), seed=seed)

    def new_run(self, shards: str = "0", *, run_id: str = "", **params: Any) -> Run:
        """Return a run that was triggered, and of which no task has run yet."""
        source = self.source_url or f"http://127.0.0.1:{self.mirror.port}/{self.source.name}"
        chosen = {**PARAMS, "shards": shards, "source": source, **params}
        run = Run(self, run_id or f"manual__{uuid.uuid4().hex[:6]}", chosen)
        self.run_states[run.run_id] = "running"
        return run

    def start_run(self, shards: str = "0", **params: Any) -> Run:
        """Plan a run. Its tasks are run by the methods of what is returned."""
        run = self.new_run(shards, **params)
        planned = run.run_task("plan")
        assert planned.state == "success", planned
        run.specs = planned.value
        return run

    def during(self, task: str, pattern: bytes, action: Action, **where: Any) -> Rule:
        """Do something when a process of this task sends such a request to ClickHouse."""
        return self.clickhouse.on(pattern, action, when=lambda: self._runs(task), **where)

    def downloading(self, pattern: bytes, action: Action, **where: Any) -> Rule:
        """Do something when download_shard sends such a request to the source."""
        return self.mirror.on(pattern, action, when=lambda: self._runs("download_shard"), **where)

    def _runs(self, task: str) -> bool:
        return bool(self.workers) and self.workers[-1].task == task

    # What may happen

    def kill_worker(self, _: Passage | None = None) -> None:
        """SIGKILL the youngest task process, as the kernel does when memory is short."""
        self._end_worker("SIGKILL", Worker.kill)

    def terminate_worker(self, _: Passage | None = None) -> None:
        """SIGTERM, then SIGKILL: a worker that is scaled down, a task that is cleared."""
        self._end_worker("SIGTERM", Worker.terminate)

    def _end_worker(self, name: str, end: Any) -> None:
        worker = self.workers[-1]
        self.tell(f"{name} in {worker.task}")
        threading.Thread(target=end, args=(worker,)).start()
        time.sleep(0.05)

    def crash_server(self, _: Passage | None = None, *, down_s: float = 0.2) -> None:
        """SIGKILL ClickHouse and start it again on the same data and port."""
        self.tell("ClickHouse crashed and came back")
        port = self.server.port
        self.server.kill()
        time.sleep(down_s)
        self.server.start(port)

    def cut(self, passage: Passage) -> None:
        self.tell("connection reset")
        passage.cut()

    # What must hold

    @contextmanager
    def read(self, table: str = TABLE, columns: str = checker.EVERYTHING) -> Iterator[Reader]:
        """Read the table all the time, as users do."""
        with Reader(self.direct, table, columns) as reader:
            yield reader
        self.readers.append(reader)

    def verify(self, published: list[int], table: str = TABLE) -> None:
        """These shards and no others are in, equal to the source in every value."""
        held = checker.held_shards(self.direct, table)
        assert sorted(held) == published
        wrong = [
            problem
            for shard in published
            for problem in checker.compare_shard(self.direct, table, self.source, shard)
        ]
        assert wrong == []
        self.whole |= {(shard, held[shard]) for shard in published}

    def expect(
        self, published: list[int], *, clean: bool = True, agrees: bool = True, table: str = TABLE
    ) -> None:
        """Check all invariants. `clean`: nothing is left over; `agrees`: the ledger and the board
        tell what the table holds."""
        self.verify(published, table)
        for reader in self.readers:
            if reader.table == table:
                assert reader.judge(self.whole) == []
                self.tell(f"{reader.reads} reads saw whole shards only")
        if agrees:
            assert checker.judge_ledger(self.direct, table) == []
            self._judge_board(published, table)
        if clean:
            assert checker.left_tables(self.direct) == []
            assert checker.left_files(self.staging) == []
        assert self.left_processes() == []
        self.tell(f"published: {len(published)} of the source's shards, every value equal")

    def _judge_board(self, published: list[int], table: str) -> None:
        with self.client() as client:
            board = read_board(client, TableChoice(table, "clip_retrieval"), active_runs=[])
        states = {cell[0]: STATES[cell[1]] for cell in board.changes.cells}
        # Zeros at the end of a cell are left out.
        held = {cell[0]: cell[3] for cell in board.changes.cells if len(cell) > 3 and cell[2]}
        assert sorted(held) == published
        for shard, state in states.items():
            good = state in ("validated", "failed") if shard in held else state != "validated"
            assert good, f"the board calls shard {shard} {state}"

    def backfill_plan(self, table: str = TABLE) -> list[ShardRepair]:
        """Return what backfill would do."""
        with self.client() as client:
            return plan_backfill(client, BackfillRequest(table=table, quiet_s=0))

    def left_processes(self) -> list[str]:
        """Return task processes that are still there."""
        for worker in self.workers:
            worker.process.join(GRACE_S)
        return [
            worker.task for worker in self.workers if psutil.pid_exists(worker.process.pid or 0)
        ]

    @contextmanager
    def client(self) -> Iterator[Any]:
        with clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.server.port,
            password=self.server.password,
            database=self.database,
            autogenerate_session_id=False,
        ) as client:
            yield client


@dataclass
class Run:
    """A run of `laion_ingest`: what the scheduler does with its tasks, and nothing more."""

    world: World
    run_id: str
    params: dict[str, Any]
    specs: list[dict[str, Any]] = field(default_factory=list)
    tries: dict[tuple[str, int], int] = field(default_factory=dict)
    values: dict[tuple[str, int], Any] = field(default_factory=dict)

    def load_shards(self, *, at_once: int = 1) -> list[Outcome]:
        """Run the task group of every planned shard; return how each ended."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(self.load_shard, range(len(self.specs))))

    def load_shard(self, index: int, stages: tuple[str, ...] = STAGES) -> Outcome:
        """Run these tasks of one shard in order, until one fails for good."""
        argument = (
            self.specs[index] if stages[0] == STAGES[0] else self.values[_before(stages[0]), index]
        )
        for stage in stages:
            ended = self.run_task(stage, argument, index)
            if ended.state != "success":
                return ended
            argument = self.values[stage, index] = ended.value
        return ended

    def clear(self, index: int, stages: tuple[str, ...]) -> Outcome:
        """Run tasks again that have ended, as after *Clear* in the UI."""
        return self.load_shard(index, stages)

    def confirm(self) -> Outcome:
        """Run the gate; the run ends with it."""
        ended = self.run_task("confirm_shards")
        self.world.run_states[self.run_id] = ended.state
        return ended

    def run_task(self, task: str, argument: Any = None, index: int = -1) -> Outcome:
        """Run a task until it succeeds or fails for good, waiting as the retry policy says."""
        first = self.tries.get((task, index), 0) + 1
        last = first + RETRIES
        for number in range(first, last + 1):
            while (ended := self.attempt(task, argument, index, number, last - 1)).state == (
                "up_for_reschedule"
            ):
                time.sleep(0.1)
            self.tries[task, index] = number
            if ended.state in ("success", "skipped", "failed"):
                break
            if ended.state == "killed":
                ended = Outcome("failed", error_class="killed")
            else:
                self.world.tell(f"{task} try {number}: {ended.error_class}")
                time.sleep(ended.delay_s)
        if ended.state == "failed":
            self.world.tell(f"{task} failed for good: {ended.error_class}")
        elif number > first:
            self.world.tell(f"{task} succeeded on try {number}")
        return ended

    def attempt(
        self, task: str, argument: Any = None, index: int = -1, number: int = 1, max_tries: int = 0
    ) -> Outcome:
        """Run a task once, in a process of its own."""
        world = self.world
        name = world.directory / "tasks" / f"{self.run_id}-{task}-{index}-{number}"
        name.parent.mkdir(exist_ok=True)
        outcome = name.with_suffix(".json")
        outcome.unlink(missing_ok=True)
        order = Order(
            task=task,
            run_id=self.run_id,
            params=self.params,
            env={**world.env, **_connection(world)},
            outcome=outcome,
            log=name.with_suffix(".log"),
            argument=argument,
            try_number=number,
            max_tries=max_tries,
            map_index=index,
            run_states=world.run_states,
            clock_ahead_s=world.clock_ahead_s,
            file_limit_bytes=world.file_limit_bytes,
        )
        process = fork.Process(target=run_task, args=(order,))
        process.start()
        world.workers.append(Worker(process, task))
        process.join(TASK_TIMEOUT_S)
        assert process.exitcode is not None, f"{task} hangs"
        if not outcome.exists():
            ends = (-signal.SIGKILL, -signal.SIGXFSZ)
            assert process.exitcode in ends, f"{task} ended with {process.exitcode}"
            return Outcome("killed")
        return Outcome(**json.loads(outcome.read_text()))


def _before(stage: str) -> str:
    return STAGES[STAGES.index(stage) - 1]


def _connection(world: World) -> dict[str, str]:
    target = {
        **world.server.airflow_connection,
        "port": world.clickhouse.port,
        "schema": world.database,
        "extra": {"connect_timeout": 3, "send_receive_timeout": PATIENCE_S, **world.extra},
    }
    return {
        "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": json.dumps(target),
        "LAION_STAGING_URI": world.staging.as_uri(),
        "LAION_RETRIES": str(RETRIES),
        "LAION_RETRY_DELAY_S": str(FIRST_DELAY_S),
        "LAION_READ_TIMEOUT_S": "1",
        "LAION_CONNECT_TIMEOUT_S": "2",
        "LAION_MAX_SHARDS_IN_FLIGHT": "4",
        "LAION_ALERT_SETTLE_S": "0",
        **{name: os.environ[name] for name in ("AIRFLOW_HOME",)},
        **world.env,
    }
