"""Settings of `tokenworks control`: the command line over the environment. The only reader of the environment."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tokenworks.client import Address
from tokenworks.control.ledger.payments.stripe import URL as STRIPE_URL
from tokenworks.control.ledger.payments.stripe import StripeSettings
from tokenworks.control.objects.s3 import Bucket
from tokenworks.control.objects.s3 import parse as parse_bucket
from tokenworks.control.startup import StartupError
from tokenworks.control.upkeep import Terms
from tokenworks.core.sigv4 import Credentials

PREFIX = "TOKENWORKS_CONTROL_"
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """`local_models` are served by workers of ours, beside those the configuration file names; the first one is the
    default model. `environment` is what `env:NAME` in the configuration file refers to."""

    listen: Address
    data_dir: Path
    cluster_key_file: Path
    database: str | None = None
    config: Path | None = None
    local_models: tuple[str, ...] = ()
    webhook_hosts: tuple[str, ...] = ()
    """Hosts that webhooks may go to though they are not on the public internet."""
    object_store: Path | tuple[Bucket, Credentials] = Path("objects")
    payments: StripeSettings | None = None
    invoice_font: Path | None = None
    """TrueType; for names that PDF's own font cannot show."""
    terms: Terms = Terms()
    log_level: str = "info"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message} (see tokenworks control --help)")


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """StartupError names the option when something is missing or wrong."""
    given = _parser(environment).parse_args(arguments)
    if not given.data_dir:
        raise StartupError(f"--data-dir (or {PREFIX}DATA_DIR) is required: a directory for the database and the keys")
    data_dir = Path(given.data_dir).absolute()
    try:
        listen = Address.parse(given.listen or f"unix:{data_dir / 'run' / 'control.sock'}")
    except ValueError as error:
        raise StartupError(f"--listen: {error}") from error
    if listen.prefix:
        raise StartupError(f"--listen: {given.listen!r} must have no path")
    if listen.origin.startswith("https:"):
        raise StartupError("--listen: https is not served; use http:// or unix:, and a proxy for TLS")
    if given.log_level not in LOG_LEVELS:
        raise StartupError(f"--log-level: {given.log_level!r} is not one of {', '.join(LOG_LEVELS)}")
    key_file = given.cluster_key_file or environment.get("TOKENWORKS_CLUSTER_KEY_FILE") or data_dir / "cluster.key"
    named = _listed(environment, "LOCAL_MODEL")
    hosts = given.webhook_host or _listed(environment, "WEBHOOK_HOST")
    return Settings(
        listen=listen,
        data_dir=data_dir,
        cluster_key_file=Path(key_file).absolute(),
        database=given.database or None,
        config=Path(given.config).absolute() if given.config else None,
        local_models=tuple(dict.fromkeys(given.local_model or named)),
        webhook_hosts=tuple(hosts),
        object_store=_object_store(given.object_store, data_dir, environment),
        payments=_payments(given, environment),
        invoice_font=_font(given.invoice_font),
        terms=Terms(
            _days("--lost-after-days", given.lost_after_days) or Terms().lost_after,
            _days("--keep-usage-days", given.keep_usage_days),
        ),
        log_level=given.log_level,
        environment=environment,
    )


def _object_store(
    given: str | None, data_dir: Path, environment: Mapping[str, str]
) -> Path | tuple[Bucket, Credentials]:
    if not given:
        return data_dir / "objects"
    try:
        bucket = parse_bucket(given)
    except ValueError as error:
        raise StartupError(f"--object-store: {error}") from error
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        raise StartupError("--object-store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in control's environment")
    return bucket, Credentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None)


def _font(given: str | None) -> Path | None:
    if not given:
        return None
    if not Path(given).is_file():
        raise StartupError(f"--invoice-font: there is no file {given}")
    return Path(given).absolute()


def _payments(given: argparse.Namespace, environment: Mapping[str, str]) -> StripeSettings | None:
    """The secrets come from the environment only: a command line is seen by everybody on the machine."""
    key, secrets = environment.get("STRIPE_API_KEY"), environment.get("STRIPE_WEBHOOK_SECRET", "").split()
    if not key:
        return None
    if not secrets:
        raise StartupError("STRIPE_API_KEY is set: set STRIPE_WEBHOOK_SECRET too, or payments could not be believed")
    url = given.stripe_url.rstrip("/")
    if not url.startswith(("https://", "http://")):
        raise StartupError(f"--stripe-url: {given.stripe_url!r} is not an http or https URL")
    return StripeSettings(key, tuple(secrets), url, given.stripe_meter or None)


def _days(option: str, given: str | None) -> int | None:
    """In seconds."""
    if not given:
        return None
    if not given.isdigit() or not 1 <= int(given) <= 36_500:
        raise StartupError(f"{option}: {given!r} is not a whole number of days from 1 to 36500")
    return int(given) * 86_400


def _listed(environment: Mapping[str, str], name: str) -> list[str]:
    return [each.strip() for each in environment.get(PREFIX + name, "").split(",") if each.strip()]


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tokenworks control",
        description="The control plane: keys, models, replicas, usage, and the admin API.",
        epilog=f"Each option can also be given in the environment, as {PREFIX}DATA_DIR and so on.",
        allow_abbrev=False,
    )

    def add(option: str, default: str | None = None, **more: str) -> None:
        variable = PREFIX + option.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(option, default=environment.get(variable) or default, **more)  # type: ignore[arg-type]

    add("--listen", metavar="ADDRESS", help="unix:/path/to.sock or http://host:port (default: DIR/run/control.sock)")
    add("--data-dir", metavar="DIR", help="keeps the database, cluster.key and bootstrap.json")
    add("--database", metavar="URL", help="default: SQLite in DIR/control.db")
    add(
        "--keep-usage-days",
        metavar="DAYS",
        help="remove attempts that are older; sums and the ledger stay (default: keep all)",
    )
    add(
        "--lost-after-days",
        metavar="DAYS",
        help="settle attempts of a gateway that did not come back, from their last progress (default: 1)",
    )
    add("--config", metavar="FILE", help="a tokenworks.toml that names providers and models")
    add(
        "--object-store",
        metavar="URL",
        help="s3://bucket/prefix?endpoint=URL&region=NAME for files and batches (default: DIR/objects)",
    )
    add("--cluster-key-file", metavar="FILE", help="default: DIR/cluster.key, made at first start")
    add("--invoice-font", metavar="FILE", help="a .ttf for PDF invoices in scripts that their own font lacks")
    add("--stripe-url", STRIPE_URL, metavar="URL", help="where payments are asked for, when STRIPE_API_KEY is set")
    add("--stripe-meter", metavar="NAME", help="the meter's event name that usage is reported under (default: none)")
    add("--log-level", "info", metavar="LEVEL", help=", ".join(LOG_LEVELS))
    parser.add_argument(
        "--local-model",
        action="append",
        metavar="NAME",
        help="a model that a worker of ours serves; repeatable, the first one is the default model",
    )
    parser.add_argument(
        "--webhook-host",
        action="append",
        metavar="HOST",
        help="a host of your own network that webhooks may be sent to; repeatable, public ones always are",
    )
    return parser
