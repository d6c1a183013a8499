# Compiler flags shared by every target of umbriel, as the interface target umbriel_flags.
#
# Results are bit-equal for one build, so nothing here may let the compiler reorder sums (-ffast-math).
# -fno-math-errno and -fno-trapping-math change no value; they let square roots and divisions vectorise.
add_library(umbriel_flags INTERFACE)
target_compile_options(umbriel_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno -fno-trapping-math>)
set(UMBRIEL_NVCC OFF)
if(UMBRIEL_CUDA AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(UMBRIEL_NVCC ON)
endif()
if(UMBRIEL_NVCC)
  # Kernels call constexpr functions of the standard library, whose host versions serve on the device too.
  target_compile_options(umbriel_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-expt-relaxed-constexpr>)
endif()
if(UMBRIEL_NATIVE)
  # Where Kokkos compiles for CUDA, nvcc_wrapper hands these to the host compiler.
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-march=native UMBRIEL_HAS_MARCH_NATIVE)
  if(UMBRIEL_HAS_MARCH_NATIVE)
    target_compile_options(umbriel_flags INTERFACE -march=native)
    # GCC uses half-width vectors on AVX-512 machines unless told otherwise.
    check_cxx_compiler_flag(-mprefer-vector-width=512 UMBRIEL_HAS_VECTOR_WIDTH)
    if(UMBRIEL_HAS_VECTOR_WIDTH)
      target_compile_options(umbriel_flags INTERFACE -mprefer-vector-width=512)
    endif()
  endif()
endif()
if(UMBRIEL_BOUNDS_CHECK)
  target_compile_definitions(umbriel_flags INTERFACE KOKKOS_ENABLE_DEBUG_BOUNDS_CHECK)
endif()
if(UMBRIEL_BUILD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "The fuzzers need Clang's libFuzzer: configure with CXX=clang++ CC=clang, or jobs/fuzz.sh.")
  endif()
  # Everything is watched: memory, undefined behaviour, and the standard library's own assertions.
  set(UMBRIEL_SANITIZE fuzzer-no-link,address,undefined,float-cast-overflow)
  target_compile_options(umbriel_flags INTERFACE -O1 -gline-tables-only -UNDEBUG -D_GLIBCXX_ASSERTIONS)
endif()
if(UMBRIEL_SANITIZE)
  target_compile_options(umbriel_flags INTERFACE -fsanitize=${UMBRIEL_SANITIZE} -fno-omit-frame-pointer
                                                 -fno-sanitize-recover=undefined)
  target_link_options(umbriel_flags INTERFACE -fsanitize=${UMBRIEL_SANITIZE})
endif()

# umbriel_host_only(sources ...): for sources of this folder that do not include Kokkos, and whose libraries nvcc's front
# end does not understand (toml++, fmt): nvcc_wrapper calls the host compiler for them.
function(umbriel_host_only)
  if(UMBRIEL_NVCC)
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "--host-only")
  endif()
endfunction()

set(UMBRIEL_WARNINGS -Wall -Wextra -Wpedantic)
if(UMBRIEL_WERROR)
  list(APPEND UMBRIEL_WARNINGS -Werror)
endif()
set(UMBRIEL_NO_UNDEFINED)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT UMBRIEL_SANITIZE)
  set(UMBRIEL_NO_UNDEFINED -Wl,--no-undefined)
endif()
