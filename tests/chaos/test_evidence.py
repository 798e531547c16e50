"""What is read from logs: which jobs are called done, and what should not stand there."""

from pathlib import Path

from chaos.evidence import Evidence, read_logs


def test_people_and_passwords_are_found_in_logs(tmp_path: Path) -> None:
    """In any spelling, and without being repeated in what is told of it."""
    logs = [tmp_path / "a.log", tmp_path / "b.log", tmp_path / "c.log"]
    for log, text in zip(logs, ["1@quokka.example", "redis://worker:S3cret@host", "nothing"], strict=True):
        log.write_text(text)
    evidence = Evidence(orders=[], accepted={})

    read_logs(evidence, logs, ["Quokka", "S3cret"])

    assert evidence.leaks == [f"{logs[0]}: Quo…", f"{logs[1]}: S3c…"]


def test_jobs_that_a_log_calls_done_are_known(tmp_path: Path) -> None:
    """Half a line, of a worker that was killed while it wrote, is no hindrance."""
    log = tmp_path / "worker.log"
    log.write_text(
        '{"event": "job done", "job_id": "a"}\n{"event": "job refused", "job_id": "b"}\n'
        '{"event": "batch done", "jobs": 7}\n{"event": "job done",'
    )
    evidence = Evidence(orders=[], accepted={})

    read_logs(evidence, [log], [])

    assert (evidence.done, evidence.batches) == ({"a"}, 1)
