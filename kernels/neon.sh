#!/bin/sh
# The kernels of 64-bit ARM against plain C++, on another machine: sh kernels/neon.sh. Needs a cross compiler
# (g++-aarch64-linux-gnu) and an emulator (qemu-user). No Python: tests/tables.cpp calls the kernels.
# CXX, QEMU and SYSROOT name others; CXXFLAGS the optimization.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cxx=${CXX:-aarch64-linux-gnu-g++} qemu=${QEMU:-qemu-aarch64} root=${SYSROOT:-/usr/aarch64-linux-gnu}
build=$here/build/neon
mkdir -p "$build"
compile() {
    file=$1
    shift
    # As CMakeLists.txt compiles them.
    "$cxx" -std=c++20 ${CXXFLAGS:--O1} -Wall -Wextra -Werror -fopenmp-simd -ffp-contract=off -DHARNESS_ARM=1 \
        -I"$here/src/cpp" "$@" -c "$here/$file.cpp" -o "$build/$(basename "$file").o"
}
compile src/cpp/neon
compile src/cpp/dotprod -march=armv8.2-a+dotprod
compile src/cpp/portable
compile src/cpp/dispatch
compile tests/tables
"$cxx" "$build"/neon.o "$build"/dotprod.o "$build"/portable.o "$build"/dispatch.o "$build"/tables.o -o "$build/tables"
# A processor without dot products, and one with everything.
"$qemu" -cpu cortex-a57 -L "$root" "$build/tables" neon portable
"$qemu" -cpu max -L "$root" "$build/tables" dotprod neon portable
