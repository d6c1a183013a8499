#include "umbriel/fft/real_fft64.hpp"

#include <fftw3.h>

#include <string>

namespace umbriel {

struct RealFft64::Plan {
  std::vector<double> map;
  std::vector<std::complex<double>> modes;
  fftw_plan forward = nullptr, inverse = nullptr;

  explicit Plan(Grid grid)
      : map(static_cast<std::size_t>(grid.pixels())), modes(static_cast<std::size_t>(grid.modes())) {
    auto* const complex = reinterpret_cast<fftw_complex*>(modes.data());
    forward =
        fftw_plan_dft_r2c_2d(grid.height, grid.width, map.data(), complex, FFTW_ESTIMATE | FFTW_PRESERVE_INPUT);
    inverse = fftw_plan_dft_c2r_2d(grid.height, grid.width, complex, map.data(), FFTW_ESTIMATE);
    require(forward != nullptr && inverse != nullptr, ExitCode::numerical, "FFTW could not plan a transform",
            std::to_string(grid.height) + " x " + std::to_string(grid.width));
  }
  ~Plan() {
    fftw_destroy_plan(forward);
    fftw_destroy_plan(inverse);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

RealFft64::RealFft64(Grid grid) : plan_(std::make_unique<Plan>(grid)) {}
RealFft64::~RealFft64() = default;

double* RealFft64::map() { return plan_->map.data(); }

std::vector<std::complex<double>>& RealFft64::modes() { return plan_->modes; }

const std::vector<std::complex<double>>& RealFft64::forward() {
  fftw_execute(plan_->forward);
  return plan_->modes;
}

void RealFft64::inverse() { fftw_execute(plan_->inverse); }

}  // namespace umbriel
