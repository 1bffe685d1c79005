// Barriers, shuffles and votes.
#include "testing/simt/machine.h"

namespace redrafter::simt {
namespace {

struct ShuffleArguments {
  uint64_t bits, result;
  int operand, width;
};

// The lane a lane reads from; itself where the source lies outside its part of the warp, as the PTX manual's
// shfl.
int source_lane(Shuffle kind, int lane, int operand, int width) {
  const int first = lane / width * width, last = first + width - 1;
  switch (kind) {
    case Shuffle::kIndex:
      return first + (operand & (width - 1));
    case Shuffle::kXor: {
      const int from = lane ^ operand;
      return from > last ? lane : from;
    }
    case Shuffle::kUp:
      return lane - operand < first ? lane : lane - operand;
    case Shuffle::kDown:
      return lane + operand > last ? lane : lane + operand;
  }
  return lane;
}

template <Shuffle kind>
void run_shuffle(void* const (&arguments)[kWarpLanes]) {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    auto& own = *static_cast<ShuffleArguments*>(arguments[lane]);
    const int from = source_lane(kind, lane, own.operand, own.width);
    own.result = static_cast<const ShuffleArguments*>(arguments[from])->bits;
  }
}

constexpr Collective kShuffles[] = {{"__shfl_sync", run_shuffle<Shuffle::kIndex>},
                                    {"__shfl_xor_sync", run_shuffle<Shuffle::kXor>},
                                    {"__shfl_up_sync", run_shuffle<Shuffle::kUp>},
                                    {"__shfl_down_sync", run_shuffle<Shuffle::kDown>}};

struct VoteArguments {
  bool predicate;
  unsigned lanes;  // whose predicate holds
};

void run_vote(void* const (&arguments)[kWarpLanes]) {
  unsigned lanes = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane)
    lanes |= static_cast<unsigned>(static_cast<VoteArguments*>(arguments[lane])->predicate) << lane;
  for (void* argument : arguments) static_cast<VoteArguments*>(argument)->lanes = lanes;
}

constexpr Collective kBallot = {"__ballot_sync", run_vote}, kAny = {"__any_sync", run_vote},
                     kAll = {"__all_sync", run_vote};
constexpr Collective kSyncWarp = {"__syncwarp", [](void* const (&)[kWarpLanes]) {}, true};

unsigned vote(const Collective& collective, unsigned mask, int predicate) {
  VoteArguments arguments{predicate != 0, 0};
  join_warp(collective, mask, &arguments);
  return arguments.lanes;
}

}  // namespace

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int operand, int width) {
  const Collective& collective = kShuffles[static_cast<int>(kind)];
  if (width < 1 || width > kWarpLanes || (width & (width - 1)) != 0)
    fail(std::string(collective.name) + " with a width that is not a power of two up to 32");
  ShuffleArguments arguments{bits, 0, operand, width};
  join_warp(collective, mask, &arguments);
  return arguments.result;
}

namespace {

constexpr const char *kSync = "__syncthreads", *kSyncOr = "__syncthreads_or", *kSyncAnd = "__syncthreads_and",
                     *kSyncCount = "__syncthreads_count";

}  // namespace
}  // namespace redrafter::simt

using namespace redrafter::simt;

void __syncthreads() { join_block(kSync, false); }
int __syncthreads_or(int predicate) { return join_block(kSyncOr, predicate != 0) > 0 ? 1 : 0; }
int __syncthreads_and(int predicate) {
  return join_block(kSyncAnd, predicate != 0) == machine.thread_count ? 1 : 0;
}
int __syncthreads_count(int predicate) { return join_block(kSyncCount, predicate != 0); }

void __syncwarp(unsigned mask) { join_warp(kSyncWarp, mask, nullptr); }
unsigned __ballot_sync(unsigned mask, int predicate) { return vote(kBallot, mask, predicate); }
int __any_sync(unsigned mask, int predicate) { return vote(kAny, mask, predicate) != 0 ? 1 : 0; }
int __all_sync(unsigned mask, int predicate) { return vote(kAll, mask, predicate) == 0xffffffffu ? 1 : 0; }
