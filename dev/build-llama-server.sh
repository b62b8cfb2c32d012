#!/bin/sh
# Build llama-server from the llama.cpp that the source package of llama-cpp-python carries.
#
#   dev/build-llama-server.sh OUT [VERSION]
#
# Leaves OUT/llama-server, linked statically but for the system's own libraries: it can be copied anywhere on this
# kind of machine. Needs pip, cmake and a C++ compiler; ten to twenty minutes on two cores. Started again, it goes on
# where it stopped. PYTHON and JOBS choose the interpreter and how many compilers run (default: 2).
set -eu

out=${1:?usage: build-llama-server.sh OUT [VERSION]}
version=${2:-0.3.36}
python=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
source=$out/llama_cpp_python-$version/vendor/llama.cpp

if [ ! -d "$source" ]; then
    "$python" -m pip download --quiet --no-deps --no-binary :all: --dest "$out" "llama-cpp-python==$version"
    tar -xzf "$out/llama_cpp_python-$version.tar.gz" -C "$out"
fi

# The page is left out: building it needs npm, fetching it a download. So are TLS and what else is not served here.
cmake -S "$source" -B "$out/build" \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
cmake --build "$out/build" --target llama-server --config Release -j "${JOBS:-2}"
cp "$out/build/bin/llama-server" "$out/llama-server"
"$out/llama-server" --version
