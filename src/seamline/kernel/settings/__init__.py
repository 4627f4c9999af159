"""``seamline.toml`` read once into frozen values, and the environment that may override it.

Environment variables are read in this room and nowhere else: ``SEAMLINE_<SECTION>_<KEY>`` overrides ``key``
in ``[section]``, ``SEAMLINE_REPLICAS_<MODULE>`` a number of replicas, ``SEAMLINE_DATA_MODULES_<MODULE>_URL``
the database of one module. What a setting does is not decided here.
"""

from seamline.kernel.settings.admin import AdminSettings
from seamline.kernel.settings.ai_gateway import (
    AiBudgetSettings,
    AiGatewaySettings,
    AiModelSettings,
    AiTargetSettings,
    load_ai_gateway,
)
from seamline.kernel.settings.application import Settings, read_secret, read_variable, workers_environment
from seamline.kernel.settings.audit import AuditSettings
from seamline.kernel.settings.auth import AuthSettings, CertificateClientSettings, IssuerSettings, SignalSettings
from seamline.kernel.settings.errors import (
    BadPlacementError,
    BadValueError,
    DataFolderUnusableError,
    SettingsError,
    SettingsMissingError,
    SettingsSyntaxError,
    UnknownKeyError,
    WrongTypeError,
)
from seamline.kernel.settings.federation import FederationSettings
from seamline.kernel.settings.limits import LimitsSettings, QuotaSettings, RateSettings
from seamline.kernel.settings.models import ContractModelSettings, ModelGuardSettings, ModelsSettings
from seamline.kernel.settings.observe import ObserveSettings, SloSettings, TelemetrySettings
from seamline.kernel.settings.policy import PolicySettings
from seamline.kernel.settings.secrets import SecretsSettings
from seamline.kernel.settings.sections import (
    AppSettings,
    DataSettings,
    EventsSettings,
    GatewaySettings,
    IdentitySettings,
    MeshRules,
    MeshSettings,
    ModuleData,
    RouteSettings,
    RunSettings,
    SagasSettings,
    WebhookSettings,
)
from seamline.kernel.settings.sidecars import SidecarSettings

__all__ = [
    "AdminSettings",
    "AiBudgetSettings",
    "AiGatewaySettings",
    "AiModelSettings",
    "AiTargetSettings",
    "AppSettings",
    "AuditSettings",
    "AuthSettings",
    "BadPlacementError",
    "BadValueError",
    "CertificateClientSettings",
    "ContractModelSettings",
    "DataFolderUnusableError",
    "DataSettings",
    "EventsSettings",
    "FederationSettings",
    "GatewaySettings",
    "IdentitySettings",
    "IssuerSettings",
    "LimitsSettings",
    "MeshRules",
    "MeshSettings",
    "ModelGuardSettings",
    "ModelsSettings",
    "ModuleData",
    "ObserveSettings",
    "PolicySettings",
    "QuotaSettings",
    "RateSettings",
    "RouteSettings",
    "RunSettings",
    "SagasSettings",
    "SecretsSettings",
    "Settings",
    "SettingsError",
    "SettingsMissingError",
    "SettingsSyntaxError",
    "SidecarSettings",
    "SignalSettings",
    "SloSettings",
    "TelemetrySettings",
    "UnknownKeyError",
    "WebhookSettings",
    "WrongTypeError",
    "load_ai_gateway",
    "read_secret",
    "read_variable",
    "workers_environment",
]
