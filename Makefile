# `make check` is what must pass; `make format` mends what can be mended.
.PHONY: check format-check lint types imports test format

check: format-check lint types imports test

format-check:
	ruff format --check .

lint:
	ruff check .

types:
	mypy

imports:
	lint-imports

# A process for each core, each with whole files: what a file trains once, all its tests share.
test:
	pytest -n auto --dist loadfile

format:
	ruff format .
	ruff check --fix .
