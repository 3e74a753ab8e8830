"""Which sources mail leaves from: those of its tenant's pool, or those that were asked for."""

from collections.abc import Sequence

from mta.config import Config
from mta.model.envelope import POOL_DEFAULT
from mta_policies.located import nearest


def weights(loaded: Config, tenant: str, asked: Sequence[str]) -> dict[str, int]:
    """Weight by source; `tenant`: "" for none, `asked`: empty for those of the pool. Raises ValueError with a sentence
    where a name is none."""
    known = [source.name for source in loaded.sources]
    for source in asked:
        if source not in known:
            raise ValueError(f"there is no source {source}{nearest(source, known)}")
    tenants = {each.name: each for each in loaded.tenants}
    if tenant and tenant not in tenants:
        raise ValueError(f"there is no tenant {tenant}{nearest(tenant, tenants)}")
    name = tenants[tenant].pool if tenant else POOL_DEFAULT
    pool = next(each for each in loaded.pools if each.name == name).sources
    if asked:
        return {source: pool.get(source, 0) or 1 for source in asked}
    return {source: weight for source, weight in pool.items() if weight}
