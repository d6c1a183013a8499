/// Training, for commands that train more than once.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "umbriel/app/commands.hpp"
#include "umbriel/data/survey.hpp"

namespace umbriel {

struct TrainingPlan {
  std::string data, network;  ///< in words
  std::string identity;       ///< what decides the series of steps: see require_same_configuration
  double disk = 0;            ///< bytes while it trains
  double kept = 0;            ///< bytes of what it leaves
  std::vector<InputFile> inputs;
};

struct TrainingHooks {
  /// Called when all keys and inputs are found good and nothing is written yet; false: that is all.
  std::function<bool(const TrainingPlan&)> checked;
  /// Called when the weights are safe, before their checkpoint goes: name and value of what was to become small, as
  /// validated for these weights, and the seconds that the training took.
  std::function<void(const std::string& measure, double value, double seconds)> trained;
};

/// `umbriel train`. Collective over line.comm.
/// @return done or stopped
/// @throws Error
ExitCode train(const CommandLine& line, const TrainingHooks& hooks);

}  // namespace umbriel
