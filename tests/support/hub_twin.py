"""A whole hub over a registry in memory and the supervisor's twin."""

from collections.abc import Mapping
from typing import cast

from interhub.adapters import Adapter
from interhub.adapters.pool import ConnectionPool
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.discovery import Discovery
from interhub.hub.dispatch import Dispatcher
from interhub.hub.policy import TenantPolicy
from interhub.hub.service import Hub, HubInfo
from interhub.hub.supervisor.supervisor import Supervisor
from interhub.registry import MemoryRegistry
from interhub.registry.search import Index
from tests.support.supervisor_twin import SupervisorTwin


def hub_over(
    adapters: Mapping[str, Adapter],
    pool: ConnectionPool,
    twin: SupervisorTwin,
    audit: MemoryAuditLog,
    *,
    base_url: str = "http://hub.test",
) -> Hub:
    return Hub(
        info=HubInfo(base_url=base_url, version="0.1.0"),
        registry=MemoryRegistry(),
        index=Index(),
        discovery=Discovery(adapters=adapters, documents=twin),
        dispatcher=Dispatcher(adapters=adapters, pool=pool, policy=TenantPolicy(), audit=audit),
        supervisor=cast(Supervisor, twin),
        audit=audit,
    )
