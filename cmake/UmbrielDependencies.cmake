# Finds every dependency and repairs what package managers ship broken. Each missing one is named with its Debian
# package; jobs/dependencies.sh lists them all and installs them on Debian and Ubuntu.
include(FindPackageHandleStandardArgs)
find_package(PkgConfig QUIET)

macro(umbriel_need found what package)
  if(NOT ${found})
    message(FATAL_ERROR "${what} was not found (Debian and Ubuntu: apt-get install ${package}). "
                        "jobs/dependencies.sh lists all that umbriel needs, with Spack and module names.")
  endif()
endmacro()

# umbriel_find_library(target header library [suffixes ...]): an imported target for a library without a CMake config.
function(umbriel_find_library target header library)
  find_path(${target}_INCLUDE ${header} PATH_SUFFIXES ${ARGN})
  find_library(${target}_LIBRARY ${library})
  mark_as_advanced(${target}_INCLUDE ${target}_LIBRARY)
  if(${target}_INCLUDE AND ${target}_LIBRARY)
    add_library(umbriel::${target} UNKNOWN IMPORTED)
    set_target_properties(umbriel::${target} PROPERTIES IMPORTED_LOCATION "${${target}_LIBRARY}"
                          INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${${target}_INCLUDE}"
                          INTERFACE_INCLUDE_DIRECTORIES "${${target}_INCLUDE}")
    set(${target}_FOUND TRUE PARENT_SCOPE)
  endif()
endfunction()

# --- Kokkos: a newer one first (Kokkos_ROOT, CMAKE_PREFIX_PATH), else Debian's 3.4 from Trilinos. -----------------
find_package(Kokkos QUIET)
umbriel_need(Kokkos_FOUND "Kokkos (3.4 or newer)" libtrilinos-kokkos-dev)
add_library(umbriel_kokkos INTERFACE)
if(TARGET Kokkos::kokkos)
  target_link_libraries(umbriel_kokkos INTERFACE Kokkos::kokkos)
else()
  # Debian's target carries neither its include folder nor a namespace.
  find_path(umbriel_kokkos_INCLUDE Kokkos_Core.hpp PATH_SUFFIXES trilinos REQUIRED)
  target_include_directories(umbriel_kokkos SYSTEM INTERFACE "${umbriel_kokkos_INCLUDE}")
  find_library(umbriel_kokkos_LIBRARY NAMES trilinos_kokkoscore kokkoscore REQUIRED)
  target_link_libraries(umbriel_kokkos INTERFACE "${umbriel_kokkos_LIBRARY}" ${CMAKE_DL_LIBS})
endif()
set(UMBRIEL_CUDA OFF)
if("CUDA" IN_LIST Kokkos_DEVICES)
  set(UMBRIEL_CUDA ON)
endif()

# --- Message passing and files -------------------------------------------------------------------------------------
find_package(MPI QUIET COMPONENTS C)
umbriel_need(MPI_C_FOUND "MPI" libopenmpi-dev)
set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 QUIET COMPONENTS C)
umbriel_need(HDF5_FOUND "HDF5" libhdf5-openmpi-dev)
umbriel_need(HDF5_IS_PARALLEL "Parallel HDF5 (only a serial one was found)" libhdf5-openmpi-dev)
add_library(umbriel_hdf5 INTERFACE)
target_include_directories(umbriel_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(umbriel_hdf5 INTERFACE ${HDF5_C_LIBRARIES} MPI::MPI_C)

umbriel_find_library(cfitsio fitsio.h cfitsio cfitsio)
umbriel_need(cfitsio_FOUND "CFITSIO" libcfitsio-dev)
umbriel_find_library(wcslib wcslib/wcs.h wcs wcslib)
umbriel_need(wcslib_FOUND "WCSLIB" wcslib-dev)

# --- Numerics ------------------------------------------------------------------------------------------------------
umbriel_find_library(fftw3f fftw3.h fftw3f)
umbriel_need(fftw3f_FOUND "FFTW in single precision" libfftw3-dev)
find_path(umbriel_random123_INCLUDE Random123/philox.h)
umbriel_need(umbriel_random123_INCLUDE "Random123" librandom123-dev)
add_library(umbriel_random123 INTERFACE)
target_include_directories(umbriel_random123 SYSTEM INTERFACE "${umbriel_random123_INCLUDE}")

# --- Text, pictures, command line ----------------------------------------------------------------------------------
find_package(fmt QUIET)
umbriel_need(fmt_FOUND "fmt" libfmt-dev)
find_package(spdlog QUIET)
umbriel_need(spdlog_FOUND "spdlog" libspdlog-dev)
find_package(nlohmann_json QUIET)
umbriel_need(nlohmann_json_FOUND "nlohmann-json" nlohmann-json3-dev)
find_package(CLI11 QUIET)
umbriel_need(CLI11_FOUND "CLI11" libcli11-dev)
find_path(umbriel_tomlplusplus_INCLUDE toml++/toml.h)
umbriel_need(umbriel_tomlplusplus_INCLUDE "toml++" libtomlplusplus-dev)
add_library(umbriel_tomlplusplus INTERFACE)
target_include_directories(umbriel_tomlplusplus SYSTEM INTERFACE "${umbriel_tomlplusplus_INCLUDE}")
find_package(OpenSSL QUIET COMPONENTS Crypto)
umbriel_need(OPENSSL_FOUND "OpenSSL's libcrypto" libssl-dev)
find_package(PNG QUIET)
umbriel_need(PNG_FOUND "libpng" libpng-dev)
if(UMBRIEL_BUILD_TESTS)
  find_package(GTest QUIET)
  umbriel_need(GTest_FOUND "GoogleTest" libgtest-dev)
endif()
if(UMBRIEL_BUILD_BENCHMARKS)
  find_package(benchmark QUIET)
  umbriel_need(benchmark_FOUND "Google Benchmark" libbenchmark-dev)
endif()

# --- NVIDIA: cuFFT, NCCL and cuDNN where the toolkit is there -------------------------------------------------------
find_package(CUDAToolkit QUIET)
set(UMBRIEL_NCCL OFF)
set(UMBRIEL_CUDNN OFF)
if(CUDAToolkit_FOUND)
  umbriel_find_library(nccl nccl.h nccl)
  umbriel_find_library(cudnn cudnn.h cudnn)
  set(UMBRIEL_NCCL ${nccl_FOUND})
  set(UMBRIEL_CUDNN ${cudnn_FOUND})
endif()
message(STATUS "umbriel: Kokkos ${Kokkos_VERSION} devices [${Kokkos_DEVICES}], CUDA kernels ${UMBRIEL_CUDA}, "
               "NCCL ${UMBRIEL_NCCL}, cuDNN ${UMBRIEL_CUDNN}")
