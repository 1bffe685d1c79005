// Measures what rounds cost on this machine, for a model that was just loaded.
#pragma once

#include <functional>

#include "kv/cache.h"
#include "model/forward.h"
#include "spec/costs.h"
#include "spec/drafter.h"

namespace redrafter {

// Runs passes and draft steps of growing size on scratch of the model and on blocks of the cache, of which
// none may be in use, as graphs where the backend has them; takes as long as some 60 passes of one row, but
// no more than about `limit_ms`, or as long as the few smallest of them take once, and where graphs are made
// up to three times as long. Throws ERR_KV_FULL where the cache has no block, ERR_ABORTED when keep_going(),
// which is asked before each of them, is false, and what the ops throw.
RoundCosts measure_costs(Model& model, KvCache& cache, Drafter& drafter, Stream& stream, double limit_ms,
                         const std::function<bool()>& keep_going);

}  // namespace redrafter
