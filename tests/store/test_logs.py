"""Log lines are JSON, one event each, with the ids of what they are about."""

import json
import logging
import subprocess
import sys
import textwrap
from typing import Any

from models_store.process.logs import JOB_ID, REQUEST_ID, JsonFormatter, log_context


def line(message: str, *args: object, **extra: object) -> dict[str, Any]:
    record = logging.LogRecord("a.b", logging.INFO, "file", 1, message, args, None)
    vars(record).update(extra)
    text = JsonFormatter("api").format(record)
    assert text.isascii()
    assert "\n" not in text
    result: dict[str, Any] = json.loads(text)
    return result


def run(program: str) -> list[dict[str, Any]]:
    result = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == ""
    return [json.loads(text) for text in result.stderr.splitlines()]


def test_a_line_tells_when_who_and_what() -> None:
    fields = line("%d rows", 3)
    assert fields.pop("time").endswith("Z")
    assert fields == {"level": "INFO", "process": "api", "logger": "a.b", "message": "3 rows"}


def test_a_message_cannot_forge_a_line_or_reach_the_terminal() -> None:
    evil = 'a\r\n{"level": "CRITICAL"}\u2028\x1b[31m\x00\ud800'
    assert line("%s", evil)["message"] == evil


def test_lines_carry_the_ids_of_their_context() -> None:
    with log_context(request_id="req-1", job_id="job-1"):
        inside = line("x")
        with log_context(request_id="req-2"):
            assert line("x")["request_id"] == "req-2"
            assert "job_id" not in line("x")
        assert line("x")["job_id"] == "job-1"
    assert (inside["request_id"], inside["job_id"]) == ("req-1", "job-1")
    assert (REQUEST_ID.get(), JOB_ID.get()) == (None, None)
    with log_context(traceparent=f"00-{'a' * 32}-{'b' * 16}-01"):
        traced = line("x")
    assert (traced["trace_id"], traced["span_id"]) == ("a" * 32, "b" * 16)


def test_extra_fields_stand_beside_the_message_and_replace_none() -> None:
    fields = line("x", seconds=0.5, path="/v1", level="fake", bad=float("nan"), other={1})
    assert (fields["seconds"], fields["path"]) == (0.5, "/v1")
    assert (fields["level"], fields["bad"], fields["other"]) == ("INFO", "nan", "{1}")


def test_a_process_logs_json_only_and_its_libraries_are_quiet() -> None:
    lines = run("""
        import logging, warnings
        from models_store.process.logs import configure_logging
        logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
        for _ in range(2):
            configure_logging("INFO", "worker")
        logging.getLogger("workers.main").debug("hidden")
        logging.getLogger("workers.main").info("shown")
        logging.getLogger("kombu.mixins").info("hidden")
        logging.getLogger("uvicorn.access").info("hidden")
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("celery.worker").warning("told")
        warnings.warn("careful")
    """)
    assert [fields["message"] for fields in lines][:3] == ["shown", "started", "told"]
    assert "careful" in lines[3]["message"]
    assert len(lines) == 4
    assert {fields["process"] for fields in lines} == {"worker"}


def test_an_exception_is_one_field_of_one_line() -> None:
    lines = run("""
        import logging, threading
        from models_store.process.logs import configure_logging
        configure_logging("INFO", "api")
        def fail():
            raise ValueError("in a\\nthread")
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        try:
            fail()
        except ValueError:
            logging.getLogger("app").exception("caught")
        fail()
    """)
    assert [fields["level"] for fields in lines] == ["CRITICAL", "ERROR", "CRITICAL"]
    assert [fields["message"] for fields in lines] == [
        "an error ended a thread",
        "caught",
        "an error ended the process",
    ]
    for fields in lines:
        assert fields["exception"].startswith("Traceback")
        assert "ValueError" in fields["exception"]


def test_the_rows_and_blobs_need_no_torch() -> None:
    modules = ("jobs.jobs", "jobs.leases", "registry", "files.blobs", "database.database")
    names = ", ".join(f"models_store.{module}" for module in modules)
    program = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 (our own program)
