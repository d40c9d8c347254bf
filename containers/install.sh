#!/bin/sh
# Gives an image's Python what the workflow runs on, in the versions of constraints.txt and no other; used by both recipes.
# Which build of PyTorch: UV_TORCH_BACKEND (cpu, auto, cu130, ...).
set -eu
cd "$(dirname "$0")/.."
python="$(command -v python)"

"$python" -m pip install --no-cache-dir --quiet --constraint constraints.txt uv
"$python" -m uv pip install --python "$python" --no-cache --quiet --compile-bytecode \
    --constraint constraints.txt --requirements pyproject.toml
"$python" containers/check_lock.py

# not as a package: a job would prefer it to the library beside the Snakefile that somebody else brings
command="$(dirname "$python")/voxloom"
printf '#!/bin/sh\nPYTHONPATH="%s/src" exec "%s" -m voxloom.cli "$@"\n' "$PWD" "$python" > "$command"
chmod +x "$command"
