// Which files hold the tensors of a model directory, by their names alone.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace redrafter {

struct CheckpointFiles {
  std::vector<std::string> paths;                    // of the shards
  std::string index_path;                            // empty when there is a single file and no index
  std::vector<std::pair<std::string, int>> weights;  // tensor and shard as the index says, by name
};

// model.safetensors when it exists, like other readers of such directories do, even beside an index;
// otherwise what model.safetensors.index.json lists. Shards are plain file names in the same directory. They
// may be symbolic links: download caches are made of links, and following one reads nothing but a safetensors
// file that the process may read anyway. Throws ERR_FILE (nothing there, or unreadable) or ERR_MODEL_FORMAT
// (malformed index).
CheckpointFiles find_checkpoint_files(const std::string& directory);

// What a file that starts with these bytes is, when it cannot be safetensors and is something known; else "".
std::string other_format(const uint8_t (&first)[8]);

}  // namespace redrafter
