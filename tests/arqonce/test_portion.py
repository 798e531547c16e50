"""How much goes in one transaction, where some take too long."""

from datetime import timedelta

import pytest

from arqonce.portion import Portion


def test_where_each_transaction_is_slow_hundreds_of_small_messages_still_go_at_once() -> None:
    """After one timeout a relay gave three jobs a second for as long as commits were slow, whatever the network."""
    portion = Portion(timedelta(0), most=1_000_000)  # nothing is fast

    with pytest.raises(TimeoutError), portion.measured():
        raise TimeoutError
    with portion.measured() as most:
        pass

    assert (most // 300 > 200, portion.bytes) == (True, most)
