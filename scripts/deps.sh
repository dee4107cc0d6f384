#!/usr/bin/env bash
# Installs what building and testing needs, on Debian 12 or later and Ubuntu 22.04 or later.
# Only what is missing is installed; with nothing missing no rights are needed. Needs apt-get, and
# root or sudo.
#     scripts/deps.sh [--slim|--mpi]      --slim: what `cmake --preset slim` needs, no more
#                                         --mpi: Open MPI as well, for CPU ranks on several machines
set -euo pipefail

packages=(
  build-essential cmake ninja-build pkg-config # compiler and build
  libjansson-dev libyaml-dev                   # JSON, settings
  libcmocka-dev                                # tests
)
case ${1:-} in
  --slim) ;;
  '' | --mpi) packages+=(
    libdnnl-dev             # matrix products on the CPU
    libsentencepiece-dev    # tokenizer
    libhdf5-dev libzstd-dev # token shards
    zlib1g-dev              # corpora packed with gzip
  ) ;;
  *) echo "usage: scripts/deps.sh [--slim|--mpi]" >&2; exit 2 ;;
esac
if [[ ${1:-} == --mpi ]]; then packages+=(openmpi-bin libopenmpi-dev); fi

if ! command -v dpkg-query > /dev/null; then
  echo "deps.sh: no dpkg here; install the likes of: ${packages[*]}" >&2
  exit 1
fi
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2> /dev/null || true)
  [[ $status == "install ok installed" ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "deps.sh: all ${#packages[@]} packages are installed"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo > /dev/null; then
    echo "deps.sh: missing ${missing[*]}; install them as root" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "deps.sh: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
echo "deps.sh: done; python3-h5py is of use for looking into shards, but nothing needs it"
