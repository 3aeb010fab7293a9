# SPDX-License-Identifier: Apache-2.0
# Sourced by jobs/quickstart.sh and tests/run.sh: installs what is missing, builds a preset, starts ranks.
# What is there already is left alone; the second time this takes seconds.
#
# Environment: AMALGAM_TORCH     folder of a LibTorch to use instead of the wheel (holds include/ and lib/)
#              AMALGAM_JOBS      parallel compilations (default: number of cores)
#              AMALGAM_PACKAGES  "own": leave apt-get alone, the libraries come from modules or Spack

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv="$project/.venv"
stamps="$venv/.amalgam"
torch_version=2.11.0

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

debian_packages="build-essential pkg-config python3-venv git libopenmpi-dev openmpi-bin libhdf5-openmpi-dev libboost-log-dev
  zlib1g-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libgtest-dev ninja-build ccache"

# Libraries of the distribution. On machines without apt-get they come from modules or Spack: INSTALL says how.
install_packages() {
  if [ "${AMALGAM_PACKAGES:-}" = own ] || ! command -v apt-get >/dev/null; then
    check_commands
    return
  fi
  local missing="" package
  for package in $debian_packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -z "$missing" ] && return
  local root=""
  if [ "$(id -u)" != 0 ]; then
    root=sudo
    command -v sudo >/dev/null || fail "packages are missing and neither root nor sudo is there to install them:$missing" \
      "(ask for them, or take them from modules or Spack as INSTALL says and set AMALGAM_PACKAGES=own)"
  fi
  say "apt-get install$missing"
  $root apt-get update -qq
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# Of what is not ours to install, only the commands are looked for here: libraries hide in many places, and CMake finds them.
check_commands() {
  local missing="" name
  for name in c++ mpicc mpirun ninja python3; do
    command -v "$name" >/dev/null || missing="$missing $name"
  done
  [ -z "$missing" ] || fail "not on the PATH:$missing (a compiler, Open MPI, Ninja and Python are needed);" \
    "load your site's modules or install them, INSTALL lists everything"
}

# once NAME COMMAND...: runs the command unless the very same one has succeeded before in this virtual environment.
once() {
  local name=$1
  shift
  [ "$(cat "$stamps/$name" 2>/dev/null)" = "$*" ] && return
  say "installing $name"
  "$@"
  echo "$*" >"$stamps/$name"
}

make_venv() {
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  mkdir -p "$stamps"
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# pip_requirements FILE: installs what the file names, again when the file has changed.
pip_requirements() { once "${1//\//-}" pip_requirements_now "$1" "$(cksum <"$1")"; }
pip_requirements_now() { pip_install -r "$1"; }

# LibTorch from the wheel. For running and building, the CPU part and the two small CUDA libraries that it links are enough.
install_torch_for_build() {
  if [ -n "${AMALGAM_TORCH:-}" ] || [ -f "$stamps/torch-whole-$torch_version" ]; then return; fi
  once "torch-$torch_version" pip_install --no-deps "torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
}

# Whole PyTorch, for the parity tests' Python.
install_torch_for_python() { once "torch-whole-$torch_version" pip_install "torch==$torch_version"; }

torch_folder() {
  if [ -n "${AMALGAM_TORCH:-}" ]; then
    echo "$AMALGAM_TORCH"
  else  # found, not imported: without its other wheels it cannot be
    "$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])'
  fi
}

# build PRESET [CMAKE_OPTION...]
build() {
  local preset=$1 folder="$project/build/$1"
  shift
  say "building $preset (the first time takes some minutes)"
  mkdir -p "$folder"
  (cd "$project" && "$venv/bin/cmake" --preset "$preset" -DAMALGAM_TORCH="$(torch_folder)" "$@") >"$folder/configure.log" 2>&1 ||
    { cat "$folder/configure.log"; fail "cmake failed (if it missed a library: INSTALL says which are needed)"; }
  "$venv/bin/cmake" --build "$folder" --parallel "${AMALGAM_JOBS:-$(nproc)}" >"$folder/build.log" 2>&1 ||
    { tail -n 60 "$folder/build.log"; fail "the build failed; all it said is in $folder/build.log"; }
}

# start_ranks N COMMAND...: more ranks than cores are allowed, and root is (containers). The ranks share the cores.
start_ranks() {
  local ranks=$1
  shift
  local flags="--oversubscribe --bind-to none"
  if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  # Not permitted in many containers, and Open MPI says so at length.
  export OMPI_MCA_btl_vader_single_copy_mechanism=none
  mpirun $flags -np "$ranks" "$@"
}
