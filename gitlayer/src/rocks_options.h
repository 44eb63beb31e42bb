// How RocksDB is set up for a volume's state. For rocks_state_store.cc, and for nobody else.
#pragma once

#include "state_store.h"

#include <rocksdb/options.h>

namespace packmoor::gitlayer {

rocksdb::Options databaseOptions(const StateStoreOptions& options);

}  // namespace packmoor::gitlayer
