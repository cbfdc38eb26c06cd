# What one does with a clone of fused: run, test, check, install.  Each target fetches what it needs.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# Debian's Python: one from a home directory is out of reach for services.
PYTHON ?= /usr/bin/python3

export PYTHON
python = .venv/bin/python
library = $(PREFIX)/lib/fused
documents = $(PREFIX)/share/doc/fused

.PHONY: help run test check bench fault install clean
.PHONY: prepare-build prepare-run prepare-test prepare-bench

help:
	@echo 'make run      the manager in the foreground, on config/demo.yaml, with mounts in run/mnt'
	@echo 'make test     all tests, with real mounts and under a real systemd'
	@echo 'make check    lint, types, architecture, units'
	@echo 'make bench    speed beside peers'
	@echo 'make fault    SECONDS=$(SECONDS): kill workers under load'
	@echo 'make install  DESTDIR= PREFIX=$(PREFIX)'

prepare-build prepare-run prepare-test prepare-bench: prepare-%:
	@packaging/prepare $*

# Everything is fetched and compiled once, into .venv/wheels; `install` builds from there, too.
.venv/ready: pyproject.toml | prepare-build
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip -qq wheel --use-pep517 --wheel-dir .venv/wheels setuptools '.[dev]'
	rm -rf build .venv/wheels/fused-*.whl
	.venv/bin/pip -qq install --no-index --find-links .venv/wheels \
		--config-settings editable_mode=compat --editable '.[dev]'
	touch $@

.venv/exec.so: packaging/exec.c | .venv/ready
	cc -shared -fPIC -o $@ $<

run/demo.yaml: config/demo.yaml
	@mkdir -p run
	@sed 's|: \./|: $(CURDIR)/|g' $< > $@

# make becomes the manager: signals go to the manager, and how it ends is how `make run` ends.
dry = $(findstring n,$(firstword -$(MAKEFLAGS)))
become = $(if $(dry),$(1),$(eval load ./.venv/exec.so)$(exec exec $(1)))
run: prepare-run .venv/ready .venv/exec.so run/demo.yaml
	@$(call become,$(python) -m fused --config run/demo.yaml --runtime-dir run/state --launcher local)

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(python) -m pytest -q tests/unit/test_imports.py tests/unit/test_units.py

test: prepare-test check
	$(python) -m pytest

# ARGS=--help tells what can be asked for, ARGS=--quick is a rough table in few minutes.
bench: prepare-bench .venv/ready
	PYTHONPATH=tests $(python) -m bench $(ARGS)

# Workers are killed under load for so long, on each kind of mount; SEED= replays a failure.
SECONDS ?= 60
fault: prepare-run .venv/ready
	PYTHONPATH=tests $(python) -m fault.storm $(SECONDS) $(SEED)

# The virtual environment is built beside its place and renamed: an upgrade under running mounts is
# one moment long.  What pip writes into it names the place where it will be, without DESTDIR.
install: new = $(DESTDIR)$(library)/venv.new
install: old = $(DESTDIR)$(library)/venv.old
install: unit = sed 's|@BIN@|$(library)/venv/bin|; s|@DOC@|$(documents)|'
install: .venv/ready
	rm -rf build "$(new)" "$(old)"
	$(PYTHON) -m venv --without-pip "$(new)"
	.venv/bin/pip -qq --python "$(new)/bin/python" install --no-index \
		--find-links .venv/wheels --no-compile --no-warn-script-location .
	rm -rf build "$(new)"/bin/[Aa]ctivate* "$(new)"/lib/python3*/site-packages/fused-*/direct_url.json
	find "$(new)/bin" "$(new)/pyvenv.cfg" -type f -exec sed -i 's|$(new)|$(library)/venv|g' {} +
	$(PYTHON) -m compileall -q -s "$(new)" -p "$(library)/venv" "$(new)/lib"
	test ! -e "$(DESTDIR)$(library)/venv" || mv "$(DESTDIR)$(library)/venv" "$(old)"
	mv "$(new)" "$(DESTDIR)$(library)/venv"
	rm -rf "$(old)"
	install -d "$(DESTDIR)$(PREFIX)/bin"
	ln -sfn "$(library)/venv/bin/fused" "$(DESTDIR)$(PREFIX)/bin/fused"
	ln -sfn "$(library)/venv/bin/fusedctl" "$(DESTDIR)$(PREFIX)/bin/fusedctl"
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system"
	for name in fused.service fused.socket fused.target fused@.service; do \
		$(unit) "units/$$name" > "$(DESTDIR)$(PREFIX)/lib/systemd/system/$$name" || exit; \
	done
	install -D -m 644 units/fused.sysusers "$(DESTDIR)$(PREFIX)/lib/sysusers.d/fused.conf"
	install -D -m 644 units/fused.tmpfiles "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/fused.conf"
	install -D -m 644 units/fused.preset \
		"$(DESTDIR)$(PREFIX)/lib/systemd/system-preset/90-fused.preset"
	test -e "$(DESTDIR)$(SYSCONFDIR)/fused.yaml" || \
		install -D -m 644 config/fused.yaml "$(DESTDIR)$(SYSCONFDIR)/fused.yaml"
	install -d "$(DESTDIR)$(documents)/examples"
	install -m 644 README.md LICENSE config/fused.schema.json "$(DESTDIR)$(documents)"
	install -m 644 config/examples/* "$(DESTDIR)$(documents)/examples"
ifeq ($(DESTDIR),)
	systemd-sysusers "$(PREFIX)/lib/sysusers.d/fused.conf"
	systemd-tmpfiles --create "$(PREFIX)/lib/tmpfiles.d/fused.conf"
endif

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
