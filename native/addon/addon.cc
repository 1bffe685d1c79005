// The entry of the addon.
#include "addon/convert.h"

using redrafter::add_exports;

NODE_API_MODULE(redrafter, add_exports)
