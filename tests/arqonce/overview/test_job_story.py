"""A job's story from facts of the test's own. No server is needed."""

from datetime import UTC, datetime

from arqonce.connection.job_keys import JobKeys
from arqonce.overview.job_facts import JobFacts, LedgerFacts
from arqonce.overview.job_story import events_of


def test_a_count_of_attempts_that_somebody_made_up_costs_no_memory() -> None:
    """Whoever writes into Redis chooses it, and whoever looks at the job would pay for it."""
    keys = JobKeys(now=datetime.now(UTC), attempts=10**18)

    events = events_of(JobFacts(job_id="j1", ledger=LedgerFacts(), keys=keys))

    texts = [event.text for event in events if event.event == "no_record"]
    assert [text.partition(" there")[0] for text in texts] == ["of attempt 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."]
