# SPDX-License-Identifier: Apache-2.0
# Sourced by jobs/quickstart.sh and tests/run.sh: installs what is missing, builds the CPU preset, says how to start ranks.
# What is there already is left alone; the second time this takes seconds.
#
# Environment: AMALGAM_TORCH  folder of a LibTorch to use instead of the wheel (holds include/ and lib/)
#              AMALGAM_JOBS   parallel compilations (default: number of cores)

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv="$project/.venv"
stamps="$venv/.amalgam"
torch_version=2.11.0

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

debian_packages="build-essential pkg-config python3-venv git libopenmpi-dev openmpi-bin libhdf5-openmpi-dev libboost-log-dev
  libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libxxhash-dev libgtest-dev ninja-build ccache"

# Libraries of the distribution. On machines without apt they come from modules or Spack: INSTALL says how.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    command -v mpirun >/dev/null || fail "mpirun is not on the PATH (Open MPI is needed); load your site's modules, see INSTALL"
    return
  fi
  local missing=""
  for package in $debian_packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -z "$missing" ] && return
  say "installing$missing"
  local root=""
  [ "$(id -u)" = 0 ] || root=sudo
  $root apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq $missing >/dev/null
}

# once NAME COMMAND...: runs the command unless it has succeeded before in this virtual environment.
once() {
  local name=$1
  shift
  [ -f "$stamps/$name" ] && return
  say "$name"
  "$@"
  touch "$stamps/$name"
}

make_venv() {
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  mkdir -p "$stamps"
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# LibTorch from the wheel. For running and building, the CPU part and the two small CUDA libraries that it links are enough.
install_torch_for_build() {
  if [ -n "${AMALGAM_TORCH:-}" ] || [ -f "$stamps/torch-whole-$torch_version" ]; then return; fi
  once "torch-$torch_version" pip_install --no-deps "torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
}

# Whole PyTorch, for the parity tests' Python.
install_torch_for_python() { once "torch-whole-$torch_version" pip_install "torch==$torch_version"; }

build() {
  local torch=${AMALGAM_TORCH:-}
  [ -n "$torch" ] || torch=$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
  say "building (the first time takes some minutes)"
  (cd "$project" && "$venv/bin/cmake" --preset cpu -DAMALGAM_TORCH="$torch" "$@" >"$stamps/configure.log" 2>&1) ||
    { cat "$stamps/configure.log"; fail "cmake failed"; }
  "$venv/bin/cmake" --build "$project/build/cpu" --parallel "${AMALGAM_JOBS:-$(nproc)}" >"$stamps/build.log" 2>&1 ||
    { tail -n 60 "$stamps/build.log"; fail "the build failed ($stamps/build.log)"; }
}

# start_ranks N COMMAND...: one thread per rank; more ranks than cores are allowed; root is allowed (containers).
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
