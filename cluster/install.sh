#!/bin/bash
# Install what `make cluster` packed into an environment of this machine's own, and have every shell find it.
#
#   install.sh [FOLDER]     by default ~/spatl
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$HOME/spatl}

wheel=$(echo "$here"/spatl_ray-*.whl)
if [ ! -f "$wheel" ]; then
    echo "there must be one wheel in $here: run make cluster, then this again; got $wheel" >&2
    exit 1
fi

[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
if ! cmp -s "$wheel" "$folder/installed.whl"; then
    "$folder/bin/python" -m pip install -c "$here/constraints.txt" "${wheel}[analysis,tune]"
    # Of the same version, but perhaps of another checkout.
    "$folder/bin/python" -m pip install --force-reinstall --no-deps "$wheel"
    cp "$wheel" "$folder/installed.whl"
fi

# Last in the file, so that no other Python comes first. `ray up`, `ray down` and jobs find this one by it.
if ! grep -qs "spatl cluster" ~/.bashrc; then
    {
        echo "# spatl cluster"
        echo "export PATH=\"$folder/bin:\$PATH\" RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1"
        echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=\"$here/auth_token\""
    } >>~/.bashrc
fi
