#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs what another machine needs to run the CUDA build: the stripped programs and the shared libraries that machine
# lacks, into .carry/ of the repository's root. Not packed: the C and C++ run-time libraries, Open MPI, LibTorch and
# CUDA, which that machine has (tests/gpu/start.sh finds them there).
#
# usage: tests/gpu/pack.sh BUILD_FOLDER [FILE...]     FILEs (inputs) are copied into .carry/ too
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: tests/gpu/pack.sh BUILD_FOLDER [FILE...]" >&2; exit 2; }
build=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
carry=$root/.carry
[ -x "$build/src/amalgam" ] || {
    echo "$build/src/amalgam: not there (build the cuda preset first; with AMALGAM_STATIC_BOOST=ON Boost need not travel)" >&2
    exit 2
}
rm -rf "$carry/lib"
mkdir -p "$carry/lib"

there='^(linux-vdso|ld-linux|libc|libm|libdl|librt|libutil|libresolv|libpthread|libstdc\+\+|libgcc_s|libgomp)\.|^(libmpi|libopen-rte|libopen-pal|libhwloc|libevent|libudev)|^(libtorch|libc10|libcud|libcu|libnccl|libnv)'
for program in "$build/src/amalgam" "$build/tests/benchmarks/training_step_benchmark" \
    "$build"/tests/benchmarks/{sharded_step,context}_benchmark "$build/tests/sharding/context_test" "$build"/tests/{operations,mixers,model,optimizer,objectives,training}/*_test; do
    [ -x "$program" ] || { echo "$program: not there, not packed" >&2; continue; }
    strip -o "$carry/$(basename "$program")" "$program"
    # libcurl begins like CUDA's libraries but is none of them.
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | while read -r name file; do
        if [[ $name =~ ^libcurl ]] || ! [[ $name =~ $there ]]; then cp -L "$file" "$carry/lib/$name"; fi
    done
done
for file in "$@"; do cp -rL "$file" "$carry/"; done

# Everything that git does not ignore travels with it.
tree=$(cd "$root" && { git ls-files -z --cached --others --exclude-standard; } | xargs -0 du -c --apparent-size -k 2>/dev/null | awk '$2 == "total" { sum += $1 } END { print int(sum / 1024) }')
echo ".carry: $(du -sm --apparent-size "$carry" | cut -f1) MiB, the working tree: $tree MiB"
