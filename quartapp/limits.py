"""What the rate limits count by, and where they keep it."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv6Address, IPv6Network, ip_address

from quart import Quart, has_websocket_context, request, websocket
from quart_rate_limiter import RateLimit, RateLimiter
from quart_rate_limiter.store import RateLimiterStoreABC

PRUNE_AT = 1024


async def client_address() -> str:
    """The address of whoever is connected: what a trusted proxy says, never what the client says.

    An IPv6 client owns at least a /64, and counts as one.
    """
    asked = websocket if has_websocket_context() else request
    client = asked.scope.get("client")
    host = str(client[0]) if client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


class ExpiringStore(RateLimiterStoreABC):
    """In memory, without the keys whose time has passed."""

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}
        self._prune_at = PRUNE_AT

    def __len__(self) -> int:
        return len(self._times)

    async def get(self, key: str, default: datetime) -> datetime:
        return self._times.get(key, default)

    async def set(self, key: str, tat: datetime) -> None:
        self._times[key] = tat
        if len(self._times) >= self._prune_at:
            now = datetime.now(UTC)
            self._times = {key: time for key, time in self._times.items() if time > now}
            self._prune_at = max(PRUNE_AT, 2 * len(self._times))

    async def before_serving(self) -> None:
        pass

    async def after_serving(self) -> None:
        pass


class AddressLimiter(RateLimiter):
    """Limits by address, the handshakes of WebSockets as well as requests."""

    def __init__(self, app: Quart, limit: RateLimit) -> None:
        self._handshake_limit = limit
        super().__init__(
            app, key_function=client_address, store=ExpiringStore(), default_limits=[limit]
        )

    def init_app(self, app: Quart, enabled: bool = True) -> None:
        super().init_app(app, enabled)
        app.before_websocket(self._before_handshake)

    async def _before_handshake(self) -> None:
        if websocket.endpoint is not None:
            await self._raise_on_rejection(websocket.endpoint, [self._handshake_limit])
            await self._update_limits(websocket.endpoint, [self._handshake_limit])
