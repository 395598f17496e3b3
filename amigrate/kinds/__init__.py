"""One file per MLflow object kind, and the registry of them."""

from amigrate.kinds.artifact import Artifact
from amigrate.kinds.base import Kind
from amigrate.kinds.dataset_record import DatasetRecord
from amigrate.kinds.evaluation_dataset import EvaluationDataset
from amigrate.kinds.experiment import Experiment
from amigrate.kinds.gateway_binding import GatewayBinding
from amigrate.kinds.gateway_budget import GatewayBudget
from amigrate.kinds.gateway_endpoint import GatewayEndpoint
from amigrate.kinds.gateway_guardrail import GatewayGuardrail
from amigrate.kinds.gateway_model_definition import GatewayModelDefinition
from amigrate.kinds.gateway_secret import GatewaySecret
from amigrate.kinds.issue import Issue
from amigrate.kinds.label_schema import LabelSchema
from amigrate.kinds.logged_model import LoggedModel
from amigrate.kinds.mcp_server import McpServer
from amigrate.kinds.mcp_server_version import McpServerVersion
from amigrate.kinds.model_version import ModelVersion
from amigrate.kinds.prompt import Prompt
from amigrate.kinds.prompt_version import PromptVersion
from amigrate.kinds.registered_model import RegisteredModel
from amigrate.kinds.review_queue import ReviewQueue
from amigrate.kinds.role import Role
from amigrate.kinds.run import Run
from amigrate.kinds.scorer import Scorer
from amigrate.kinds.trace import Trace
from amigrate.kinds.trace_link import TraceLink
from amigrate.kinds.user import User
from amigrate.kinds.webhook import Webhook

REGISTRY: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Experiment(),
        Run(),
        Artifact(),
        LoggedModel(),
        RegisteredModel(),
        ModelVersion(),
        Prompt(),
        PromptVersion(),
        Issue(),
        Trace(),
        TraceLink(),
        LabelSchema(),
        ReviewQueue(),
        EvaluationDataset(),
        DatasetRecord(),
        Scorer(),
        Webhook(),
        GatewaySecret(),
        GatewayModelDefinition(),
        GatewayEndpoint(),
        GatewayBinding(),
        GatewayGuardrail(),
        GatewayBudget(),
        McpServer(),
        McpServerVersion(),
        Role(),
        User(),
    )
}
