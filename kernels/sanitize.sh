#!/bin/sh
# The kernels' tests under the address and undefined-behaviour sanitizers: sh kernels/sanitize.sh [pytest options].
# With EMULATE=1 no sanitizers, but the AVX-512 kernels on AVX2, by SIMDe (libsimde-dev), on a machine without AVX-512.
# PYTHON names an interpreter that has torch, pytest and nanobind; CXX the compiler.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
if [ "${EMULATE:-}" ]; then
    build=$here/build/emulate option=HARNESS_KERNELS_EMULATE runtime=
else
    build=$here/build/sanitize option=HARNESS_KERNELS_SANITIZE
    runtime="$("${CXX:-c++}" -print-file-name=libasan.so) $("${CXX:-c++}" -print-file-name=libubsan.so)"
fi
cmake -G Ninja -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=None "-D$option=ON" -DPython_EXECUTABLE="$python"
cmake --build "$build"
mkdir -p "$build/package/harness_kernels"
cp -R "$here"/src/harness_kernels/. "$build"/_native*.so "$build/package/harness_kernels/"
# The interpreter keeps memory on purpose, so leaks are not looked for; it is not built for the sanitizers either.
cd "$here/.."
PYTHONPATH="$build/package" LD_PRELOAD="$runtime" OMP_NUM_THREADS=1 \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    exec "$python" -m pytest -q -p no:cacheprovider -p no:xdist tests/test_kernels.py tests/test_kernels_formats.py "$@"
