#!/bin/sh
# The kernels' tests under the address and undefined-behaviour sanitizers: sh kernels/sanitize.sh [pytest options].
# Builds into build/sanitize (PYTHON names an interpreter that has torch, pytest, nanobind; CXX the compiler).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
build=$here/build/sanitize
cmake -G Ninja -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=None -DHARNESS_KERNELS_SANITIZE=ON -DPython_EXECUTABLE="$python"
cmake --build "$build"
mkdir -p "$build/package/harness_kernels"
cp "$here"/src/harness_kernels/*.py "$build"/_native*.so "$build/package/harness_kernels/"
runtime="$("${CXX:-c++}" -print-file-name=libasan.so) $("${CXX:-c++}" -print-file-name=libubsan.so)"
# The interpreter keeps memory on purpose, so leaks are not looked for; it is not built for the sanitizers either.
cd "$here/.."
PYTHONPATH="$build/package" LD_PRELOAD="$runtime" OMP_NUM_THREADS=1 \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    exec "$python" -m pytest -q -p no:cacheprovider -p no:xdist tests/test_kernels.py tests/test_kernels_formats.py "$@"
