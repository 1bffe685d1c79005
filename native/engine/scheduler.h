// Who is admitted, and who gets which rows of a round: pure functions of what is known of the requests, with
// no clock and no state of their own. The same decisions follow from the same arguments.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace redrafter {

// What one level of priority is worth: a request counts as having come so much earlier for each. As that
// never changes, requests have one order for good, by turn_of(), and nobody is passed by a request that comes
// more than (difference of priorities) x kPriorityLevel after it: nobody starves.
constexpr std::chrono::milliseconds kPriorityLevel{1000};
constexpr int64_t kMaxPriority = 10;  // least: -kMaxPriority

inline std::chrono::steady_clock::time_point turn_of(std::chrono::steady_clock::time_point submitted,
                                                     int64_t priority) {
  return submitted - priority * kPriorityLevel;
}

// A request that does not fit the cache lets others pass, so that blocks which are too few for it are of use,
// but no more than this many; then the cache is left to run empty for it.
constexpr int64_t kMaxOvertakes = 16;
// Requests that are looked at, from the first in turn: more could only be admitted by passing all of these.
constexpr size_t kLookAhead = 32;

struct WaitingRequest {
  int64_t blocks;     // that it needs beside those it has
  bool generates;     // and so needs a row of hidden states
  int64_t overtaken;  // requests behind it that were admitted
};

// The one of `waiting`, in turn, to be admitted next, or -1 for none at present.
int64_t next_admission(const std::vector<WaitingRequest>& waiting, int64_t free_blocks, int64_t free_hidden);

struct ActiveRequest {
  bool decodes;         // else it has a prompt to read
  int64_t rows;         // that it can use: those of its tree at most, or what is left of its prompt
  int64_t idle_rounds;  // since it last had rows; 1 for a new one
};

struct RoundLimits {
  int64_t rows;          // of a pass; no tree has more
  int64_t prompt_chunk;  // of one prompt; while anything decodes, of all prompts together
};

// Rows of each of `active`, in turn, in the next round; 0: it is not part of it.
// - Whoever decodes gets all its rows, in every round while they suffice; else those that waited longest
// first.
// - Prompts get what is left, at most prompt_chunk while anything decodes. Half of it is for all of them in
// equal
//   shares, those that waited longest first if shares would be too small; the other half goes in turn. So the
//   first in turn is read quickly, and a short prompt is not held up by a long one.
// - Prompts that decoding kept from getting any row in a round get a few in the next.
std::vector<int64_t> plan_rows(const std::vector<ActiveRequest>& active, const RoundLimits& limits);

}  // namespace redrafter
