"""Every route of the admin API. One file per noun; whatever is added here is held to access.py by a test."""

from tokenworks.control.admin import (
    alias_trials,
    aliases,
    budgets,
    keys,
    limits,
    models,
    organizations,
    prices,
    receipts,
    usage,
    webhook_endpoints,
)
from tokenworks.control.admin.billing import balance, credit, invoices, payments, reconciliation, transactions
from tokenworks.control.admin.organization import (
    admin_api_keys,
    audit_logs,
    costs,
    invites,
    project_keys,
    project_users,
    projects,
    provider_keys,
    rate_limits,
    residency,
    service_accounts,
    spend_limits,
    users,
)
from tokenworks.control.admin.organization import usage as usage_by_time

SLICES = (
    keys,
    usage,
    models,
    alias_trials,
    aliases,
    limits,
    prices,
    budgets,
    webhook_endpoints,
    organizations,
    projects,
    project_keys,
    provider_keys,
    residency,
    project_users,
    service_accounts,
    rate_limits,
    spend_limits,
    users,
    invites,
    admin_api_keys,
    audit_logs,
    usage_by_time,
    costs,
    balance,
    transactions,
    credit,
    payments,
    invoices,
    reconciliation,
    receipts,
)
ROUTERS = tuple(slice_.router for slice_ in SLICES)
PUBLIC = (invites.accepting, payments.webhook, receipts.public)
