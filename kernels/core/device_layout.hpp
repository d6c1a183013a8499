/// Do the device's compiler and the host's agree on what an array looks like?
///
/// nvcc compiles a kernel twice, by its own front end for the device and by another compiler for the host. Where a
/// class of Kokkos has members that share an address the two may lay it out differently; kernels then read their
/// arguments from wrong places, and results are silently wrong (seen with nvcc 13.0, g++ 12 and the views of
/// Kokkos 4.7, not with Kokkos_ENABLE_IMPL_VIEW_LEGACY=ON).
#pragma once

namespace umbriel {

/// Throws Error(usage) if an array has another size on the device than on the host. Costs one launch; call it once,
/// before any other kernel.
void require_device_layout();

}  // namespace umbriel
