#!/usr/bin/env bash
# Checks that everything umbriel is built from is there. On Debian and Ubuntu what is missing is installed (as root, or
# with sudo where that asks for no password); elsewhere the packages are listed with their Spack and module names.
#
#   jobs/dependencies.sh [--without-tests] [--with-fuzzers] [--check]
#     --without-tests  GoogleTest is not needed
#     --with-fuzzers   Clang's libFuzzer is (jobs/fuzz.sh)
#     --check          install nothing, only say what is missing
#
# Exit codes: 0 all is there, 2 something is missing.
# Software in unusual places is found through CXX, CPATH, CMAKE_PREFIX_PATH, Kokkos_ROOT, HDF5_ROOT and pkg-config.
set -euo pipefail

tests=yes
fuzzers=no
install=yes
for argument in "$@"; do
  case "$argument" in
    --without-tests) tests=no ;;
    --with-fuzzers) fuzzers=yes ;;
    --check) install=no ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: unknown option $argument (see $0 --help)" >&2; exit 2 ;;
  esac
done

compiler=${CXX:-}
if [ -z "$compiler" ]; then
  for candidate in c++ g++ clang++ CC; do
    if command -v "$candidate" >/dev/null; then compiler=$candidate; break; fi
  done
fi

# --- Where headers may be --------------------------------------------------------------------------------------------
include_folders=()
if [ -n "$compiler" ] && command -v "${compiler%% *}" >/dev/null; then
  while read -r folder; do include_folders+=("$folder"); done < <(
    echo | LC_ALL=C $compiler -E -v -x c++ - 2>&1 >/dev/null | sed -n '/search starts here/,/End of search/{s/^ //p}')
fi
for list in "${CPATH:-}" "${CPLUS_INCLUDE_PATH:-}"; do
  while read -r -d : folder; do [ -z "$folder" ] || include_folders+=("$folder"); done <<<"$list:"
done
for name in CMAKE_PREFIX_PATH Kokkos_ROOT HDF5_ROOT HDF5_DIR MPI_HOME FFTW_ROOT FFTW_DIR CFITSIO_ROOT; do
  while read -r -d : folder; do [ -z "$folder" ] || include_folders+=("$folder/include"); done <<<"$(printenv "$name" || true):"
done

# find_header NAME...: the first of the names that some include folder has.
find_header() {
  local folder name
  for name in "$@"; do
    for folder in "${include_folders[@]}"; do
      if [ -e "$folder/$name" ]; then echo "$folder/$name"; return 0; fi
    done
  done
  return 1
}

# version_at_least HAVE NEED
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# --- One check each ----------------------------------------------------------------------------------------------------
has_compiler() {
  [ -n "$compiler" ] && printf '#include <concepts>\n#include <numbers>\n#include <span>\nint main() {}\n' |
    $compiler -std=c++20 -x c++ -fsyntax-only - 2>/dev/null
}
has_cmake() { command -v cmake >/dev/null && version_at_least "$(cmake --version | awk 'NR == 1 { print $3 }')" 3.22; }
has_builder() { command -v ninja >/dev/null || command -v make >/dev/null; }
has_mpi() { command -v mpicc >/dev/null || [ -n "${CRAY_MPICH_DIR:-}" ] || find_header mpi.h >/dev/null; }
has_hdf5() {
  local settings
  if command -v h5pcc >/dev/null; then return 0; fi
  settings=$(find_header hdf5/openmpi/H5pubconf.h hdf5/mpich/H5pubconf.h H5pubconf.h) || return 1
  # Some distributions put the settings of each architecture in a file of its own.
  cat "$settings" "${settings%.h}"-64.h 2>/dev/null | grep -q '^#define H5_HAVE_PARALLEL 1'
}
has_kokkos() { find_header Kokkos_Core.hpp trilinos/Kokkos_Core.hpp kokkos/Kokkos_Core.hpp >/dev/null; }
has_eigen() { find_header Eigen/Core eigen3/Eigen/Core >/dev/null; }
has_healpix() { find_header healpix_cxx/healpix_base.h healpix_base.h >/dev/null; }
has_openssl() { find_header openssl/evp.h >/dev/null; }
has_fuzzer() { echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
  clang++ -fsanitize=fuzzer,address,undefined -x c++ - -o /dev/null 2>/dev/null; }
has_gtest() { find_header gtest/gtest.h >/dev/null; }
has() { find_header "$1" >/dev/null; }

# name | check | Debian package | Spack spec | usual module
table='
C++20 compiler (GCC 11, Clang 14 or newer) | has_compiler | g++ | gcc@12: | gcc
CMake 3.22 or newer | has_cmake | cmake | cmake | cmake
ninja or make | has_builder | ninja-build | ninja | ninja
MPI | has_mpi | libopenmpi-dev openmpi-bin | openmpi | openmpi, cray-mpich
HDF5, parallel, with its high-level library | has_hdf5 | libhdf5-openmpi-dev | hdf5+mpi+hl | hdf5/…-parallel, cray-hdf5-parallel
Kokkos 3.4 or newer | has_kokkos | libtrilinos-kokkos-dev | kokkos+openmp cxxstd=20 | kokkos
FFTW in single and double precision | has fftw3.h | libfftw3-dev | fftw precision=float,double | fftw, cray-fftw
oneDNN | has dnnl.h | libdnnl-dev | onednn | onednn
Eigen | has_eigen | libeigen3-dev | eigen | eigen
libLBFGS | has lbfgs.h | liblbfgs-dev | liblbfgs | liblbfgs
CFITSIO | has fitsio.h | libcfitsio-dev | cfitsio | cfitsio
WCSLIB | has wcslib/wcs.h | wcslib-dev | wcslib | wcslib
HEALPix C++ | has_healpix | libhealpix-cxx-dev | healpix-cxx | healpix
Random123 | has Random123/philox.h | librandom123-dev | random123 | random123
fmt | has fmt/format.h | libfmt-dev | fmt | fmt
spdlog | has spdlog/spdlog.h | libspdlog-dev | spdlog | spdlog
CLI11 | has CLI/CLI.hpp | libcli11-dev | cli11 | cli11
toml++ | has toml++/toml.h | libtomlplusplus-dev | tomlplusplus | tomlplusplus
nlohmann-json | has nlohmann/json.hpp | nlohmann-json3-dev | nlohmann-json | nlohmann_json
libpng | has png.h | libpng-dev | libpng | libpng
OpenSSL | has_openssl | libssl-dev | openssl | openssl
'
if [ "$tests" = yes ]; then
  table+='GoogleTest | has_gtest | libgtest-dev | googletest | googletest
'
fi
if [ "$fuzzers" = yes ]; then
  table+='libFuzzer, of Clang | has_fuzzer | clang libclang-rt-14-dev | llvm | llvm
'
fi

missing_names=()
missing_packages=()
missing_rows=()
check_all() {
  missing_names=() missing_packages=() missing_rows=()
  local name check package spack module
  while IFS='|' read -r name check package spack module; do
    name=$(echo $name) check=$(echo $check) package=$(echo $package)
    if [ -z "$name" ] || $check; then continue; fi
    missing_names+=("$name")
    read -ra packages <<<"$package"
    missing_packages+=("${packages[@]}")
    missing_rows+=("$(printf '  %-44s spack: %-32s module: %s' "$name" "$(echo $spack)" "$(echo $module)")")
  done <<<"$table"
}

check_all
if [ ${#missing_names[@]} -eq 0 ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
  {
    echo "umbriel needs what is not here (or not loaded):"
    printf '%s\n' "${missing_rows[@]}"
    echo
    echo "Load the modules, or put them in place with Spack (https://spack.io):"
    echo "  spack install$(printf '%s\n' "${missing_rows[@]}" | sed 's/.*spack: \(.*\) module:.*/\1/; s/ *$//' | tr '\n' ' ' | sed 's/^/ /')"
    echo "  spack load    the same names; then run this again. CMAKE_PREFIX_PATH tells umbriel of other places."
  } >&2
  exit 2
fi

# --- Debian and Ubuntu ---------------------------------------------------------------------------------------------------
# A compiler from apt looks for apt's headers only; pkg-config lets CMake find the rest.
packages=("${missing_packages[@]}" pkg-config)
command="apt-get install -y --no-install-recommends ${packages[*]}"
if [ "$install" = no ]; then
  printf 'missing: %s\n' "${missing_names[@]}" >&2
  echo "install with (as root): apt-get update && $command" >&2
  exit 2
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    printf 'missing: %s\n' "${missing_names[@]}" >&2
    echo "Run this once, as root or through sudo, and start again:" >&2
    echo "  apt-get update && $command" >&2
    exit 2
  fi
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >"$log" 2>&1 ||
    { cat "$log" >&2; echo "error: apt-get $* failed" >&2; return 1; }
}
echo "Installing ${missing_names[*]/%/,} please wait …" | sed 's/, please/; please/'
apt update || echo "warning: the package lists are old" >&2
# Newer releases have Kokkos as a package of its own.
for i in "${!packages[@]}"; do
  if [ "${packages[$i]}" = libtrilinos-kokkos-dev ] && ! apt-cache show libtrilinos-kokkos-dev >/dev/null 2>&1; then
    packages[$i]=libkokkos-dev
  fi
done
apt install -y --no-install-recommends "${packages[@]}" || exit 2

hash -r
exec "$0" --check "$@"
