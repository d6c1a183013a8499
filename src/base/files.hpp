/// What readers and writers of files need from the file system: one check, one wording of its errors.
///
/// A file that is missing or cannot be read or written is Error(file_system); what a file holds is the readers'
/// concern, and damage there is Error(input).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace umbriel {

/// Size in bytes of a regular file that can be read.
/// @throws Error(file_system) if it is missing, a folder or unreadable, with the system's reason
std::uint64_t readable_size(const std::string& path);

/// The whole file.
/// @throws Error(file_system) as readable_size
std::string read_bytes(const std::string& path);

/// Bytes that this user may still write to the file system of `path`'s folder; quotas are not known.
/// @throws Error(file_system) if there is no such folder
std::uint64_t free_space(const std::string& path);

/// Throws Error(file_system) unless that is at least `bytes`, which something is about to write to `path`.
void require_free_space(const std::string& path, double bytes);

/// "1.5 GiB"
std::string human_bytes(double bytes);

/// Writes a file that appears under `path` only when it is whole: `write` fills a temporary file in the same folder and
/// `verify` reads it back; then it is flushed to disk and renamed. On any error the temporary file is removed and a
/// file that stood at `path` before is left as it was.
/// @param bytes  that it will be long, or a little less
/// @throws what `write` and `verify` throw; Error(file_system) if there is no room, flushing or renaming fails
void write_then_rename(const std::string& path, std::uint64_t bytes,
                       const std::function<void(const std::string& temporary)>& write,
                       const std::function<void(const std::string& temporary)>& verify);

/// The same for a file whose bytes are at hand.
/// @throws Error(file_system) if they cannot be written, or read back different
void write_bytes(const std::string& path, const std::string& bytes);

}  // namespace umbriel
