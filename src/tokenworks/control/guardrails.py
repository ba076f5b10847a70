"""The configuration's guardrails, as gateways are told of them."""

from collections.abc import Mapping

from tokenworks.config.records import Configuration, GuardrailConfig
from tokenworks.control.offers import credential
from tokenworks.control.startup import StartupError
from tokenworks.protocols.webhooks import sign
from tokenworks.snapshot.records import GuardrailRecord
from tokenworks.snapshot.sealing import guardrail, seal


def guardrails(
    configuration: Configuration, cluster_key: bytes, environment: Mapping[str, str]
) -> list[GuardrailRecord]:
    """StartupError when a secret cannot be found or cannot sign."""
    return [
        GuardrailRecord(
            name=each.name,
            kind=each.kind,
            position=position,
            phase=each.phase,
            action=each.action,
            on_failure=each.on_failure,
            timeout=each.timeout,
            everybody=each.all,
            models=tuple(name for name, model in configuration.models.items() if each.name in model.guardrails),
            projects=each.projects,
            keys=each.keys,
            entities=each.entities,
            patterns=tuple(each.patterns.items()),
            phone_regions=each.phone_regions,
            restore=each.restore,
            url=each.url,
            region=each.region,
            jurisdiction=each.jurisdiction,
            retention=each.retention,
            trains=each.trains,
            secret=_sealed(each, cluster_key, environment),
        )
        for position, each in enumerate(configuration.guardrails.values())
    ]


def _sealed(found: GuardrailConfig, cluster_key: bytes, environment: Mapping[str, str]) -> bytes:
    if not found.secret:
        return b""
    where = f"[guardrails.{found.name}] secret"
    secret = credential(where, found.secret, environment)
    try:
        sign([secret], "check", 0, b"")
    except ValueError as error:
        raise StartupError(f"{where}: {error}; make one with: openssl rand -base64 32") from error
    return seal(cluster_key, guardrail(found.name), secret)
