// Errors: one exception type with a stable code. Native code never exits, aborts or prints; the addon
// turns an Error into a JavaScript error with the same code.
#pragma once

#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace redrafter {

// `code` is one of the strings of lib/errors.ts (ERR_MODEL_FORMAT, ERR_CONFIG, ...).
class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

// In a catch block: what was caught, as an Error. Standard exceptions get ERR_OOM or ERR_INTERNAL.
inline Error caught_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error("ERR_OOM", "out of memory");
  } catch (const std::system_error& error) {  // of std::thread
    return Error("ERR_OOM", std::string("cannot start a thread: ") + error.what());
  } catch (const std::exception& error) {
    return Error("ERR_INTERNAL", error.what());
  }
}

// Builds the message from its parts and throws.
template <typename... Parts>
[[noreturn]] void fail(const char* code, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(code, text.str());
}

}  // namespace redrafter

// A condition the input must satisfy: throws Error(code) with the message built from the other arguments.
#define REDRAFTER_REQUIRE(condition, code, ...)             \
  do {                                                      \
    if (!(condition)) ::redrafter::fail(code, __VA_ARGS__); \
  } while (0)

// A condition the code itself guarantees; a failure is a bug in redrafter, still reported as an error.
#define REDRAFTER_CHECK(condition)                                                                    \
  do {                                                                                                \
    if (!(condition))                                                                                 \
      ::redrafter::fail("ERR_INTERNAL", "internal check failed: ", #condition, " at ", __FILE__, ":", \
                        __LINE__);                                                                    \
  } while (0)
