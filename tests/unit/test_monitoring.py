"""Monitoring: what is asked for many times at once is done once."""

import asyncio
import threading

from service.api.monitoring import Monitoring


def test_those_who_ask_at_the_same_time_get_one_result() -> None:
    """A flood of requests costs one piece of work at a time; who asks after its end gets a new one."""
    may_end, calls = threading.Event(), []

    def work() -> int:
        calls.append(may_end.wait())
        return len(calls)

    async def scenario() -> None:
        monitoring = Monitoring()
        asking = [asyncio.create_task(monitoring.ask(work)) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()
        may_end.set()
        assert await asyncio.gather(*asking[1:]) == [1] * 49
        assert await monitoring.ask(work) == 2
        monitoring.close()

    asyncio.run(scenario())
