// Why something cannot be used.
#pragma once

#include <string>

namespace redrafter {

// For a program and for people; a null code when it can be used.
struct Reason {
  const char* code = nullptr;  // BackendReasonCode of lib/native.ts
  std::string message;
};

}  // namespace redrafter
