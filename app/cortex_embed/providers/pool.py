"""The models of one server: each loaded when it is first asked for, unloaded when others need
its memory or nobody asks any more.

Loads come one after the other, one for however many wait; a caller who goes away takes no load
along. It must never unload a model that computes, answer with another model than the one asked
for, or remember a failed load for longer than until somebody has heard of it. It knows models
by id only, and imports nothing that a start would have to wait for.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import EmbedError, ModelLoadError, NotReadyError

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from cortex_embed.domain import Provider

_KEPT = 3.0
"""Seconds that a model just loaded waits for its first use before others may have its memory:
who was told to come back does so after Retry-After, a second."""


# Plain classes: making three dataclasses takes a millisecond, which every start would wait for.


class Candidate:
    """A model that can be loaded. `make` gives a new provider each time.

    `memory` is an upper estimate of what it takes when loaded, `peak` while it is loading, both
    in bytes.
    """

    __slots__ = ("id", "make", "memory", "peak")

    def __init__(
        self, model_id: str, make: Callable[[], Provider], memory: int = 0, peak: int = 0
    ) -> None:
        self.id = model_id
        self.make = make
        self.memory = memory
        self.peak = peak


class _Loaded:
    """A model in memory. `rests` is set while nobody uses it, `used` once somebody has.

    Until `kept_until` (by `time.monotonic`) it waits for the one that it was loaded for.
    """

    def __init__(self, provider: Provider, rests: asyncio.Event, used: asyncio.Event) -> None:
        self.provider = provider
        self.rests = rests
        self.used = used
        self.used_at = time.monotonic()
        self.kept_until = 0.0
        self.users = 0
        self.timer: asyncio.TimerHandle | None = None
        self.leaving: asyncio.Task[None] | None = None
        rests.set()

    @property
    def waits(self) -> float:
        """Seconds that it still waits for its first use."""
        return 0.0 if self.used.is_set() else max(0.0, self.kept_until - time.monotonic())

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """The lowest is unloaded first: who rests before who works, and of these the one that
        has not been used for longest. (Ollama's scheduler chooses in this order as well.)"""
        return self.users > 0, self.waits > 0, self.used_at


class _Slot:
    """One candidate, and what is going on with it."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.memory = candidate.memory
        self.loaded: _Loaded | None = None
        self.begun: Provider | None = None
        self.loading: asyncio.Task[str] | None = None
        """Its result says why the load failed, and is empty where it did not."""
        self.unheard = ""
        """Why the last load failed, as long as nobody was there to hear of it."""


class _Use:
    """Somebody uses `loaded`; `arm` is told when nobody does any more.

    Not a generator: at every request that takes three times as long.
    """

    __slots__ = ("_arm", "_loaded", "_slot")

    def __init__(
        self, slot: _Slot, loaded: _Loaded, arm: Callable[[_Slot, _Loaded], object]
    ) -> None:
        self._slot = slot
        self._loaded = loaded
        self._arm = arm

    def __enter__(self) -> Provider:
        loaded = self._loaded
        if not loaded.users:
            loaded.used.set()
            loaded.rests.clear()
        loaded.users += 1
        return loaded.provider

    def __exit__(self, *_: object) -> None:
        loaded = self._loaded
        loaded.users -= 1
        loaded.used_at = time.monotonic()
        if not loaded.users:
            loaded.rests.set()
            self._arm(self._slot, loaded)


class ModelPool:
    """Providers by model id; the first candidate is the default model. Without any it is a place
    for models that are still being downloaded.

    `max_memory` bounds what loaded models take together, in bytes, runs not included; 0 for no
    bound. A model other than the default is unloaded after `idle` seconds without use; 0 for
    never. Create it anywhere; everything but `begin` belongs on the event loop.
    """

    def __init__(
        self, candidates: Sequence[Candidate], *, max_memory: int = 0, idle: float = 0.0
    ) -> None:
        self._slots = {one.id: _Slot(one) for one in candidates}
        self._default = self._slots[candidates[0].id] if candidates else None
        self._max_memory = max_memory
        self._idle = idle
        self._turn: asyncio.Lock | None = None
        self._stopping = False
        self._stop: asyncio.Future[None] | None = None

    @classmethod
    def of(cls, providers: Sequence[Provider]) -> ModelPool:
        """A pool of providers that exist already, each to be loaded once."""
        return cls([Candidate(one.spec.id, lambda one=one: one) for one in providers])  # type: ignore[misc]

    def is_loaded(self, model_id: str) -> bool:
        """Whether a request for it would be computed at once."""
        slot = self._slots.get(model_id)
        loaded = slot.loaded if slot else None
        return loaded is not None and loaded.leaving is None

    def begin(self) -> None:
        """Start reading the default model, if there is one, in threads: before there is an event
        loop."""
        if self._default is None:
            return
        self._default.begun = self._default.candidate.make()
        self._default.begun.begin()

    async def load(self) -> None:
        """Load the default model. Raises what its provider raises."""
        if self._default is None:
            raise ModelLoadError("There is no model to load.")
        async with self._lock():
            await self._read(self._default)

    async def prepare(self, model_id: str, seconds: float) -> None:
        """Start to load a model that is not in memory, and wait for it, so long at most.

        Raises ModelLoadError, NotReadyError where the server is stopping.
        """
        if self.is_loaded(model_id):
            return
        slot = self._slots[model_id]
        load = self._start(slot)
        if seconds <= 0:
            return
        import asyncio

        slot.unheard = ""  # of an earlier load: this one's end will be heard
        if self._stop is None:
            self._stop = asyncio.get_running_loop().create_future()
        waited: set[asyncio.Future[Any]] = {load, self._stop}
        await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if load.done() and not load.cancelled() and (why := load.result()):
            slot.unheard = ""
            raise ModelLoadError(why)

    def use(self, model_id: str) -> AbstractContextManager[Provider]:
        """The provider of a model in memory, which stays there until the block is left.

        Where it is not there, starts to load it and raises NotReadyError, or ModelLoadError if
        the load before has failed and nobody has heard of it.
        """
        slot = self._slots[model_id]
        loaded = slot.loaded
        if loaded is None or loaded.leaving is not None:
            _ = self._start(slot)
            if slot.unheard:
                why, slot.unheard = slot.unheard, ""
                raise ModelLoadError(why)
            raise NotReadyError(
                f"The model {model_id} is loading; try again shortly.", phase="loading"
            )
        return _Use(slot, loaded, self._arm)

    def drain(self) -> None:
        """Load nothing more, and let go who waits for a load."""
        self._stopping = True
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(None)

    async def close(self) -> bool:
        """Finish what is queued, release every model; False where threads still load one."""
        import asyncio

        self.drain()
        ended = True
        for slot in self._slots.values():
            if slot.loading is not None:
                slot.loading.cancel()
                await asyncio.wait({slot.loading})
                ended = False
        for slot in self._slots.values():
            if slot.loaded is None:
                continue
            if slot.loaded.leaving is not None:
                await asyncio.wait({slot.loaded.leaving})
                continue
            if slot.loaded.timer is not None:
                slot.loaded.timer.cancel()
            await slot.loaded.provider.close()
            slot.loaded = None
        return ended

    def _start(self, slot: _Slot) -> asyncio.Task[str]:
        """The load of `slot`, begun if there is none. Raises NotReadyError when stopping."""
        if self._stopping:
            raise NotReadyError("The server is stopping; try another one.", phase="draining")
        if slot.loading is None:
            import asyncio

            slot.loading = asyncio.get_running_loop().create_task(self._load(slot))
        return slot.loading

    def _lock(self) -> asyncio.Lock:
        if self._turn is None:
            import asyncio

            self._turn = asyncio.Lock()
        return self._turn

    async def _load(self, slot: _Slot) -> str:
        """Load a model when its turn has come; why that failed, or nothing. Never raises."""
        name = slot.candidate.id
        try:
            if slot.loaded is not None and slot.loaded.leaving is not None:
                await _finished(slot.loaded.leaving)
            async with self._lock():
                await self._make_room(slot)
                _log().info("Loading %s …", name)
                began = time.perf_counter()
                loaded = await self._read(slot)
                loaded.kept_until = time.monotonic() + _KEPT
                _log().info("%s is loaded, in %.2f s", name, time.perf_counter() - began)
        except Exception as why:  # whatever it is, who waits must hear of it
            # Here in full; a client learns no paths of this machine.
            told = why.message if isinstance(why, EmbedError) else f"{type(why).__name__}: {why}"
            _log().error("%s could not be loaded: %s", name, told)
            slot.unheard = (
                f"The model {name} could not be loaded: the server's log says why. Another "
                "request tries again."
            )
            return slot.unheard
        finally:
            slot.loading = None
        return ""

    async def _read(self, slot: _Slot) -> _Loaded:
        """Make a provider and load it. Raises what it raises."""
        import asyncio

        provider = slot.begun or slot.candidate.make()
        slot.begun = None
        before = await self._quiet_memory()
        try:
            await provider.load()
        except Exception:
            with suppress(Exception):  # of the two, the first one says what is wrong
                await provider.close()
            raise
        slot.loaded = loaded = _Loaded(provider, asyncio.Event(), asyncio.Event())
        after = await self._quiet_memory()
        if before is not None and after is not None:
            slot.memory = max(slot.candidate.memory, after - before)
        self._arm(slot, loaded)
        return loaded

    async def _quiet_memory(self) -> int | None:
        """Bytes in use, where that says something of a load: nobody computes, nothing is kept."""
        if not self._max_memory or any(s.loaded and s.loaded.users for s in self._slots.values()):
            return None
        import asyncio

        from cortex_embed.providers import memory

        await asyncio.to_thread(memory.give_back)
        return await asyncio.to_thread(memory.resident)

    async def _make_room(self, slot: _Slot) -> None:
        """Unload others until `slot` fits, which may mean to wait until they rest."""
        import asyncio

        while self._max_memory:
            loaded = [(one, one.loaded) for one in self._slots.values() if one.loaded is not None]
            taken = sum(one.memory for one, _ in loaded)
            if not loaded or taken + slot.candidate.peak <= self._max_memory:
                return
            victim, state = min(loaded, key=lambda pair: pair[1].rank)
            if seconds := state.waits:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await state.used.wait()
                continue
            await _finished(self._leave(victim, state, f"{slot.candidate.id} needs its memory"))

    def _leave(self, slot: _Slot, loaded: _Loaded, why: str) -> asyncio.Task[None]:
        """Unload `slot`: from now on who asks for it waits until it has been loaded again.

        Without that, a model in constant use would keep the others out for ever.
        """
        if loaded.leaving is None:
            import asyncio

            loop = asyncio.get_running_loop()
            loaded.leaving = loop.create_task(self._unload(slot, loaded, why))
        return loaded.leaving

    async def _unload(self, slot: _Slot, loaded: _Loaded, why: str) -> None:
        import asyncio

        from cortex_embed.providers import memory

        await loaded.rests.wait()
        _log().info("Unloading %s: %s.", slot.candidate.id, why)
        if loaded.timer is not None:
            loaded.timer.cancel()
        try:
            await loaded.provider.close()
        except Exception as error:  # it is to go, whatever is wrong with it
            _log().error("Unloading %s: %s", slot.candidate.id, error)
        slot.loaded = None
        await asyncio.to_thread(memory.give_back)

    def _arm(self, slot: _Slot, loaded: _Loaded) -> None:
        """Look again when the model could have been unused for long enough: one timer each."""
        if not self._idle or slot is self._default or loaded.timer is not None:
            return
        import asyncio

        delay = max(0.0, loaded.used_at + self._idle - time.monotonic())
        loop = asyncio.get_running_loop()
        loaded.timer = loop.call_later(delay, self._look, slot, loaded)

    def _look(self, slot: _Slot, loaded: _Loaded) -> None:
        loaded.timer = None
        if loaded.users or loaded.leaving is not None:
            return  # whoever leaves it last arms the timer again
        if loaded.used_at + self._idle > time.monotonic():
            self._arm(slot, loaded)
        else:
            _ = self._leave(slot, loaded, f"unused for {self._idle:g} s")


def _log() -> logging.Logger:
    import logging  # not at the top: every start reads this module

    return logging.getLogger(__name__)


async def _finished(task: asyncio.Task[None]) -> None:
    """Wait for `task`, which goes on when the waiter is cancelled."""
    import asyncio

    await asyncio.wait({task})
