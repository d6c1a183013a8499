# Sourced by the scripts beside it: how many jobs, settings that let OpenMPI run anywhere, and `configure`.
# nproc takes OMP_NUM_THREADS, which users of MPI set to 1, for the number of cores.
JOBS=${JOBS:-$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)}

# OpenMPI: as root (containers), with more ranks than cores, without binding, and where containers forbid one process to
# read another's memory.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export OMP_PROC_BIND=${OMP_PROC_BIND:-false}

# configure BUILD OPTION...: quiet unless it fails. Ninja where there is one; a build folder keeps what it began with.
configure() {
  local folder=$1 generator=()
  shift
  if [ ! -e "$folder/CMakeCache.txt" ] && [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null; then
    generator=(-G Ninja)
  fi
  mkdir -p "$folder"
  if ! cmake -S . -B "$folder" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "$@" >"$folder/configure.log" 2>&1; then
    cat "$folder/configure.log" >&2
    echo "error: configuring $folder failed (the lines above)" >&2
    return 2
  fi
}
