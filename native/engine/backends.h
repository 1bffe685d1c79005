// Which backends and processor features there are, for hosts: list_backends(), cpu_features().
#pragma once

#include "base/cpu.h"
#include "ops/ops.h"
