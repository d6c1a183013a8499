/// Functions of one number, as they stand in the metadata of a model's file: lines "place value".
#pragma once

#include <string>
#include <vector>

#include "umbriel/nn/safetensors.hpp"

namespace umbriel {

std::string table_text(const std::vector<double>& at, const std::vector<double>& values);

/// @throws Error(input) with `remedy` where `key` is missing, or is not such a table: increasing places, positive
/// values
void read_table(const nn::Metadata& metadata, const std::string& key, const std::string& path,
                const std::string& remedy, std::vector<double>& at, std::vector<double>& values);

}  // namespace umbriel
