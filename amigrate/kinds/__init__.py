"""One file per MLflow object kind, and the registry of them."""

from amigrate.kinds.artifact import Artifact
from amigrate.kinds.base import Kind
from amigrate.kinds.experiment import Experiment
from amigrate.kinds.logged_model import LoggedModel
from amigrate.kinds.model_version import ModelVersion
from amigrate.kinds.prompt import Prompt
from amigrate.kinds.prompt_version import PromptVersion
from amigrate.kinds.registered_model import RegisteredModel
from amigrate.kinds.run import Run
from amigrate.kinds.trace import Trace

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
        Trace(),
    )
}
