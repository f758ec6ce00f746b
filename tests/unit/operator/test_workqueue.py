"""The queue: one worker per key, nothing lost, failures come back."""

from __future__ import annotations

import asyncio

from serinus.workqueue import Key, WorkQueue


async def drain(queue: WorkQueue, done: asyncio.Event) -> None:
    task = asyncio.create_task(queue.run())
    try:
        async with asyncio.timeout(10):
            await done.wait()
    finally:
        task.cancel()


def test_a_key_added_while_it_is_worked_on_runs_again_and_never_twice_at_once() -> None:
    async def scenario() -> list[str]:
        order: list[str] = []
        done = asyncio.Event()
        inside = 0

        async def work(key: Key) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1
            order.append("in")
            if len(order) == 1:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(0)
            inside -= 1
            if len(order) == 2:
                done.set()

        queue = WorkQueue(work, workers=4)
        queue.add(("ns", "a"))
        queue.add(("ns", "a"))
        await drain(queue, done)
        return order

    assert asyncio.run(scenario()) == ["in", "in"]


def test_failure_is_retried_and_does_not_stop_other_keys() -> None:
    async def scenario() -> list[Key]:
        seen: list[Key] = []
        done = asyncio.Event()

        async def work(key: Key) -> None:
            seen.append(key)
            if key == ("ns", "bad") and seen.count(key) < 2:
                raise ValueError("boom")
            if seen.count(("ns", "bad")) == 2:
                done.set()

        queue = WorkQueue(work, workers=1)
        queue.add(("ns", "bad"))
        queue.add(("ns", "good"))
        await drain(queue, done)
        return seen

    assert asyncio.run(scenario()) == [("ns", "bad"), ("ns", "good"), ("ns", "bad")]


def test_the_answer_is_when_to_come_back() -> None:
    async def scenario() -> int:
        count = 0
        done = asyncio.Event()

        async def work(key: Key) -> float | None:
            nonlocal count
            count += 1
            if count == 3:
                done.set()
                return None
            return 0.01

        queue = WorkQueue(work)
        queue.add(("ns", "a"))
        await drain(queue, done)
        return count

    assert asyncio.run(scenario()) == 3
