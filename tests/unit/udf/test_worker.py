"""The worker as a process: rows in, as many rows out, whatever the rows hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from laion.encoders.model import TEXT_MODEL
from laion.encoders.text import load_text_encoder
from laion.errors import BadSetting
from laion.udf.bundle import build_bundle
from laion.udf.rowbinary import encode_varuint
from laion.udf.worker import MAX_COMPLAINTS, TEXT_WINDOW_ROWS
from tests.models import DIMENSION
from tests.unit.udf.conftest import StartWorker

ODD_TEXTS = [
    "",
    " ",
    "\t\n\r\n",
    "tab\there\nand there",
    "\x00\x01\x02",
    "😍👩\u200d🚀",
    "'; DROP TABLE x; --",
    "x" * 100_000,
    "5\n",
    "<|endoftext|>",
]


class TestText:
    def test_gives_what_the_encoder_gives(self, start_worker: StartWorker, model: Path) -> None:
        texts = ["a cat", "two dogs in the snow", *ODD_TEXTS]
        expected = load_text_encoder(model).encode(texts)

        vectors = start_worker("encode_text").call(*texts)

        assert np.array(vectors) == pytest.approx(expected, abs=1e-5)

    def test_a_bad_row_is_empty_and_changes_no_other(self, start_worker: StartWorker) -> None:
        worker = start_worker("encode_text")
        alone = worker.call("first")[0], worker.call("last")[0]

        vectors = worker.call("first", b"\xff\xfe", b"caf\xc3", "last")

        assert [len(vector) for vector in vectors] == [DIMENSION, 0, 0, DIMENSION]
        assert vectors[0] == pytest.approx(alone[0], abs=1e-6)
        assert vectors[3] == pytest.approx(alone[1], abs=1e-6)
        assert r"encode_text: row 1: b'\xff\xfe':" in worker.end()[1]

    def test_never_writes_a_row_too_many(self, start_worker: StartWorker) -> None:
        """One row too many would be taken for the first result of the next query."""
        worker = start_worker("encode_text")
        for rows in (["a"], [], ["b", b"\xff"], ODD_TEXTS, ["c"] * (TEXT_WINDOW_ROWS + 1)):
            worker.call(*rows)
            assert not worker.has_more_output()

        again = worker.call("the next query")[0]

        assert again == pytest.approx(start_worker("encode_text").call("the next query")[0])

    def test_rows_beyond_a_window_keep_their_order(self, start_worker: StartWorker) -> None:
        texts = [f"{'word ' * (n % 7)}{n}" for n in range(2 * TEXT_WINDOW_ROWS + 3)]
        worker = start_worker("encode_text")

        vectors = worker.call(*texts)

        for row in (0, 5, TEXT_WINDOW_ROWS, 2 * TEXT_WINDOW_ROWS + 2):
            assert vectors[row] == pytest.approx(worker.call(texts[row])[0], abs=1e-5)

    def test_a_chunk_of_bad_rows_is_told_in_few_lines(self, start_worker: StartWorker) -> None:
        worker = start_worker("encode_text")
        assert all(len(vector) == 0 for vector in worker.call(*[b"\xff"] * 5000))

        code, errors = worker.end()

        assert code == 0
        assert len(errors.splitlines()) == MAX_COMPLAINTS + 1
        assert errors.endswith("and 4990 more rows without a result\n")

    def test_a_row_cannot_forge_a_line_of_the_log(self, start_worker: StartWorker) -> None:
        worker = start_worker("encode_text")
        worker.call(b"\xff\nencode_text: all is well")

        assert len(worker.end()[1].splitlines()) == 1


class TestProcess:
    def test_ends_with_its_input(self, start_worker: StartWorker) -> None:
        assert start_worker("encode_text").end() == (0, "")

    def test_does_not_keep_the_servers_environment(self, start_worker: StartWorker) -> None:
        worker = start_worker("encode_text")
        worker.call("started")

        environment = Path(f"/proc/{worker.pid}/environ").read_bytes()

        assert b"secret" not in environment
        assert b"CLICKHOUSE" not in environment

    def test_keeps_clickhouses_pipe_from_everything_else(self, start_worker: StartWorker) -> None:
        worker = start_worker("encode_text")
        worker.call("started")
        links = {fd: (Path(f"/proc/{worker.pid}/fd") / fd).readlink() for fd in ("0", "1", "2")}

        assert str(links["0"]) == "/dev/null"
        assert links["1"] == links["2"]

    def test_loads_nothing_of_the_product_but_the_bundle(
        self, tmp_path: Path, bundle_bytes: bytes
    ) -> None:
        bundle = tmp_path / "bundle.pyz"
        bundle.write_bytes(bundle_bytes)
        program = (
            "import sys; sys.path.insert(0, sys.argv[1]); import laion.udf.worker; "
            "print([m for m in sys.modules if m.split('.')[0] in "
            "('airflow', 'clickhouse_connect', 'pydantic', 'pyarrow', 'huggingface_hub', 'onnx')]);"
            "print({m.__file__.startswith(sys.argv[1]) for n, m in sys.modules.items() "
            "if n.split('.')[0] in ('laion', 'ftfy', 'wcwidth')})"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, bundle], capture_output=True, text=True
        )

        assert done.stdout.splitlines() == ["[]", "{True}"], done.stderr

    @pytest.mark.parametrize("function", ["", "encode_sound"])
    def test_an_unknown_function_is_an_error(
        self, start_worker: StartWorker, function: str
    ) -> None:
        code, errors = start_worker(function).end()

        assert code == 1
        assert "cannot start" in errors

    def test_a_missing_model_is_an_error(self, start_worker: StartWorker, tmp_path: Path) -> None:
        code, errors = start_worker("encode_text", model_dir=str(tmp_path / "none")).end()

        assert code == 1
        assert "there is no model in" in errors

    def test_an_altered_model_is_an_error(
        self, start_worker: StartWorker, model: Path, tmp_path: Path
    ) -> None:
        altered = tmp_path / "altered"
        shutil.copytree(model, altered)
        with (altered / TEXT_MODEL).open("r+b") as file:
            file.seek(1000)
            file.write(b"\x00\x01\x02\x03")

        code, errors = start_worker("encode_text", model_dir=str(altered)).end()

        assert code == 1
        assert "is not the file that the manifest names" in errors

    def test_options_that_are_none_are_an_error(
        self, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        start_worker("encode_text").end()
        (tmp_path / "laion_udf_test.json").write_text('{"model": 1}')
        bundle = tmp_path / "laion_udf_test.pyz"

        done = subprocess.run([bundle, "encode_text"], input=b"", capture_output=True)

        assert done.returncode == 1
        assert b"cannot start: TypeError" in done.stderr

    def test_a_chunk_cut_off_by_a_dying_server_is_not_answered(
        self, start_worker: StartWorker
    ) -> None:
        worker = start_worker("encode_text")
        worker.send(b"2\n" + encode_varuint(3) + b"one" + encode_varuint(9) + b"half")

        code, errors = worker.end()

        assert code == 1
        assert "EOFError" in errors


class TestBundle:
    def test_is_the_same_each_time(self, bundle_bytes: bytes) -> None:
        assert build_bundle(sys.executable) == bundle_bytes

    def test_depends_on_the_interpreter(self, bundle_bytes: bytes) -> None:
        assert build_bundle("/usr/bin/python3") != bundle_bytes
        assert build_bundle("/usr/bin/python3").startswith(b"#!/usr/bin/python3 -I\n")

    def test_holds_nothing_that_knows_airflow(self, tmp_path: Path, bundle_bytes: bytes) -> None:
        path = tmp_path / "bundle.pyz"
        path.write_bytes(bundle_bytes)
        with zipfile.ZipFile(path) as bundle:
            ours = [name for name in bundle.namelist() if name.startswith("laion/")]
            sources = [bundle.read(name) for name in ours]

        assert not any(
            b"import airflow" in source or b"from airflow" in source for source in sources
        )
        assert {name.split("/")[1] for name in ours} == {
            "__init__.py",
            "errors.py",
            "encoders",
            "udf",
        }

    @pytest.mark.parametrize(
        "python", ["", "python3", "/usr/bin/my python", "/usr/bin/python\n", "/" + "x" * 300]
    )
    def test_refuses_what_no_script_can_name(self, python: str) -> None:
        with pytest.raises(BadSetting, match="LAION_UDF_PYTHON"):
            build_bundle(python)
