#!/usr/bin/env bash
# Writes the lock files anew, from pyproject.toml, the .in files and the versions of constraints.txt; needs uv.
set -euo pipefail
cd "$(dirname "$0")/../.."
lock() {  # OUT SOURCE...
    uv pip compile --quiet --generate-hashes --python-version 3.12 --python-platform x86_64-manylinux_2_35 \
        --no-annotate --custom-compile-command k8s/images/lock.sh -c constraints.txt -o "k8s/images/$1" "${@:2}"
}
lock server/cpu.lock k8s/images/server/cpu.in
lock server/gpu.lock k8s/images/server/gpu.in
lock trainer/build.lock k8s/images/trainer/build.in
lock trainer/requirements.lock pyproject.toml --extra all
