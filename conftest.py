"""Airflow reads its home when it is first imported: give the tests one of their own before."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_home = tempfile.mkdtemp(prefix="laion-airflow-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": _home,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}
for _name in [name for name in os.environ if name.startswith(("LAION_", "AIRFLOW_CONN_"))]:
    if _name != "LAION_REAL_SAMPLES":
        del os.environ[_name]
