"""LiteLLM's proxy, in an environment of its own that ``make bench`` makes: it pins what others use, too."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.processes import ROOT

KEY = "sk-bench"
PROGRAM = ROOT / ".venv" / "peers" / "litellm" / "bin" / "litellm"


def command(folder: Path, *, stub: int, port: int) -> list[str]:
    """Starts it with one worker and a master key. Its virtual keys and budgets need a PostgreSQL: they are off."""
    if not PROGRAM.exists():
        raise FileNotFoundError(f"{PROGRAM} is not there; `make bench` puts it there")
    configuration = folder / "litellm.yaml"
    parameters = {"model": "openai/stub", "api_base": f"http://127.0.0.1:{stub}/v1", "api_key": "none"}
    told = {
        "model_list": [{"model_name": "stub", "litellm_params": parameters}],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "general_settings": {"master_key": KEY},
    }
    configuration.write_text(json.dumps(told))  # JSON is YAML
    program = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_LOG=ERROR", str(PROGRAM)]
    return [*program, "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
