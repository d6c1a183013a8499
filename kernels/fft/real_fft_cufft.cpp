// Real transforms by cuFFT, batched, on Kokkos' stream.
//
// cuFFT chooses its kernels from the grid and the number of transforms in a plan, so a map's bits could depend on how
// many maps it travels with. Therefore every map passes through a plan of the same number, a tile: a batch is cut into
// tiles, and what remains is copied into the head of a buffer of a whole tile. A plan for each batch size would save
// that copy, and give up the promise that a chain's bits do not depend on its batch. A tile holds some two million
// pixels whatever the grid: enough to fill an H200, little enough (8 MiB on either side, some 20 microseconds) that
// computing it in full for a few maps costs about as much as the launches.
#include <cuda_runtime.h>
#include <cufft.h>

#include <algorithm>
#include <string>

#include "umbriel/fft/real_fft.hpp"

namespace umbriel {
namespace {

int tile_of(Grid grid) { return static_cast<int>(std::clamp(2097152 / grid.pixels(), 2L, 1024L)); }

const char* name_of(cufftResult code) {
  switch (code) {
    case CUFFT_SUCCESS:
      return "CUFFT_SUCCESS";
    case CUFFT_INVALID_PLAN:
      return "CUFFT_INVALID_PLAN";
    case CUFFT_ALLOC_FAILED:
      return "CUFFT_ALLOC_FAILED";
    case CUFFT_INVALID_TYPE:
      return "CUFFT_INVALID_TYPE";
    case CUFFT_INVALID_VALUE:
      return "CUFFT_INVALID_VALUE";
    case CUFFT_INTERNAL_ERROR:
      return "CUFFT_INTERNAL_ERROR";
    case CUFFT_EXEC_FAILED:
      return "CUFFT_EXEC_FAILED";
    case CUFFT_SETUP_FAILED:
      return "CUFFT_SETUP_FAILED";
    case CUFFT_INVALID_SIZE:
      return "CUFFT_INVALID_SIZE";
    case CUFFT_UNALIGNED_DATA:
      return "CUFFT_UNALIGNED_DATA";
    default:
      return "see cufft.h";
  }
}

void check(cufftResult code, const char* call, const char* file, int line) {
  if (code == CUFFT_SUCCESS) return;
  const bool memory = code == CUFFT_ALLOC_FAILED;
  throw Error(ExitCode::numerical,
              std::string(call) + " failed with code " + std::to_string(code) + ", " + name_of(code),
              std::string(file) + ":" + std::to_string(line),
              memory ? "the device has no room for the transform's workspace: run fewer chains at a time" : "");
}

#define UMBRIEL_CHECK_CUFFT(call) check((call), #call, __FILE__, __LINE__)

cufftComplex* cufft(Complex* data) { return reinterpret_cast<cufftComplex*>(data); }

}  // namespace

struct RealFft::Plans {
  Grid grid;
  int tile;
  cufftHandle forward = 0, inverse = 0;
  MapBatch maps;          // [tile, H, W] for what remains of a batch
  SpectrumBatch spectra;  // [tile, H, W/2+1]

  explicit Plans(Grid g) : grid(g), tile(0) {
    require(grid.height > 0 && grid.width > 0, ExitCode::usage,
            "a Fourier transform needs a grid of at least one pixel",
            std::to_string(grid.height) + " x " + std::to_string(grid.width));
    tile = tile_of(grid);
    maps = MapBatch("umbriel::fft_maps", tile, grid.height, grid.width);
    spectra = SpectrumBatch("umbriel::fft_spectra", tile, grid.height, grid.half_width());
    int size[2] = {grid.height, grid.width};
    int half[2] = {grid.height, grid.half_width()};
    const int pixels = static_cast<int>(grid.pixels()), modes = static_cast<int>(grid.modes());
    UMBRIEL_CHECK_CUFFT(cufftPlanMany(&forward, 2, size, size, 1, pixels, half, 1, modes, CUFFT_R2C, tile));
    UMBRIEL_CHECK_CUFFT(cufftPlanMany(&inverse, 2, size, half, 1, modes, size, 1, pixels, CUFFT_C2R, tile));
  }
  ~Plans() {
    cufftDestroy(forward);
    cufftDestroy(inverse);
  }
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;
};

RealFft::RealFft(Grid grid) : plans_(std::make_shared<Plans>(grid)) {}

const Grid& RealFft::grid() const { return plans_->grid; }

namespace {

/// Copies n numbers on the device, in the order of `space`.
template <class T>
void copy(const Space& space, const T* from, T* to, std::size_t n) {
  using To = Kokkos::View<T*, Memory, Kokkos::MemoryUnmanaged>;
  using From = Kokkos::View<const T*, Memory, Kokkos::MemoryUnmanaged>;
  Kokkos::deep_copy(space, To(to, n), From(from, n));
}

/// Makes the only column of maps one pixel wide that of a real map: cuFFT does not ignore what breaks that.
struct MakeHermitian {
  Complex* columns;  ///< [map, ky]
  int height;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t map = i / (height / 2 + 1);
    const int ky = static_cast<int>(i % (height / 2 + 1)), mirrored = (height - ky) % height;
    Complex &a = columns[map * height + ky], &b = columns[map * height + mirrored];
    const float re = 0.5f * (a.real() + b.real()), im = 0.5f * (a.imag() - b.imag());
    a = Complex(re, im);
    b = Complex(re, -im);
  }
};

/// Calls execute(from, to) for each tile of n maps; map i has in_size numbers at from + i in_size.
template <class In, class Out, class Execute>
void each_tile(const Space& space, int n, int tile, In* from, std::size_t in_size, In* from_buffer, Out* to,
               std::size_t out_size, Out* to_buffer, const Execute& execute) {
  const int whole = n / tile * tile, rest = n - whole;
  for (int i = 0; i < whole; i += tile) execute(from + i * in_size, to + i * out_size);
  if (rest == 0) return;
  copy(space, from + whole * in_size, from_buffer, rest * in_size);
  execute(from_buffer, to_buffer);
  copy(space, to_buffer, to + whole * out_size, rest * out_size);
}

}  // namespace

void RealFft::forward(const Space& space, const MapBatch& maps, const SpectrumBatch& spectra, int n) const {
  if (n <= 0) return;
  const Plans& plans = *plans_;
  detail::require_fft_shapes(plans.grid, maps, spectra, n);
  UMBRIEL_CHECK_CUFFT(cufftSetStream(plans.forward, space.cuda_stream()));
  each_tile(space, n, plans.tile, maps.data(), plans.grid.pixels(), plans.maps.data(), spectra.data(),
            plans.grid.modes(), plans.spectra.data(),
            [&](float* from, Complex* to) { UMBRIEL_CHECK_CUFFT(cufftExecR2C(plans.forward, from, cufft(to))); });
}

void RealFft::inverse(const Space& space, const SpectrumBatch& spectra, const MapBatch& maps, int n) const {
  if (n <= 0) return;
  const Plans& plans = *plans_;
  detail::require_fft_shapes(plans.grid, maps, spectra, n);
  UMBRIEL_CHECK_CUFFT(cufftSetStream(plans.inverse, space.cuda_stream()));
  if (plans.grid.width == 1) {
    const std::int64_t modes = static_cast<std::int64_t>(n) * (plans.grid.height / 2 + 1);
    Kokkos::parallel_for("umbriel::fft_hermitian", Range(space, 0, modes),
                         MakeHermitian{spectra.data(), plans.grid.height});
  }
  each_tile(space, n, plans.tile, spectra.data(), plans.grid.modes(), plans.spectra.data(), maps.data(),
            plans.grid.pixels(), plans.maps.data(),
            [&](Complex* from, float* to) { UMBRIEL_CHECK_CUFFT(cufftExecC2R(plans.inverse, cufft(from), to)); });
}

}  // namespace umbriel
