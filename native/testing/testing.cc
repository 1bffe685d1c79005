#include "testing/testing.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  redrafter::testing::add_canary(env, exports);
  redrafter::testing::add_companion(env, exports);
  redrafter::testing::add_drafter(env, exports);
  redrafter::testing::add_engine(env, exports);
  redrafter::testing::add_faults(env, exports);
  redrafter::testing::add_io(env, exports);
  redrafter::testing::add_measure(env, exports);
  redrafter::testing::add_ops(env, exports);
  redrafter::testing::add_planner(env, exports);
  redrafter::testing::add_scheduler(env, exports);
#if defined(REDRAFTER_HAS_SIMT)
  redrafter::testing::add_simt(env, exports);
#endif
  return exports;
}

NODE_API_MODULE(redrafter_testing, init)
