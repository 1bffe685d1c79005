// Which backends and processor features there are, for hosts: list_backends(), cpu_features().
#pragma once

#include "ops/ops.h"
