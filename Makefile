# Everything runs from a fresh machine that has Python >= 3.11, make and git.
PYTHON ?= python3
UV := .venv/bin/uv
RUN := .venv/bin/
# Eleven processes that each compile the same sources wait for nothing: let them keep what they compiled.
export PYTHONDONTWRITEBYTECODE :=
# Certificates that the machine trusts, a company's own among them (the second name is of older versions of uv).
export UV_SYSTEM_CERTS ?= 1
export UV_NATIVE_TLS ?= 1

# All extras but those of gigabytes, and those that compile for minutes.
EXTRAS = $(shell sed -n '/^\[project.optional/,/^$$/s/^\([a-z0-9-]*\) = .*/--extra \1/p' pyproject.toml | grep -v -e torch -e llamacpp)

.PHONY: env lock demo test check bench drills torture format clean

env: .venv/.ready ## make the environment (venv, uv, locked dependencies)

.venv/.ready: pyproject.toml requirements.lock
	test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check "uv>=0.9"; }
	$(UV) pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(UV) pip install --quiet --no-deps -e .
	touch .venv/.ready

lock: env ## pin every dependency anew, with hashes
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header $(EXTRAS) --group dev -o requirements.lock pyproject.toml
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header $(EXTRAS) --group dev --group bench -c requirements.lock -o requirements-bench.lock pyproject.toml
	echo "litellm[proxy]>=1.106" | $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header -o requirements-litellm.lock -

demo: env ## start the boutique in one process and print where to look
	$(RUN)seamline up --app examples/boutique

check: env ## style, types and layers, and what the boutique's contracts promise
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)pyright
	$(RUN)lint-imports
	$(RUN)seamline check --app examples/boutique

test: check ## everything: style, types, layers, and the whole test suite
	$(RUN)pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: env ## our figures beside the peers', in one run: make bench [ONLY=row_name]
	$(UV) pip install --quiet --require-hashes -r requirements-bench.lock
	test -x .venv/peers/node_modules/.bin/restate-server || npm install --silent --no-audit --no-fund --prefix .venv/peers @restatedev/restate-server@1.7
	test -x .venv/peers/litellm/bin/litellm || { $(UV) venv --quiet --python .venv/bin/python .venv/peers/litellm && $(UV) pip install --quiet --python .venv/peers/litellm/bin/python --require-hashes -r requirements-litellm.lock; }
	$(RUN)python -m benchmarks $(if $(ONLY),--only $(ONLY))

drills: env ## plant each fault in the boutique under load: noticed? explained? (make drills ARGS="--rounds 3 --quiet 3600")
	$(RUN)seamline drill score --app examples/boutique $(ARGS)

torture: env ## the long attacks: kill sweeps, fuzzing with a large budget, repeated switches
	$(RUN)pytest -m torture

format: env
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

clean: ## forget the environment and what the examples have stored
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache examples/boutique/.seamline examples/adoption/.seamline
