"""What users-web shows on its port of operations."""

import json

from tests.arqonce.operations.scrape import ask, scrape, value
from tests.conftest import wait_until
from tests.web.conftest import StartWeb


async def test_requests_are_counted_by_route_and_status_with_bounded_labels(start_web: StartWeb) -> None:
    """Whatever clients ask for, and by whatever method; nothing of a path is shown."""
    service = start_web(OPS_PORT="0")
    (port,) = [line["port"] for line in service.lines if line["event"] == "operations port open"]
    for path in ("/users/1", "/users/2", "/jane@example.org"):
        await service.get(path)
    await service.ask("BREW", "/users")

    wait_until(lambda: value(scrape(port), "http_server_request_duration_seconds_count") == 4, 10)

    figures = scrape(port)
    counted = {
        (found["http_request_method"], found["http_route"], found["http_response_status_code"]): number
        for (name, labels), number in figures.items()
        if name == "http_server_request_duration_seconds_count" and (found := dict(labels))
    }
    assert counted == {("GET", "/users/{id}", "404"): 2, ("GET", "", "404"): 1, ("_OTHER", "", "400"): 1}
    assert value(figures, "arqonce_database_connections_max") == 10
    assert [ask(port, path).status for path in ("/livez", "/readyz", "/queue.json")] == [200, 200, 404]
    assert "jane" not in json.dumps([str(key) for key in figures])
