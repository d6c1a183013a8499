/// Weights of a network as safetensors files that PyTorch reads and writes.
///
/// Names are those of parameters and buffers. Layouts on disk are PyTorch's: convolution [out, in / groups, ky, kx],
/// transposed convolution [in, out / groups, ky, kx], dense [out, in], all else as in memory. In memory a convolution
/// is [ky, kx, in / groups, out], a transposed one [ky, kx, out / groups, in] (that of the convolution it transposes),
/// a dense layer [in, out]: on disk the last axis comes first, then the one before it.
#pragma once

#include <string>

#include "umbriel/nn/parameters.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel::nn {

/// Writes `values` (flat, like parameters.values(): they may be an average) and the buffers of `parameters`. For one
/// rank; let the others know with Communicator::together.
/// @throws Error(file_system), Error(numerical) for a value that is not finite
void save_weights(const std::string& path, const ParameterSet& parameters, const View1<float>& values,
                  const Metadata& metadata);

/// Reads `values` and the buffers of `parameters` from a file that holds exactly these names and shapes, in any
/// floating-point type; integer tensors "*.num_batches_tracked", which PyTorch writes beside batch norms, are ignored.
/// Nothing is changed on error. Every rank may read.
/// @returns the file's metadata
/// @throws Error(input) that lists what is missing, unexpected or of another shape, or names a tensor with a value
///         that is not finite; Error(file_system)
Metadata load_weights(const std::string& path, const ParameterSet& parameters, const View1<float>& values);

}  // namespace umbriel::nn
