"""Settings of the connection to Kafka, with secrets left out of `repr`."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import SetupError

BOOTSTRAP_S = 6.0
"""Time after which brokers that do not answer are an error."""
METADATA_AGE_S = 30.0
"""Maximum age of the client's list of topics and partitions."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Addresses of the brokers, encryption and credentials."""

    brokers: str
    """HOST:PORT, several with commas between."""
    tls: bool = False
    tls_ca: Path | None = None
    """PEM file of the certificate authority of the brokers; None for those of the system."""
    tls_cert: Path | None = None
    """PEM file of this client's certificate."""
    tls_key: Path | None = None
    """PEM file of the certificate's key; None when it is in `tls_cert`."""
    sasl_mechanism: str | None = None
    """SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    sasl_user: str | None = None
    sasl_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.sasl_mechanism and not (self.sasl_user and self.sasl_password):
            raise SetupError(
                "SASL needs --sasl-user, and the password in SOLSTICE_KAFKA_PASSWORD or in --sasl-password-file."
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings of every kafka-python client; raises `SetupError` for files that cannot be used."""
        settings: dict[str, Any] = {
            "bootstrap_servers": self.brokers.split(","),
            "bootstrap_timeout_ms": int(BOOTSTRAP_S * 1000),
            "security_protocol": f"{'SASL_' if self.sasl_mechanism else ''}{'SSL' if self.uses_tls else 'PLAINTEXT'}",
            "reconnect_backoff_max_ms": 2000,
            "request_timeout_ms": 15_000,
            "metadata_max_age_ms": int(METADATA_AGE_S * 1000),
        }
        if self.uses_tls:
            settings["ssl_context"] = self._ssl_context()
        if self.sasl_mechanism:
            settings["sasl_mechanism"] = self.sasl_mechanism
            settings["sasl_plain_username"] = self.sasl_user
            settings["sasl_plain_password"] = self.sasl_password
        return settings

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or self.tls_ca is not None or self.tls_cert is not None

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key, password="")
        except (OSError, ssl.SSLError) as error:
            raise SetupError(f"The TLS files cannot be used: {error}.") from error
        return context
